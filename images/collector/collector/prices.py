"""The Parquet partition of a session's bar, and its revisions when the source corrects the bar."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import pandas as pd
from step_contract import paths
from step_contract.commit import Committed, Content, open_artifact
from step_contract.errors import DataError
from step_contract.facts import PricesFacts
from step_contract.lineage.sources import Source
from step_contract.manifest import Manifest, canonical, digest
from step_contract.revisions import Artifact, Logic, select_revisions, verify_revision
from step_contract.schemas import PRICES
from step_contract.store import Store
from step_contract.tables import read_any_version, rows_to_parquet, to_records

LOGIC = Logic("collector", "fetch-prices", code_version=1, schema_version=PRICES.version)
CORRECTION = "correction"  # the reason of a revision with values that the source has corrected
log = logging.getLogger(__name__)
MAX_SHOWN = 3  # corrections or contradictions that a message lists


@dataclass(frozen=True)
class PricePartition:
    """The partition of one session, to be committed.

    Attributes:
        symbol: the index.
        session: the session.
        bar: the bar's values by column of PRICES; None for missing ones.
        inputs: the manifest's inputs: the symbol and a digest of the bar's values.
        file: the Parquet file of the bar's row.
        sources: the source's file that the bar was read from.
    """

    symbol: str
    session: date
    bar: Mapping[str, Any]
    inputs: Mapping[str, str]
    file: bytes = field(repr=False)
    sources: tuple[Source, ...] = ()


def make_partitions(symbol: str, prices: pd.DataFrame, sources: tuple[Source, ...] = ()) -> list[PricePartition]:
    """Return the partition of each session of `prices`, a table of the schema PRICES; equal bars give equal bytes.

    A partition's inputs depend on the bar's values and not on the bytes of its file: another version of the writer does not
    make a correction of what is committed. `sources` are those of every partition.

    Raises DataError if the table does not match its schema.
    """
    partitions = []
    for bar, file in zip(to_records(prices), rows_to_parquet(prices, PRICES), strict=True):
        session = bar["date"]
        inputs = {"symbol": symbol, "bar": digest_bar(bar, PRICES.version)}
        partitions.append(PricePartition(symbol, session, bar, inputs, file, sources))
    return partitions


def digest_bar(bar: Mapping[str, Any], version: int) -> str:
    """Return the digest of those of the bar's values that partitions of a schema version have, by their names there."""
    stored = {name: bar[column.name] for name, column in PRICES.shared_columns(version).items()}
    return digest(canonical({name: value.isoformat() if isinstance(value, date) else value for name, value in stored.items()}))


def commit_partition(
    store: Store,
    partition: PricePartition,
    *,
    known: Mapping[int, str] | None = None,
    remake: str = "",
    changed: str | None = None,
) -> Committed:
    """Commit the partition as the next revision, or return the one that exists with the same bar (`Artifact.find`).

    Args:
        store: where the artifacts are.
        partition: the partition to commit.
        known: the manifests of its revisions by number; empty if it is new, None to list them.
        remake: a person's reason to commit it although the bar may be the same.
        changed: the reason to commit another bar than the latest revision has; None if that is an error.

    Raises:
        DataError: the latest revision has another bar and `changed` is None.
    """
    directory, bar = paths.prices(partition.symbol, partition.session), partition.bar
    artifact = Artifact(
        store,
        directory,
        LOGIC,
        session=partition.session,
        inputs=partition.inputs,
        remake=remake,
        changed=changed,
        known=known,
    )
    if committed := artifact.find():
        return committed
    facts = PricesFacts(partition.session.isoformat(), bar["close"], bar["change"])
    return artifact.commit(Content({PRICES.file: partition.file}, 1, PRICES.version, facts.to_facts(), partition.sources))


@dataclass(frozen=True)
class Comparison:
    """A committed bar beside the source's.

    Attributes:
        partition: the partition of the source's bar.
        path: the manifest of the latest committed revision; `manifest` is its content.
        differences: the columns that differ, with both values, for messages; of those that both schema versions have.
    """

    partition: PricePartition
    path: str
    manifest: Manifest
    differences: str

    @property
    def is_outdated(self) -> bool:
        """Whether another version of this step made the committed bar."""
        return not LOGIC.made(self.manifest)

    @property
    def is_correction(self) -> bool:
        """Whether the source has corrected the bar: nothing else can have changed if the same code collected both."""
        return bool(self.differences) and self.manifest.code_version == LOGIC.code_version


