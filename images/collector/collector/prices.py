"""The Parquet partition of a session's bar, and its revisions when the source corrects the bar."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache

import arro3.core as arrow
from arro3.io import read_parquet, write_parquet
from step_contract import paths
from step_contract.commit import Committed, Content, commit, find, open_artifact
from step_contract.errors import DataError
from step_contract.manifest import MAX_BYTES, Fact, Manifest, canonical, digest
from step_contract.schemas import PRICES_COLUMNS, PRICES_FILE, PRICES_VERSION
from step_contract.store import Store

from collector.bar_checks import Bar

STEP = "fetch-prices"
MAX_SHOWN = 3  # corrections or contradictions that a message lists


@cache
def _schema() -> arrow.Schema:
    integers = {name: arrow.DataType.int64() for name in ("volume", "amount", "market_cap")}
    types = integers | {"date": arrow.DataType.date32()}
    return arrow.Schema([arrow.Field(name, types.get(name, arrow.DataType.float64())) for name in PRICES_COLUMNS])


def bar_to_parquet(bar: Bar) -> bytes:
    """Return a Parquet file of one row with the columns PRICES_COLUMNS; equal bars give equal bytes."""
    schema, buffer = _schema(), io.BytesIO()
    columns = [_column(value, field.type) for value, field in zip(asdict(bar).values(), iter(schema), strict=True)]
    write_parquet(arrow.Table.from_arrays(columns, schema=schema), buffer)
    return buffer.getvalue()


def _column(value: float | date | None, type: arrow.DataType) -> arrow.Array:
    if isinstance(value, date):
        return arrow.Array([(value - date(1970, 1, 1)).days], arrow.DataType.int32()).cast(type)
    return arrow.Array([value], type)


def bar_inputs(symbol: str, bar: Bar) -> dict[str, str]:
    """Return the manifest inputs of the partition of `bar`: the symbol and a digest of the bar."""
    return {"symbol": symbol, "bar": digest(canonical(asdict(bar) | {"date": bar.date.isoformat()}))}


def commit_bar(store: Store, symbol: str, bar: Bar, revision: int = 1, is_new: bool = False) -> Committed:
    """Commit the partition of `bar` as that revision, or return the one that exists with the same bar.

    Args:
        store: where the artifacts are.
        symbol: the index.
        bar: the bar to commit.
        revision: 1, or higher for a correction.
        is_new: skip looking for the revision, because the caller knows that it does not exist.

    Raises:
        DataError: that revision exists with another bar.
    """
    directory, inputs = paths.prices(symbol, bar.date, revision), bar_inputs(symbol, bar)
    if not is_new and (committed := find(store, directory, inputs)):
        return committed
    facts: dict[str, Fact] = {"session": bar.date.isoformat(), "close": bar.close, "change": bar.change}
    facts |= {"revision": revision} if revision > 1 else {}
    content = Content({PRICES_FILE: bar_to_parquet(bar)}, rows=1, schema_version=PRICES_VERSION, facts=facts)
    return commit(store, directory, step=STEP, session=bar.date, inputs=inputs, content=content)


@dataclass(frozen=True)
class Correction:
    """A bar of the source that differs from the latest committed revision of its session.

    Attributes:
        bar: the source's bar.
        revision: the latest committed revision.
        differences: the columns that differ, with both values, for messages.
    """

    bar: Bar
    revision: int
    differences: str


def find_corrections(store: Store, symbol: str, bars: Iterable[Bar], latest: Mapping[date, str]) -> list[Correction]:
    """Return the corrections among `bars`; bars of sessions that are not committed are ignored.

    Args:
        store: where the artifacts are.
        symbol: the index.
        bars: the source's bars.
        latest: the path of the latest revision's manifest by session: `paths.latest_revisions`.

    Raises:
        DataError: a manifest is missing, or an artifact is damaged.
    """
    committed = {latest[bar.date]: bar for bar in bars if bar.date in latest}
    corrections = []
    for path, data in store.read_many(committed, MAX_BYTES).items():
        bar = committed[path]
        if data is None:
            raise DataError(f"{store.uri(path)} was removed while the step was running: run the step again")
        if Manifest.from_json(data, store.uri(path)).inputs != bar_inputs(symbol, bar):
            corrections.append(Correction(bar, paths.parse_revision(path), _describe_differences(store.uri(path), bar)))
    return corrections


def _describe_differences(uri: str, bar: Bar) -> str:
    table = read_parquet(io.BytesIO(open_artifact(uri)[1][PRICES_FILE])).read_all()
    current = asdict(bar)
    committed = {name: table.column(name)[0].as_py() for name in table.column_names}
    return ", ".join(f"{name} {committed[name]} is now {current[name]}" for name in current if committed[name] != current[name])


def commit_corrections(store: Store, symbol: str, corrections: Sequence[Correction]) -> list[Committed]:
    """Commit each correction as the next revision of its session; readers use the latest revision."""
    return [commit_bar(store, symbol, correction.bar, correction.revision + 1) for correction in corrections]


def join_first(texts: Sequence[str]) -> str:
    """Join the first MAX_SHOWN texts and the number of the others; empty if there are none."""
    more = [f"and {len(texts) - MAX_SHOWN} more"] if len(texts) > MAX_SHOWN else []
    return "; ".join([*texts[:MAX_SHOWN], *more])


def format_corrections(symbol: str, corrections: Sequence[Correction]) -> str:
    """Describe the corrections and the command that accepts them; empty if there are none."""
    if not corrections:
        return ""
    shown = join_first([f"{correction.bar.date}: {correction.differences}" for correction in corrections])
    first, last = corrections[0].bar.date, corrections[-1].bar.date
    options = f"--session {first}" if first == last else f"--from {first} --to {last}"
    return (
        f"the source has corrected committed prices of {symbol}: {shown}. The committed revision is unchanged; to commit the "
        f"source's values as the next revision, run collector fetch-prices {options} --accept-corrections"
    )
