"""Revisions: an artifact that is made anew stands beside the earlier ones, with the reason; none is rewritten or removed.

This is the one mechanism for every kind of artifact. Revision 1 is in the artifact's directory, 2 and so on are below it
(`paths.revision`). Readers use the latest one, or the latest one that was committed by a time (`as_of`). A new revision is made
for a reason: a person asks for it (`--remake`), or what the artifact was made from has changed. Decision 31 has the rules.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from shlex import quote
from typing import NamedTuple, TypeVar

from step_contract import paths
from step_contract.commit import Committed, Content, make_manifest, try_commit, verify
from step_contract.errors import DataError, TransientError
from step_contract.lineage.sources import Source
from step_contract.manifest import MAX_BYTES, MAX_REASON_LENGTH, Manifest, differences, digest
from step_contract.store import Store

# Of a person. A reason that a step writes names what has changed and may be longer.
MAX_REMAKE_LENGTH = 500
# How often other writers may take the next number first.
MAX_COMMITS = 10

Key = TypeVar("Key", bound=Hashable)
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Logic:
    """What makes an artifact: a step of a program, the version of its logic, and the schema version of its files.

    Raise `code_version` when a change of the code changes what the step writes for the same inputs. It does not change by
    itself with a release or a commit, most of which change no result (decision 31).
    """

    program: str
    step: str
    code_version: int
    schema_version: int

    def made(self, manifest: Manifest) -> bool:
        """Return whether this version of the step made the artifact."""
        return (manifest.code_version, manifest.schema_version) == (self.code_version, self.schema_version)

    def describe_outdated(self, manifest: Manifest, command: str) -> str:
        """Return a phrase about an artifact that another version of the step made, with what to do; empty for any other."""
        if self.made(manifest):
            return ""
        made = f"made by code version {manifest.code_version} with schema version {manifest.schema_version}; this program has "
        made += f"{self.code_version} and {self.schema_version}"
        if manifest.schema_version > self.schema_version or manifest.code_version > self.code_version:
            return f"{made}: upgrade the program"
        return f"{made}: to make it anew as a revision beside it, run {command}"

    def command(self, options: Mapping[str, str]) -> str:
        """Return the command that makes the artifact with these options anew."""
        shown = " ".join(f"--{name} {quote(value)}" for name, value in options.items())
        return f"{self.program} {self.step} {shown} --remake REASON"


class Artifact:
    """One artifact with all its revisions: found, made, and made anew.

    A step calls `find` first, and `commit` with the new content if there is nothing to return.

    Args:
        store: where the artifacts are.
        directory: the artifact's directory, from `paths`.
        logic: what makes it.
        session: its session.
        inputs: everything that its content depends on, besides the logic.
        remake: a person's reason to make it anew although the inputs may be equal; empty for none.
        changed: the reason to make it anew if its inputs have changed, in which {differences} is replaced; None if that is an
            error.
        returns_first: without `remake`, the first revision answers and not the latest: for what a person was shown, and what
            must stay as it was.
        known: its manifests by number, if the caller has listed them.
    """

    def __init__(
        self,
        store: Store,
        directory: str,
        logic: Logic,
        *,
        session: date,
        inputs: Mapping[str, str],
        remake: str = "",
        changed: str | None = None,
        returns_first: bool = False,
        known: Mapping[int, str] | None = None,
    ) -> None:
        self.store, self.directory, self.logic = store, directory, logic
        self.session, self.inputs, self.remake, self.changed = session, inputs, remake, changed
        self._returns_first, self._revisions = returns_first, known
        self.reason = remake

    def find(self) -> Committed | None:
        """Return the revision that answers the step, verified; None if one has to be made.

        Without `remake` this is the latest revision, or the first with `returns_first`, if its inputs are the same; a note
        states that another version of the step made it. With `remake` it is the revision that an earlier attempt made for the
        same reason, from the same inputs, by the same version: a retry makes no other.

        Raises DataError if that revision is damaged, or was made from other inputs and `changed` is None. A damaged
        revision does not prevent a remake.
        """
        if self._revisions is None:
            self._revisions = list_revisions(self.store, self.directory)
        if self.remake:
            return self._find_remade()
        if not self._revisions:
            return None
        path = self._revisions[min(self._revisions) if self._returns_first else max(self._revisions)]
        try:
            return self._find_unchanged(path)
        except DataError as error:
            if not self._returns_first:
                raise
            raise DataError(
                f"{error}. A revision does not replace this one: without --remake, only restoring it helps"
            ) from None

    def _find_unchanged(self, path: str) -> Committed | None:
        """Return the revision whose manifest is at `path`, verified, if its inputs are the same."""
        manifest = load_manifest(self.store, path)
        if differ := differences(self.inputs, manifest.inputs):
            if self.changed is None:
                raise DataError(
                    f"{self.store.uri(path)} was made from other inputs ({differ}); a committed artifact is never rewritten: "
                    f"to commit a revision beside it, run {self._command()}"
                )
            shown = _DIGEST.sub(lambda match: match[0][:12], differ)
            self.reason = self.changed.replace("{differences}", shown)[:MAX_REASON_LENGTH]
            return None
        return self._verified(path, manifest)

    def _find_remade(self) -> Committed | None:
        for path in reversed(list((self._revisions or {}).values())):
            try:
                manifest = load_manifest(self.store, path)
                if manifest.reason == self.remake and self.logic.made(manifest) and manifest.inputs == self.inputs:
                    return self._note_later(path, self._verified(path, manifest))
            except DataError as error:
                log.warning("A revision that is damaged is made anew: %s", error)
        return None

    def _note_later(self, path: str, committed: Committed) -> Committed:
        """Return the revision at `path`, which was made for a reason, with a note if a later one has replaced it."""
        latest = max(self._revisions or {})
        if self._returns_first or paths.parse_revision(path) == latest:
            return committed
        return replace(committed, note=f"made for this reason before revision {latest}, which is the one that readers use")

    def _verified(self, path: str, manifest: Manifest) -> Committed:
        return verify_revision(self.store, path, manifest, self.logic, self._command())

    def _command(self) -> str:
        options = {"session": self.session.isoformat()}
        options |= {"symbol": self.inputs["symbol"]} if "symbol" in self.inputs else {}
        return self.logic.command(options)

    def commit(self, content: Content) -> Committed:
        """Commit `content` as the next revision, or return what another writer committed meanwhile, as `find` does.

        Raises TransientError if other writers take the next number again and again.
        """
        for _ in range(MAX_COMMITS):
            if self._revisions is None:
                self._revisions = list_revisions(self.store, self.directory)
            directory = paths.revision(self.directory, max(self._revisions, default=0) + 1)
            logic = self.logic
            manifest = make_manifest(logic.step, self.session, self.inputs, content, logic.code_version, self.reason)
            if committed := try_commit(self.store, directory, manifest, content):
                return committed
            self._revisions = None
            if committed := self.find():
                return committed
        raise TransientError(f"other writers have committed {MAX_COMMITS} revisions of {self.directory}: run the step again")


def list_revisions(store: Store, directory: str) -> dict[int, str]:
    """Return the manifests of the artifact's revisions by ascending number."""
    return paths.group_revisions(store.list(directory)).get(directory, {})


