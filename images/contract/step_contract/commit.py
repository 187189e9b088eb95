"""The commit protocol: an artifact exists, complete, once its manifest exists, and the first manifest stays.

A writer stores the files under a prefix of its own attempt, then creates the manifest only if it is absent. Of two writers one
wins; the other removes its files and returns the winner's manifest if that was made from the same inputs. So a step is
idempotent: it can be retried, or run twice at once, with the same result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from hashlib import sha256
from uuid import uuid4

from step_contract import paths
from step_contract.errors import ConfigurationError, DataError, StepError
from step_contract.lineage.sources import Source, SourceList, pack_sources
from step_contract.manifest import MAX_BYTES, Fact, File, Manifest, check_content, check_path, damaged_file, differences, digest
from step_contract.store import READ_LIMIT, Store
from step_contract.strict_json import shorten

# Verification reads at about 100 MB/s: some 50 seconds, in which a triggerer's thread is busy.
VERIFY_LIMIT = 5 * 2**30


@dataclass(frozen=True)
class Content:
    """The output of a step.

    Attributes:
        files: its files by their final names.
        rows: the number of records in them.
        schema_version: of the files.
        facts: small facts for readers.
        sources: what it was made from.
    """

    files: Mapping[str, bytes]
    rows: int
    schema_version: int
    facts: Mapping[str, Fact]
    sources: Sequence[Source] = ()

    @cached_property
    def _packed(self) -> tuple[dict[str, bytes], tuple[Source | SourceList, ...]]:
        return pack_sources(self.sources)

    @property
    def stored_files(self) -> dict[str, bytes]:
        """The artifact's files: also those that list its sources, if there are many."""
        return {**self.files, **self._packed[0]}

    @property
    def stored_sources(self) -> tuple[Source | SourceList, ...]:
        """The manifest's entries of the sources."""
        return self._packed[1]


@dataclass(frozen=True)
class Committed:
    """A committed artifact.

    Attributes:
        uri: the URI of its manifest.
        manifest: the manifest.
        new: whether this call committed it.
        note: what a person should know about an artifact that was returned, such as that another version made it.
    """

    uri: str
    manifest: Manifest
    new: bool
    note: str = ""


def load(store: Store, directory: str) -> Manifest | None:
    """Return the manifest in `directory`, or None if there is none. Raises DataError if it is damaged."""
    path = f"{directory}/{paths.MANIFEST}"
    data = store.read(path, MAX_BYTES)
    return None if data is None else Manifest.from_json(data, store.uri(path))


def read(store: Store, directory: str, manifest: Manifest) -> dict[str, bytes]:
    """Return the artifact's files by their final names.

    Raises DataError naming the first that is missing, truncated or altered, or if they have more than READ_LIMIT bytes in all.
    """
    if (size := sum(file.size for file in manifest.files)) > READ_LIMIT:
        raise DataError(f"{store.uri(directory)} has {size} bytes; at most {READ_LIMIT} can be read into memory")
    objects = {f"{directory}/{file.path}": file for file in manifest.files}
    contents = store.read_many(objects, max((file.size for file in manifest.files), default=0))
    return {file.name: check_content(store.uri(path), file, contents[path]) for path, file in objects.items()}


def read_file(store: Store, directory: str, file: File) -> bytes:
    """Return one of the artifact's files. Raises DataError if it is missing, truncated or altered."""
    path = f"{directory}/{file.path}"
    return check_content(store.uri(path), file, store.read(path, file.size))


def stream_file(store: Store, directory: str, file: File) -> Iterator[bytes]:
    """Yield the content of an artifact's file in chunks, the last one only if the whole content matches the manifest.

    Raises DataError if it does not: before the first chunk if the file is missing, of another size, or has only one chunk.
    """
    path = f"{directory}/{file.path}"
    if (size := store.size(path)) != file.size:
        raise damaged_file(store.uri(path), file, size, "nothing" if size is None else f"{size} bytes")
    found, held, length = sha256(), b"", 0
    for chunk in store.read_chunks(path, file.size):
        found.update(chunk)
        length += len(chunk)
        if held:
            yield held
        held = chunk
    if found.hexdigest() != file.sha256:
        raise damaged_file(store.uri(path), file, length, f"sha256 {found.hexdigest()} ({length} bytes)")
    if held:
        yield held


def verify(store: Store, directory: str, manifest: Manifest) -> None:
    """Check every file of the artifact against the manifest, in memory that does not depend on the artifact's size.

    Raises DataError naming the first that is missing, truncated or altered.
    """
    for file in manifest.files:
        for _ in stream_file(store, directory, file):
            pass


def verify_artifact(uri: str) -> Manifest:
    """Return the manifest at `uri` if every file of the artifact matches it.

    It blocks while it reads the artifact once, but keeps only a few chunks: an event loop calls it in a thread. DataError
    if the artifact is missing or damaged, or has more than VERIFY_LIMIT bytes.
    """
    store, directory, manifest = _load_reported(uri)
    if (size := sum(file.size for file in manifest.files)) > VERIFY_LIMIT:
        raise DataError(f"the artifact {uri} has {size} bytes; at most {VERIFY_LIMIT} are allowed: commit less")
    verify(store, directory, manifest)
    return manifest


