"""The step `fetch-prices`: commit the bar of one session, or of every session of a range."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial

import pandas as pd
from step_contract import paths
from step_contract.commit import Committed
from step_contract.errors import DataError, NothingToDoError, SourceUnavailableError
from step_contract.lineage.sources import Source
from step_contract.store import Store

from collector.calendar_cache import session_closes
from collector.exchange_calendar import MarketStatus, describe_contradiction
from collector.prices import (
    CORRECTION,
    Comparison,
    commit_partition,
    compare_with_source,
    format_corrections,
    format_outdated,
    join_first,
    make_partitions,
    open_partition,
    warn_damaged,
)
from collector.source import make_source, read_year_file
from collector.year_file import parse_year_file

# Earlier sessions that are compared with the source when one is fetched. The source corrects a bar within days.
RECHECKED_SESSIONS = 10
# To a remote store, where a commit mostly waits.
MAX_CONCURRENT_REQUESTS = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchedSession:
    """The committed partition of a session, and corrections of earlier sessions, which are not committed."""

    committed: Committed
    corrections: list[Comparison]


def missing_file_error(url: str) -> SourceUnavailableError:
    """Return the error for a file that the source does not have."""
    return SourceUnavailableError(
        f"the source has no file {url}: it is not published yet, or --prices-url or --symbol is wrong"
    )


def check_has_bar(prices: pd.DataFrame, session: date, url: str) -> None:
    """Check that `prices`, which were read from `url`, have a bar of `session`.

    Raises:
        SourceUnavailableError: the last bar is of an earlier session.
        DataError: there are later bars, but none of the session.
    """
    if pd.Timestamp(session) in prices.index:
        return
    later = prices.index[prices.index > pd.Timestamp(session)]
    if len(later):
        raise DataError(
            f"{url} has no bar for {session} and its next bar is {later[0].date()}, so the exchange held no session on that day"
        )
    reason = f"its last bar is {prices.index[-1].date()}" if len(prices) else "it is empty"
    raise SourceUnavailableError(f"{url} has no bar for {session} yet: {reason}")


def fetch_session(
    store: Store,
    template: str,
    symbol: str,
    session: date,
    status: MarketStatus,
    accept_corrections: bool = False,
    remake: str = "",
) -> FetchedSession:
    """Fetch and commit the bar of one session, and compare earlier sessions with the source.

    Args:
        store: where the artifacts are.
        template: the URL of the source's files, with {year} and {symbol}.
        symbol: the index.
        session: the session to fetch.
        status: the status of the session's day by calendar and overrides.
        accept_corrections: commit a correction of the session as the next revision.
        remake: a person's reason to commit the session's bar as the next revision although it may be the same; empty for none.

    Raises:
        SourceUnavailableError: the source has no bar for the session yet.
        DataError: the file is invalid, the exchange was closed by `status`, or the source has corrected the committed session
            and corrections are not accepted.
    """
    url, data = read_year_file(template, symbol, session.year)
    if data is None:
        raise missing_file_error(url)
    prices = parse_year_file(data, url, session.year)
    check_has_bar(prices, session, url)
    if contradiction := describe_contradiction(status, has_bar=True):
        raise DataError(f"{session}: {contradiction}; if the exchange was open, add a line to the overrides file")
    recent = prices.loc[: pd.Timestamp(session)].tail(RECHECKED_SESSIONS + 1)
    rechecked = make_partitions(symbol, recent, (make_source(url, data),))
    with ThreadPoolExecutor(1 if store.local else MAX_CONCURRENT_REQUESTS) as pool:
        listings = pool.map(lambda partition: store.list(paths.prices(symbol, partition.session)), rechecked)
        revisions = paths.session_revisions(name for names in listings for name in names)
    # A remake repairs the session's own partition; a damaged earlier one is only logged then.
    comparisons = compare_with_source(store, rechecked, revisions, warn_damaged if remake else None)
    own = next((comparison for comparison in comparisons if comparison.partition.session == session), None)
    others = [comparison for comparison in comparisons if comparison.is_correction and comparison is not own]
    if own and own.is_correction and not accept_corrections:
        raise DataError(format_corrections(symbol, [own]))
    if own and not remake and not (own.differences and accept_corrections):
        return FetchedSession(open_partition(store, own), others)
    if own:
        return FetchedSession(_make_revision(store, own, revisions[session], remake), others)
    return FetchedSession(commit_partition(store, rechecked[-1], known=revisions.get(session, {}), remake=remake), others)


def _make_revision(store: Store, comparison: Comparison, known: Mapping[int, str], remake: str) -> Committed:
    """Commit the source's bar beside the committed one: an accepted correction, or what a person wants anew."""
    if comparison.differences and (comparison.is_correction or not remake):
        return commit_partition(store, comparison.partition, known=known, changed=remake or CORRECTION)
    return commit_partition(store, comparison.partition, known=known, remake=remake)


@dataclass(frozen=True)
class YearPrices:
    """A year's prices, a table of the schema PRICES, and the file that they were read from."""

    year: int
    prices: pd.DataFrame
    source: Source


def read_years(template: str, symbol: str, first: date, last: date) -> Iterator[YearPrices]:
    """Yield each year from `first` to `last` with all its prices, reading each file once.

    Years before the source's first file are logged and skipped.

    Raises:
        SourceUnavailableError: a later file is missing, or there is none.
        DataError: a file is invalid.
    """
    any_file = False
    for year in range(first.year, last.year + 1):
        url, data = read_year_file(template, symbol, year)
        if data is None:
            if not any(max(first, date(year, 1, 1)) <= day <= last for day in session_closes()):
                continue  # before the year's first session its file is not needed
            if any_file or year == last.year:
                raise missing_file_error(url)
            log.info("%d: the source has no file %s", year, url)
            continue
        any_file = True
        yield YearPrices(year, parse_year_file(data, url, year), make_source(url, data))


