"""The step `fetch-prices`: commit the bar of one session, or of every session of a range."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta

from step_contract import paths
from step_contract.commit import Committed
from step_contract.errors import DataError, NothingToDoError, SourceUnavailableError
from step_contract.store import Store

from collector.bar_checks import Bar
from collector.calendar_cache import session_closes
from collector.exchange_calendar import MarketStatus, describe_contradiction
from collector.prices import Correction, commit_bar, commit_corrections, find_corrections, format_corrections, join_first
from collector.source import read_year_file
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
    corrections: list[Correction]


def missing_file_error(url: str) -> SourceUnavailableError:
    """Return the error for a file that the source does not have."""
    return SourceUnavailableError(
        f"the source has no file {url}: it is not published yet, or --prices-url or --symbol is wrong"
    )


def find_bar(bars: Sequence[Bar], session: date, url: str) -> Bar:
    """Return the bar of `session` among `bars`, which are ordered by date and were read from `url`.

    Raises:
        SourceUnavailableError: the last bar is of an earlier session.
        DataError: there are later bars, but none of the session.
    """
    for bar in bars:
        if bar.date == session:
            return bar
    if bars and bars[-1].date > session:
        following = next(bar.date for bar in bars if bar.date > session)
        raise DataError(
            f"{url} has no bar for {session} and its next bar is {following}, so the exchange held no session on that day"
        )
    reason = f"its last bar is {bars[-1].date}" if bars else "it is empty"
    raise SourceUnavailableError(f"{url} has no bar for {session} yet: {reason}")


def fetch_session(
    store: Store, template: str, symbol: str, session: date, status: MarketStatus, accept_corrections: bool = False
) -> FetchedSession:
    """Fetch and commit the bar of one session, and compare earlier sessions with the source.

    Args:
        store: where the artifacts are.
        template: the URL of the source's files, with {year} and {symbol}.
        symbol: the index.
        session: the session to fetch.
        status: the status of the session's day by calendar and overrides.
        accept_corrections: commit a correction of the session as the next revision.

    Raises:
        SourceUnavailableError: the source has no bar for the session yet.
        DataError: the file is invalid, the exchange was closed by `status`, or the source has corrected the committed session
            and corrections are not accepted.
    """
    url, data = read_year_file(template, symbol, session.year)
    if data is None:
        raise missing_file_error(url)
    bars = parse_year_file(data, url, session.year)
    bar = find_bar(bars, session, url)
    if contradiction := describe_contradiction(status, has_bar=True):
        raise DataError(f"{session}: {contradiction}; if the exchange was open, add a line to the overrides file")
    index = bars.index(bar)
    rechecked = bars[max(0, index - RECHECKED_SESSIONS) : index + 1]
    with ThreadPoolExecutor(1 if store.local else MAX_CONCURRENT_REQUESTS) as pool:
        listings = pool.map(lambda bar: store.list(paths.prices(symbol, bar.date)), rechecked)
        latest = paths.latest_revisions(name for names in listings for name in names)
    corrections = find_corrections(store, symbol, rechecked, latest)
    own = [correction for correction in corrections if correction.bar == bar]
    if own and not accept_corrections:
        raise DataError(format_corrections(symbol, own))
    if own:
        others = [correction for correction in corrections if correction not in own]
        return FetchedSession(commit_corrections(store, symbol, own)[0], others)
    revision = paths.parse_revision(latest[session]) if session in latest else 1
    return FetchedSession(commit_bar(store, symbol, bar, revision, is_new=session not in latest), corrections)


def read_years(template: str, symbol: str, first: date, last: date) -> Iterator[tuple[int, list[Bar]]]:
    """Yield each year from `first` to `last` with all its bars, reading each file once.

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
        yield year, parse_year_file(data, url, year)


@dataclass(frozen=True)
class FetchedRange:
    """The numbers of sessions that were committed, were already committed, and were revised; the URI of the last manifest."""

    committed: int
    already_committed: int
    revised: int
    last_manifest: str


def fetch_range(
    store: Store,
    symbol: str,
    first: date,
    last: date,
    years: Iterable[tuple[int, Sequence[Bar]]],
    status_of: Callable[[date], MarketStatus],
    accept_corrections: bool = False,
) -> FetchedRange:
    """Commit every bar from `first` to `last` that is not committed yet.

    Args:
        store: where the artifacts are.
        symbol: the index.
        first: the first day of the range.
        last: the last day of the range.
        years: each year of the range with its bars: `read_years`.
        status_of: returns the status of a day by calendar and overrides.
        accept_corrections: commit corrections as the next revisions.

    Raises:
        NothingToDoError: the source has no session in the range.
        DataError: calendar and source contradict each other on a day, or the source has corrected a committed session and
            corrections are not accepted. All other sessions are committed first.
    """
    from tqdm import tqdm

    latest = paths.latest_revisions(store.list(paths.prices_root(symbol)))
    committed: list[Committed] = []
    contradictions: dict[date, str] = {}
    corrections: list[Correction] = []
    sessions: list[date] = []
    expected = sum(first <= day <= last for day in session_closes())
    with (
        tqdm(total=expected, disable=None, unit=" sessions", file=sys.stderr) as progress,
        ThreadPoolExecutor(MAX_CONCURRENT_REQUESTS) as pool,
    ):
        for year, bars in years:
            in_range = [bar for bar in bars if first <= bar.date <= last]
            # Days after the year's last bar are compared with the next year: the source may not have their bars yet.
            contradictions |= find_contradictions({bar.date for bar in in_range}, sessions[-1] if sessions else None, status_of)
            in_range = [bar for bar in in_range if bar.date not in contradictions]
            new = [bar for bar in in_range if bar.date not in latest]
            existing = [bar for bar in in_range if bar.date in latest]
            for result in (map if store.local else pool.map)(lambda bar: commit_bar(store, symbol, bar, is_new=True), new):
                committed.append(result)
                progress.update()
            corrections += find_corrections(store, symbol, existing, latest)
            progress.update(len(existing))
            sessions += [bar.date for bar in in_range]
            if progress.disable and in_range:
                log.info("%d: %d sessions committed, %d already committed", year, len(new), len(existing))
    revised = commit_corrections(store, symbol, corrections) if accept_corrections else []
    problems = [join_first(list(contradictions.values()))]
    problems += [] if accept_corrections else [format_corrections(symbol, corrections)]
    if any(problems):
        raise DataError("; ".join([*filter(None, problems), f"sessions committed besides: {len(committed)}"]))
    if not sessions:
        raise NothingToDoError(f"the source has no session from {first} to {last}")
    uris = {session: store.uri(path) for session, path in latest.items()}
    uris |= {result.manifest.session: result.uri for result in (*committed, *revised)}
    return FetchedRange(len(committed), len(sessions) - len(committed), len(revised), uris[sessions[-1]])


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