def open_artifact(uri: str, *, fail_fast: bool = False) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest at `uri` and the artifact's files by their final names; `fail_fast` as in Store.

    Raises DataError if one is missing or damaged, or the files have more than READ_LIMIT bytes in all.
    """
    store, directory, manifest = _load_reported(uri, fail_fast)
    return manifest, read(store, directory, manifest)


def _load_reported(uri: str, fail_fast: bool = False) -> tuple[Store, str, Manifest]:
    """Return store, directory and manifest of the artifact that a step reported. Raises DataError as `open_artifact` does."""
    root, _, name = uri.rpartition("/")
    above, _, directory = root.rpartition("/")
    try:
        if name != paths.MANIFEST:
            raise ValueError(f"it must end in {paths.MANIFEST}")
        store = Store(above, fail_fast=fail_fast)
        if store.uri(f"{check_path(directory)}/{name}") != uri:
            raise ValueError(f"its canonical form is {store.uri(directory)}/{name}")
    except (ValueError, ConfigurationError) as error:
        raise DataError(f"{shorten(uri)} is not the URI of a manifest: {error}") from None
    manifest = load(store, directory)
    if manifest is None:
        raise DataError(f"{uri} is missing although the step reported it as committed: run the step again")
    return store, directory, manifest


def find(store: Store, directory: str, inputs: Mapping[str, str]) -> Committed | None:
    """Return the artifact in `directory` that was committed from the same `inputs`, verified; None if there is none.

    Raises DataError if it was made from other inputs or is damaged.
    """
    manifest = load(store, directory)
    if manifest is None:
        return None
    uri = store.uri(f"{directory}/{paths.MANIFEST}")
    if differ := differences(inputs, manifest.inputs):
        raise DataError(
            f"{uri} was made from other inputs ({differ}); a committed artifact is never rewritten: "
            "keep it and choose another --artifacts, or remove its folder and run the step again"
        )
    verify(store, directory, manifest)
    return Committed(uri, manifest, new=False)


def commit(
    store: Store,
    directory: str,
    *,
    step: str,
    session: date,
    inputs: Mapping[str, str],
    content: Content,
    code_version: int = 1,
    reason: str = "",
) -> Committed:
    """Commit `content` as the artifact in `directory`, or return the one that another writer committed first.

    Raises DataError if the other was made from other inputs, or if a file's name or a fact is invalid: see `manifest`. An
    attempt that does not win removes its files, unless it is killed: nothing else deletes them (docs/deploy.md, Limitations).
    `revisions.Artifact` calls `try_commit` with the next revision's directory instead.
    """
    manifest = make_manifest(step, session, inputs, content, code_version, reason)
    if committed := try_commit(store, directory, manifest, content):
        return committed
    winner = find(store, directory, inputs)
    if winner is None:
        raise DataError(f"{store.uri(directory)} was removed during the commit: run the step again")
    return winner


def make_manifest(
    step: str, session: date, inputs: Mapping[str, str], content: Content, code_version: int, reason: str
) -> Manifest:
    """Return the manifest of `content`, whose files are under the prefix of an attempt of its own."""
    attempt = f"attempt={uuid4().hex[:12]}"
    files = tuple(File(f"{attempt}/{name}", digest(data), len(data)) for name, data in content.stored_files.items())
    return Manifest(
        step=step,
        session=session,
        inputs=inputs,
        files=files,
        rows=content.rows,
        schema_version=content.schema_version,
        facts=content.facts,
        created=datetime.now(UTC),
        image=os.environ.get("STEP_IMAGE") or None,
        commit=os.environ.get("GIT_COMMIT") or None,
        code_version=code_version,
        reason=reason,
        sources=content.stored_sources,
    )


def try_commit(store: Store, directory: str, manifest: Manifest, content: Content) -> Committed | None:
    """Commit `content` in `directory`; return None, and leave nothing there, if another writer was first."""
    data, path = manifest.to_json(), f"{directory}/{paths.MANIFEST}"
    try:
        for file, body in zip(manifest.files, content.stored_files.values(), strict=True):
            store.write(f"{directory}/{file.path}", body)
        # The client repeats a PUT whose response was lost, and the second is refused: the existing manifest may be ours.
        if store.create(path, data) or store.read(path) == data:
            return Committed(store.uri(path), manifest, new=True)
    except BaseException:
        _discard(store, directory, manifest, data)
        raise
    _discard(store, directory, manifest, data)
    return None


def _discard(store: Store, directory: str, manifest: Manifest, data: bytes) -> None:
    """Remove the attempt's files unless the committed manifest names them."""
    with suppress(StepError):
        if store.read(f"{directory}/{paths.MANIFEST}") != data:
            for attempt in {file.path.partition("/")[0] for file in manifest.files}:
                store.remove_folder(f"{directory}/{attempt}")
