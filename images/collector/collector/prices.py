"""The step `fetch-prices` for one session: the source's bar of it, to one Parquet partition."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from functools import cache

import arro3.core as arrow
from arro3.io import write_parquet
from step_contract import paths
from step_contract.commit import Committed, Content, commit, find
from step_contract.errors import DataError, SourceUnavailableError
from step_contract.manifest import Fact, canonical, digest
from step_contract.schemas import PRICES_COLUMNS, PRICES_FILE, PRICES_VERSION
from step_contract.store import Store

from collector.bars import Bar

STEP = "fetch-prices"


def no_file(url: str) -> SourceUnavailableError:
    """The error for a file that the source does not have."""
    return SourceUnavailableError(f"the source has no file {url}: not published yet, or the prices' URL or the symbol is wrong")


def bar_of(bars: Sequence[Bar], session: date, where: str) -> Bar:
    """The bar of `session` among `bars`, which are in order of their dates.

    Raises SourceUnavailableError when the source does not reach the session yet, DataError when it goes on without it.
    """
    for bar in bars:
        if bar.date == session:
            return bar
    if bars and bars[-1].date > session:
        following = next(bar.date for bar in bars if bar.date > session)
        raise DataError(f"{where} has no bar for {session} and goes on with {following}: the exchange held no session that day")
    reaches = f"reaches {bars[-1].date}" if bars else "is empty"
    raise SourceUnavailableError(f"{where} has no bar for {session} yet: it {reaches}")


@cache
def _schema() -> arrow.Schema:
    whole = {name: arrow.DataType.int64() for name in ("volume", "amount", "market_cap")}
    types = whole | {"date": arrow.DataType.date32()}
    return arrow.Schema([arrow.Field(name, types.get(name, arrow.DataType.float64())) for name in PRICES_COLUMNS])


def partition(bar: Bar) -> bytes:
    """The Parquet file of one bar, with the columns of `PRICES_COLUMNS`; always the same bytes for the same bar."""
    schema, buffer = _schema(), io.BytesIO()
    columns = [_column(value, field.type) for value, field in zip(asdict(bar).values(), iter(schema), strict=True)]
    write_parquet(arrow.Table.from_arrays(columns, schema=schema), buffer)
    return buffer.getvalue()


def _column(value: float | date | None, type: arrow.DataType) -> arrow.Array:
    if isinstance(value, date):
        return arrow.Array([(value - date(1970, 1, 1)).days], arrow.DataType.int32()).cast(type)
    return arrow.Array([value], type)


def inputs_of(symbol: str, bar: Bar) -> dict[str, str]:
    """What the partition of `bar` is made from."""
    return {"symbol": symbol, "bar": digest(canonical(asdict(bar) | {"date": bar.date.isoformat()}))}


def commit_bar(store: Store, symbol: str, bar: Bar, revision: int = 1, is_new: bool = False) -> Committed:
    """Commits the partition of `bar` as that revision, or returns the one that was committed from the same bar.

    `is_new` saves a look where it was seen that there is none. Raises DataError when that revision was committed from another.
    """
    directory, inputs = paths.prices(symbol, bar.date, revision), inputs_of(symbol, bar)
    if not is_new and (before := find(store, directory, inputs)):
        return before
    facts: dict[str, Fact] = {"session": bar.date.isoformat(), "close": bar.close, "change": bar.change}
    facts |= {"revision": revision} if revision > 1 else {}
    content = Content({PRICES_FILE: partition(bar)}, rows=1, schema_version=PRICES_VERSION, facts=facts)
    return commit(store, directory, step=STEP, session=bar.date, inputs=inputs, content=content)
