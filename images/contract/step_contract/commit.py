"""The commit protocol: an artifact is there, whole, once its manifest is, and the first manifest stays.

A writer puts the files under a name of its own attempt, then creates the manifest only if there is none. Of two writers one
wins; the other removes its files and returns the winner's manifest if that was made from the same inputs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from uuid import uuid4

from step_contract import paths
from step_contract.exit_codes import DataWrong, StepError
from step_contract.manifest import Fact, File, Manifest, check_content, differences, digest
from step_contract.store import Store


@dataclass(frozen=True)
class Content:
    """What a step made: files by their final names, the number of records in them, and small facts for the reader."""

    files: Mapping[str, bytes]
    rows: int
    schema_version: int
    facts: Mapping[str, Fact]


@dataclass(frozen=True)
class Committed:
    """An artifact that is there: the URI of its manifest, the manifest, and whether this call made it."""

    uri: str
    manifest: Manifest
    new: bool


def load(store: Store, directory: str) -> Manifest | None:
    """The manifest in `directory`, or None where there is none; raises DataWrong when it is damaged."""
    path = f"{directory}/{paths.MANIFEST}"
    data = store.read(path)
    return None if data is None else Manifest.from_json(data, store.uri(path))


def read(store: Store, directory: str, manifest: Manifest) -> dict[str, bytes]:
    """The artifact's files by their final names; raises DataWrong naming the first that is missing, torn or altered."""
    objects = {f"{directory}/{file.path}": file for file in manifest.files}
    contents = store.read_many(objects)
    return {file.name: check_content(store.uri(path), file, contents[path]) for path, file in objects.items()}


def open_artifact(uri: str) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest at `uri` and the artifact's files by their final names; raises DataWrong when one is missing or damaged."""
    root, _, name = uri.rpartition("/")
    above, _, directory = root.rpartition("/")
    if name != paths.MANIFEST:
        raise DataWrong(f"{uri} is no manifest's URI: it must end in {paths.MANIFEST}")
    store = Store(above)
    manifest = load(store, directory)
    if manifest is None:
        raise DataWrong(f"{uri} is missing: the step said that it had committed it; run the step again")
    return manifest, read(store, directory, manifest)


def find(store: Store, directory: str, inputs: Mapping[str, str]) -> Committed | None:
    """The artifact in `directory` if one was committed from the same `inputs`, verified; None where there is none.

    Raises DataWrong when it was made from other inputs or is damaged.
    """
    manifest = load(store, directory)
    if manifest is None:
        return None
    uri = store.uri(f"{directory}/{paths.MANIFEST}")
    if differ := differences(inputs, manifest.inputs):
        raise DataWrong(
            f"{uri} was made from other inputs ({differ}); a committed artifact is never rewritten: "
            "keep it and choose another --artifacts, or remove its folder and run the step again"
        )
    read(store, directory, manifest)
    return Committed(uri, manifest, new=False)


def commit(store: Store, directory: str, *, step: str, session: date, inputs: Mapping[str, str], content: Content) -> Committed:
    """Commits `content` as the artifact in `directory`, or returns the one that another writer committed first.

    Raises DataWrong when the other was made from other inputs. Nothing of this attempt stays when it does not win.
    """
    attempt = f"attempt={uuid4().hex[:12]}"
    files = tuple(File(f"{attempt}/{name}", digest(data), len(data)) for name, data in content.files.items())
    manifest = Manifest(
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
    )
    data, path = manifest.to_json(), f"{directory}/{paths.MANIFEST}"
    try:
        for name, body in content.files.items():
            store.write(f"{directory}/{attempt}/{name}", body)
        # A PUT whose answer was lost is sent again by the client and then refused: the manifest that is there may be ours.
        if store.create(path, data) or store.read(path) == data:
            return Committed(store.uri(path), manifest, new=True)
    except BaseException:
        _discard(store, directory, attempt, data)
        raise
    _discard(store, directory, attempt, data)
    winner = find(store, directory, inputs)
    if winner is None:
        raise DataWrong(f"{store.uri(path)} was removed while it was being committed: run the step again")
    return winner


def _discard(store: Store, directory: str, attempt: str, data: bytes) -> None:
    """Removes the attempt's files unless the committed manifest is the one that names them."""
    with suppress(StepError):
        if store.read(f"{directory}/{paths.MANIFEST}") != data:
            store.remove_folder(f"{directory}/{attempt}")
