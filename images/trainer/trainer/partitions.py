"""The price partitions that a model, a plot or a forecast is made from: the committed ones, or those that a model records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from step_contract import paths
from step_contract.errors import DataError
from step_contract.lineage.sources import Source
from step_contract.manifest import File, canonical, digest
from step_contract.revisions import Revision, load_revisions, select_revisions
from step_contract.schemas import PRICES
from step_contract.store import Store

ROLE = "prices"  # of a price partition among the sources of an artifact


@dataclass(frozen=True)
class PricePartitions:
    """Price partitions of a symbol, ordered by session.

    Attributes:
        files: the file of each session, by its path in the store; `versions` its schema version.
        digest: sha256 of the sessions and their files' digests.
        sources: the partitions' manifests, as sources of what is made from them.
    """

    symbol: str
    sessions: list[date]
    files: dict[str, File]
    versions: dict[str, int]
    digest: str
    sources: list[Source]


def list_partitions(
    store: Store,
    symbol: str,
    until: date,
    since: date | None = None,
    last: int | None = None,
    as_of: datetime | None = None,
    pinned: Revision | None = None,
) -> PricePartitions:
    """Return the latest revisions of the price partitions from `since` to `until`, both inclusive, or the `last` of them.

    With `as_of`, these are the latest revisions that were committed by then. With `pinned`, a partition, they end with it,
    although there may be a later revision of it.

    Raises DataError if there are none, a manifest is damaged, or a schema version cannot be read.
    """
    revisions = paths.session_revisions(store.list(paths.prices_root(symbol)))
    if pinned:
        until = min(until, pinned.manifest.session)
        revisions[pinned.manifest.session] = {paths.parse_revision(pinned.path): pinned.path}
    revisions = {day: found for day, found in sorted(revisions.items()) if day <= until and (since is None or day >= since)}
    if last and as_of is None:
        revisions = dict(list(revisions.items())[-last:])
    selected = select_revisions(store, revisions, as_of)
    selected = dict(list(selected.items())[-last:]) if last else selected
    if not selected:
        period = f"from {since} to {until}" if since else f"up to {until}"
        period += f", committed by {as_of.isoformat()}," if as_of else ""
        raise DataError(
            f"no sessions of {symbol} {period} in {store.uri(paths.prices_root(symbol))}: "
            f"collect them with collector fetch-prices --from YYYY-MM-DD --to {until}"
        )
    return _make_partitions(store, symbol, selected)


def read_recorded_partitions(store: Store, symbol: str, sources: Sequence[Source], last: int) -> PricePartitions | None:
    """Return the `last` of the price partitions among the sources of an artifact; None if it records none.

    Raises DataError if one is missing, was altered since, or has a schema version that cannot be read.
    """
    recorded: dict[date, tuple[str, str]] = {}
    for source in sources:
        if source.role == ROLE:
            parts = paths.split_artifact_uri(source.uri)
            if not parts:
                raise DataError(f"{source.uri} is recorded as prices, but names no manifest of an artifact: train again")
            recorded[paths.parse_session(parts[1])] = parts[1], source.sha256
    if not recorded:
        return None
    selected = sorted(recorded.items())[-last:]
    revisions = load_revisions(store, {session: path for session, (path, _) in selected})
    for session, (_, sha256) in selected:
        if revisions[session].sha256 != sha256:
            uri = store.uri(revisions[session].path)
            raise DataError(f"{uri} was altered since it was used: expected sha256 {sha256}; restore it, or train again")
    return _make_partitions(store, symbol, revisions)


def _make_partitions(store: Store, symbol: str, revisions: Mapping[date, Revision]) -> PricePartitions:
    files, versions = {}, {}
    for session, revision in revisions.items():
        command = f"collector fetch-prices --session {session} --symbol {symbol} --remake REASON"
        PRICES.check_version(revision.manifest.schema_version, store.uri(revision.path), command)
        file = revision.manifest.file(PRICES.file)
        name = f"{revision.directory}/{file.path}"
        files[name], versions[name] = file, revision.manifest.schema_version
    content = [[session.isoformat(), file.sha256] for session, file in zip(revisions, files.values(), strict=True)]
    sources = [revision.source(store, ROLE) for revision in revisions.values()]
    return PricePartitions(symbol, list(revisions), files, versions, digest(canonical(content)), sources)