def load_manifest(store: Store, path: str) -> Manifest:
    """Return the manifest at `path`. Raises DataError if it is missing or damaged."""
    return _parse_manifest(store, path, store.read(path, MAX_BYTES))


def _parse_manifest(store: Store, path: str, data: bytes | None) -> Manifest:
    if data is None:
        raise DataError(f"{store.uri(path)} was removed while the step was running: run the step again")
    return store.parse(path, data, Manifest.from_json)


def verify_revision(store: Store, path: str, manifest: Manifest, logic: Logic, command: str) -> Committed:
    """Return the revision whose manifest is at `path`, verified, with a note if another version of the step made it."""
    verify(store, path.removesuffix(f"/{paths.MANIFEST}"), manifest)
    return Committed(store.uri(path), manifest, new=False, note=logic.describe_outdated(manifest, command))


class Revision(NamedTuple):
    """A revision of an artifact: the path of its manifest, the manifest, and the sha256 of the manifest's bytes."""

    path: str
    manifest: Manifest
    sha256: str

    @property
    def directory(self) -> str:
        """The revision's directory."""
        return self.path.rpartition("/")[0]

    def source(self, store: Store, role: str) -> Source:
        """Return the revision as a source of another artifact."""
        return Source(role, store.uri(self.path), self.sha256)


