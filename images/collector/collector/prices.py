"""The step `fetch-prices`: the source's bar of a session, or of every session of a range, to one Parquet partition each."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache

import arro3.core as arrow
from arro3.io import write_parquet
from step_contract import paths
from step_contract.commit import Committed, Content, commit, find
from step_contract.exit_codes import DataWrong, NothingToDo, SourceNotReady
from step_contract.manifest import Fact, canonical, digest
from step_contract.store import Store
from step_contract.tables import PRICES_COLUMNS, PRICES_FILE, PRICES_VERSION

from collector.source import read_year
from collector.year_file import Bar, parse

STEP = "fetch-prices"
log = logging.getLogger(__name__)


def bar_of(bars: Sequence[Bar], session: date, where: str) -> Bar:
    """The bar of `session` among `bars`, which are in order of their dates.

    Raises SourceNotReady when the source does not reach the session yet, DataWrong when it goes on without it.
    """
    for bar in bars:
        if bar.date == session:
            return bar
    if bars and bars[-1].date > session:
        following = next(bar.date for bar in bars if bar.date > session)
        raise DataWrong(f"{where} has no bar for {session} and goes on with {following}: the exchange held no session that day")
    reaches = f"reaches {bars[-1].date}" if bars else "is empty"
    raise SourceNotReady(f"{where} has no bar for {session} yet: it {reaches}")


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


def commit_bar(store: Store, symbol: str, bar: Bar) -> Committed:
    """Commits the partition of `bar`, or returns the one that was committed from the same bar.

    Raises DataWrong when the session was committed from another bar: the source has corrected it.
    """
    directory = paths.prices(symbol, bar.date)
    inputs = {"symbol": symbol, "bar": digest(canonical(asdict(bar) | {"date": bar.date.isoformat()}))}
    if before := find(store, directory, inputs):
        return before
    facts: dict[str, Fact] = {"session": bar.date.isoformat(), "close": bar.close, "change": bar.change}
    content = Content({PRICES_FILE: partition(bar)}, rows=1, schema_version=PRICES_VERSION, facts=facts)
    return commit(store, directory, step=STEP, session=bar.date, inputs=inputs, content=content)


def fetch(store: Store, template: str, symbol: str, session: date) -> Committed:
    """Fetches and commits the bar of one session; raises SourceNotReady when the source has none yet."""
    url, data = read_year(template, symbol, session.year)
    if data is None:
        raise SourceNotReady(f"the source has no file {url}: not published yet, or the prices' URL or the symbol is wrong")
    return commit_bar(store, symbol, bar_of(parse(data, url, session.year), session, url))


def years_of(template: str, symbol: str, first: date, last: date) -> Iterator[list[Bar]]:
    """The bars from `first` to `last`, a list a year, each year's file read once.

    Years before the source's first are told and passed over; raises SourceNotReady for one that is missing later, and when
    there is none at all.
    """
    found = False
    for year in range(first.year, last.year + 1):
        url, data = read_year(template, symbol, year)
        if data is None:
            if found or year == last.year:
                raise SourceNotReady(
                    f"the source has no file {url}: not published yet, or the prices' URL or the symbol is wrong"
                )
            log.info("%d: the source has no file %s", year, url)
            continue
        found = True
        yield [bar for bar in parse(data, url, year) if first <= bar.date <= last]


@dataclass(frozen=True)
class Range:
    """What became of a range: how many sessions were committed, how many were there, the URI of the last one's manifest."""

    committed: int
    there: int
    last: str


def fetch_range(store: Store, symbol: str, years: Iterable[Sequence[Bar]]) -> Range:
    """Commits every bar that is not committed yet. Raises NothingToDo where the range holds no session."""
    names = store.list(paths.prices_of(symbol))
    there = {paths.session_of(name) for name in names if name.endswith(f"/{paths.MANIFEST}")}
    committed = skipped = 0
    last: Bar | None = None
    for bars in years:
        new = [bar for bar in bars if bar.date not in there]
        for bar in new:
            commit_bar(store, symbol, bar)
        committed, skipped = committed + len(new), skipped + len(bars) - len(new)
        if bars:
            last = bars[-1]
            log.info("%d: %d sessions committed, %d were there", last.date.year, len(new), len(bars) - len(new))
    if last is None:
        raise NothingToDo("the source has no session in that range")
    return Range(committed, skipped, store.uri(f"{paths.prices(symbol, last.date)}/{paths.MANIFEST}"))