@dataclass(frozen=True)
class FetchedRange:
    """What happened to the sessions of a range.

    Attributes:
        committed: the number of sessions that were committed for the first time; `already_committed` of all others.
        revised: of those, the number whose correction was committed; `remade` of those made anew for a person's reason.
        outdated: about sessions that another version of this step made, with the command that makes them anew; or empty.
        last_manifest: the URI of the last session's manifest.
    """

    committed: int
    already_committed: int
    revised: int
    remade: int
    outdated: str
    last_manifest: str


def fetch_range(
    store: Store,
    symbol: str,
    first: date,
    last: date,
    years: Iterable[YearPrices],
    status_of: Callable[[date], MarketStatus],
    accept_corrections: bool = False,
    remake: str = "",
) -> FetchedRange:
    """Commit every bar from `first` to `last` that is not committed yet.

    Args:
        store: where the artifacts are.
        symbol: the index.
        first: the first day of the range.
        last: the last day of the range.
        years: each year of the range with its prices: `read_years`.
        status_of: returns the status of a day by calendar and overrides.
        accept_corrections: commit corrections as the next revisions.
        remake: a person's reason to commit every bar as the next revision although it may be the same; empty for none.

    Raises:
        NothingToDoError: there is no session in the range.
        DataError: the calendar has sessions in the range and the source has none, both contradict each other on a day, or the
            source has corrected a committed session and corrections are not accepted. All other sessions are committed first.
    """
    from tqdm import tqdm

    revisions = paths.session_revisions(store.list(paths.prices_root(symbol)))
    committed: list[Committed] = []
    revised: list[Committed] = []
    remade: list[Committed] = []
    contradictions: dict[date, str] = {}
    comparisons: list[Comparison] = []
    sessions: list[date] = []

    def make_revision(comparison: Comparison) -> Committed:
        return _make_revision(store, comparison, revisions[comparison.partition.session], remake)

    expected = sum(first <= day <= last for day in session_closes())
    with (
        tqdm(total=expected, disable=None, unit=" sessions", file=sys.stderr) as progress,
        ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS) as pool,
    ):
        for year in years:
            in_range = year.prices.loc[pd.Timestamp(first) : pd.Timestamp(last)]
            # Days after the year's last bar are compared with the next year: the source may not have their bars yet.
            contradictions |= find_contradictions(set(in_range.index.date), sessions[-1] if sessions else None, status_of)
            consistent = in_range[~in_range.index.isin(pd.DatetimeIndex(list(contradictions)))]
            partitions = make_partitions(symbol, consistent, (year.source,))
            new = [partition for partition in partitions if partition.session not in revisions]
            existing = [partition for partition in partitions if partition.session in revisions]
            commit_new = partial(commit_partition, store, known={}, remake=remake)
            for result in (map if store.local else pool.map)(commit_new, new):
                committed.append(result)
                progress.update()
            compared = compare_with_source(store, existing, revisions, warn_damaged if remake else None)
            comparisons += compared
            accepted = [other for other in compared if accept_corrections and other.differences]
            unchanged = [other for other in compared if not (accept_corrections and other.differences)]
            requested = [other for other in unchanged if remake and not other.is_correction]
            revised += (map if store.local else pool.map)(make_revision, accepted)
            remade += (map if store.local else pool.map)(make_revision, requested)
            compared_sessions = {other.partition.session for other in compared}
            repaired = [partition for partition in existing if partition.session not in compared_sessions]
            remade += [
                commit_partition(store, partition, known=revisions[partition.session], remake=remake) for partition in repaired
            ]
            progress.update(len(existing))
            sessions += [partition.session for partition in partitions]
            if progress.disable and partitions:
                log.info("%d: %d sessions committed, %d already committed", year.year, len(new), len(existing))
    problems = [join_first(list(contradictions.values()))]
    problems += [] if accept_corrections else [format_corrections(symbol, comparisons)]
    if any(problems):
        raise DataError("; ".join([*filter(None, problems), f"other sessions committed: {len(committed)}"]))
    if not sessions and expected:
        raise DataError(
            f"the source has none of the {expected} sessions of the calendar from {first} to {last}: end the range where the "
            "source ends, or check the source"
        )
    if not sessions:
        raise NothingToDoError(f"the source has no session from {first} to {last}")
    uris = {comparison.partition.session: store.uri(comparison.path) for comparison in comparisons}
    uris |= {result.manifest.session: result.uri for result in (*committed, *revised, *remade)}
    made = {result.manifest.session for result in (*revised, *remade)}
    return FetchedRange(
        committed=len(committed),
        already_committed=len(sessions) - len(committed),
        revised=sum(result.new for result in revised),
        remade=sum(result.new for result in remade),
        outdated=format_outdated(symbol, [other for other in comparisons if other.partition.session not in made]),
        last_manifest=uris[sessions[-1]],
    )


def find_contradictions(
    bar_dates: Collection[date], previous: date | None, status_of: Callable[[date], MarketStatus]
) -> dict[date, str]:
    """Return the days on which calendar and source contradict each other, each with a description.

    Args:
        bar_dates: the days that the source has a bar for; the last of them is the last day to compare.
        previous: the last day that was compared before; None to begin with the first of `bar_dates`.
        status_of: returns the status of a day by calendar and overrides.
    """
    if not bar_dates:
        return {}
    first = previous + timedelta(days=1) if previous else min(bar_dates)
    days = (first + timedelta(days=number) for number in range((max(bar_dates) - first).days + 1))
    return {
        day: f"{day}: {contradiction}"
        for day in days
        if (contradiction := describe_contradiction(status_of(day), day in bar_dates))
    }