def compare_with_source(
    store: Store,
    partitions: Iterable[PricePartition],
    revisions: Mapping[date, Mapping[int, str]],
    on_damaged: Callable[[date, DataError], None] | None = None,
) -> list[Comparison]:
    """Return the committed bar of each of `partitions` beside the source's; sessions that are not committed are ignored.

    Args:
        store: where the artifacts are.
        partitions: made of the source's bars.
        revisions: the manifests by session and number: `paths.session_revisions`.
        on_damaged: called with a session whose latest revision is damaged, which is then left out, instead of raising.

    Raises:
        DataError: a manifest is missing, or an artifact is damaged.
    """
    partition_of = {partition.session: partition for partition in partitions if revisions.get(partition.session)}
    latest = select_revisions(store, {session: revisions[session] for session in partition_of}, on_damaged=on_damaged)
    comparisons = []
    for session, (path, manifest, _) in latest.items():
        partition, version = partition_of[session], manifest.schema_version
        known = PRICES.oldest <= version <= PRICES.version
        equal = not known or manifest.inputs == {**partition.inputs, "bar": digest_bar(partition.bar, version)}
        try:
            differences = "" if equal else _describe_differences(store.uri(path), partition.bar, version)
        except DataError as error:
            if on_damaged is None:
                raise
            on_damaged(session, error)
            continue
        comparisons.append(Comparison(partition, path, manifest, differences))
    return comparisons


def _describe_differences(uri: str, bar: Mapping[str, Any], version: int) -> str:
    [row] = read_any_version(open_artifact(uri)[1][PRICES.file], uri)
    # A column that the file lacks is new, whatever its declaration states.
    values = {column.name: row[name] for name, column in PRICES.shared_columns(version).items() if name in row}
    return ", ".join(f"{name} {value} is now {bar[name]}" for name, value in values.items() if value != bar[name])


def open_partition(store: Store, comparison: Comparison) -> Committed:
    """Return the committed partition, verified, with a note if another version of this step made it."""
    partition = comparison.partition
    command = LOGIC.command({"session": partition.session.isoformat(), "symbol": partition.symbol})
    committed = verify_revision(store, comparison.path, comparison.manifest, LOGIC, command)
    if not comparison.is_correction and comparison.differences:
        return replace(committed, note=f"{committed.note}. Its values would be others: {comparison.differences}")
    return committed


def format_outdated(symbol: str, comparisons: Sequence[Comparison]) -> str:
    """Describe the committed bars that another version of this step made, and the command that makes them anew."""
    outdated = {comparison.partition.session: comparison for comparison in comparisons if comparison.is_outdated}
    if not outdated:
        return ""
    first, last = min(outdated), max(outdated)
    command = LOGIC.command({"from": first.isoformat(), "to": last.isoformat(), "symbol": symbol})
    return f"{len(outdated)} of another version, such as {first}, {LOGIC.describe_outdated(outdated[first].manifest, command)}"


def warn_damaged(session: date, error: DataError) -> None:
    """Log a damaged revision that is made anew."""
    log.warning("%s is made anew, as its latest revision is damaged: %s", session, error)


def join_first(texts: Sequence[str]) -> str:
    """Join the first MAX_SHOWN texts and the number of the others; empty if there are none."""
    more = [f"and {len(texts) - MAX_SHOWN} more"] if len(texts) > MAX_SHOWN else []
    return "; ".join([*texts[:MAX_SHOWN], *more])


def format_corrections(symbol: str, comparisons: Sequence[Comparison]) -> str:
    """Describe the source's corrections and the command that accepts them; empty if there are none."""
    corrections = [comparison for comparison in comparisons if comparison.is_correction]
    if not corrections:
        return ""
    shown = join_first([f"{correction.partition.session}: {correction.differences}" for correction in corrections])
    first, last = corrections[0].partition.session, corrections[-1].partition.session
    options = f"--session {first}" if first == last else f"--from {first} --to {last}"
    return (
        f"the source has corrected committed prices of {symbol}: {shown}. The committed revision is unchanged; to commit the "
        f"source's values as the next revision, run collector fetch-prices {options} --accept-corrections"
    )