def load_revision(store: Store, path: str) -> Revision:
    """Return the revision whose manifest is at `path`. Raises DataError if it is missing or damaged."""
    return _parse_revision(store, path, store.read(path, MAX_BYTES))


def load_revisions(store: Store, manifests: Mapping[Key, str]) -> dict[Key, Revision]:
    """Return the revisions whose manifests are at these paths. Raises DataError if one is missing or damaged."""
    contents = store.read_many(manifests.values(), MAX_BYTES)
    for path, data in contents.items():
        if data is None:
            raise DataError(f"{store.uri(path)} is missing: restore it, or make anew what was made from it")
    return {key: _parse_revision(store, path, contents[path]) for key, path in manifests.items()}


def _parse_revision(store: Store, path: str, data: bytes | None) -> Revision:
    return Revision(path, _parse_manifest(store, path, data), digest(data or b""))


def select_revisions(
    store: Store,
    revisions: Mapping[Key, Mapping[int, str]],
    as_of: datetime | None = None,
    on_damaged: Callable[[Key, DataError], None] | None = None,
) -> dict[Key, Revision]:
    """Return each artifact's latest revision.

    A damaged one is an error and no reason to use an earlier one: that would be other data, without anyone noticing.

    Args:
        store: where the artifacts are.
        revisions: the manifests of each artifact by number.
        as_of: only revisions that were committed by then; artifacts without one are left out.
        on_damaged: called with an artifact whose manifest is damaged, which is then left out, instead of raising.

    Raises:
        DataError: a manifest is missing or damaged.
    """
    paths_of = {key: [numbered[number] for number in sorted(numbered, reverse=True)] for key, numbered in revisions.items()}
    if as_of is None:
        paths_of = {key: candidates[:1] for key, candidates in paths_of.items()}
    contents = store.read_many([path for candidates in paths_of.values() for path in candidates], MAX_BYTES)
    selected = {}
    for key, candidates in paths_of.items():
        try:
            parsed = (_parse_revision(store, path, contents[path]) for path in candidates)
            found = next((entry for entry in parsed if as_of is None or entry.manifest.created <= as_of), None)
        except DataError as error:
            if on_damaged is None:
                raise
            on_damaged(key, error)
            continue
        if found:
            selected[key] = found
    return selected


def parse_reason(text: str) -> str:
    """Return a person's reason in one line; empty for none. Raises argparse.ArgumentTypeError if it is invalid."""
    reason = " ".join(text.split())
    if len(reason) > MAX_REMAKE_LENGTH:
        raise argparse.ArgumentTypeError(
            f"the reason has {len(reason)} characters; at most {MAX_REMAKE_LENGTH} are allowed: shorten it"
        )
    if not reason.isprintable():
        raise argparse.ArgumentTypeError(f"the reason {reason[:80]!r} has characters that cannot be printed: remove them")
    return reason


def parse_as_of(text: str) -> datetime | None:
    """Return a time with its zone as UTC, None for an empty text. Raises argparse.ArgumentTypeError if it is invalid."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None and (time := time.astimezone(UTC)) <= datetime.now(UTC):
            return time
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(
        f"invalid time {text!r}: use a time of the past with its zone, such as 2026-01-15T18:00:00+09:00"
    )
