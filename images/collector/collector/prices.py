"""The step `fetch-prices` for one session: the source's bar of it, to one Parquet partition."""

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
from step_contract.manifest import Fact, Manifest, canonical, digest
from step_contract.schemas import PRICES_COLUMNS, PRICES_FILE, PRICES_VERSION
from step_contract.store import Store

from collector.bar_checks import Bar

STEP = "fetch-prices"
MAX_SHOWN = 3


@cache
def _schema() -> arrow.Schema:
    whole = {name: arrow.DataType.int64() for name in ("volume", "amount", "market_cap")}
    types = whole | {"date": arrow.DataType.date32()}
    return arrow.Schema([arrow.Field(name, types.get(name, arrow.DataType.float64())) for name in PRICES_COLUMNS])


def bar_to_parquet(bar: Bar) -> bytes:
    """The Parquet file of one bar, with the columns of `PRICES_COLUMNS`; always the same bytes for the same bar."""
    schema, buffer = _schema(), io.BytesIO()
    columns = [_column(value, field.type) for value, field in zip(asdict(bar).values(), iter(schema), strict=True)]
    write_parquet(arrow.Table.from_arrays(columns, schema=schema), buffer)
    return buffer.getvalue()


def _column(value: float | date | None, type: arrow.DataType) -> arrow.Array:
    if isinstance(value, date):
        return arrow.Array([(value - date(1970, 1, 1)).days], arrow.DataType.int32()).cast(type)
    return arrow.Array([value], type)


def bar_inputs(symbol: str, bar: Bar) -> dict[str, str]:
    """What the partition of `bar` is made from."""
    return {"symbol": symbol, "bar": digest(canonical(asdict(bar) | {"date": bar.date.isoformat()}))}


def commit_bar(store: Store, symbol: str, bar: Bar, revision: int = 1, is_new: bool = False) -> Committed:
    """Commits the partition of `bar` as that revision, or returns the one that was committed from the same bar.

    `is_new` saves a look where it was seen that there is none. Raises DataError when that revision was committed from another.
    """
    directory, inputs = paths.prices(symbol, bar.date, revision), bar_inputs(symbol, bar)
    if not is_new and (before := find(store, directory, inputs)):
        return before
    facts: dict[str, Fact] = {"session": bar.date.isoformat(), "close": bar.close, "change": bar.change}
    facts |= {"revision": revision} if revision > 1 else {}
    content = Content({PRICES_FILE: bar_to_parquet(bar)}, rows=1, schema_version=PRICES_VERSION, facts=facts)
    return commit(store, directory, step=STEP, session=bar.date, inputs=inputs, content=content)


@dataclass(frozen=True)
class Correction:
    """A bar of the source that is not as the latest revision of its session was committed, and what differs in words."""

    bar: Bar
    revision: int
    differences: str


def find_corrections(store: Store, symbol: str, bars: Iterable[Bar], latest: Mapping[date, str]) -> list[Correction]:
    """The corrections among `bars` to the committed sessions, whose latest manifests' names are `latest`.

    Raises DataError where a manifest is damaged or gone.
    """
    committed = {latest[bar.date]: bar for bar in bars if bar.date in latest}
    found = []
    for name, data in store.read_many(committed).items():
        bar = committed[name]
        if data is None:
            raise DataError(f"{store.uri(name)} was removed while it was read: run the step again")
        if Manifest.from_json(data, store.uri(name)).inputs != bar_inputs(symbol, bar):
            found.append(Correction(bar, paths.parse_revision(name), _describe_differences(store.uri(name), bar)))
    return found


def _describe_differences(uri: str, bar: Bar) -> str:
    table = read_parquet(io.BytesIO(open_artifact(uri)[1][PRICES_FILE])).read_all()
    now = asdict(bar)
    was = {name: table.column(name)[0].as_py() for name in table.column_names}
    return ", ".join(f"{name} {was[name]} is now {now[name]}" for name in now if was[name] != now[name])


def commit_corrections(store: Store, symbol: str, found: Sequence[Correction]) -> list[Committed]:
    """Commits each correction as the next revision of its session, which is what is read from then on."""
    return [commit_bar(store, symbol, one.bar, one.revision + 1) for one in found]


def join_first(texts: Sequence[str]) -> str:
    """The first of `texts`, and how many more there are; empty where there are none."""
    more = [f"and {len(texts) - MAX_SHOWN} more"] if len(texts) > MAX_SHOWN else []
    return "; ".join([*texts[:MAX_SHOWN], *more])


def format_corrections(symbol: str, found: Sequence[Correction]) -> str:
    """The corrections in one sentence with what to do; empty where there are none."""
    if not found:
        return ""
    shown = join_first([f"{one.bar.date}: {one.differences}" for one in found])
    first, last = found[0].bar.date, found[-1].bar.date
    which = f"--session {first}" if first == last else f"--from {first} --to {last}"
    return (
        f"the source has corrected what is committed of {symbol}: {shown}. What is committed stays; to have the source's "
        f"figures beside it and read from then on, run collector fetch-prices {which} --accept-corrections"
    )
