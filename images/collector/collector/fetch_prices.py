"""The step `fetch-prices` for one session and for a range of them, each year's file read once."""

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

# Sessions that are compared with the source again when one is fetched. Corrections come within days.
RECHECKED_SESSIONS = 10
# Objects that are written at once to a remote store, where a commit is mostly waiting.
MAX_CONCURRENT_COMMITS = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchedSession:
    """A session's partition, and what the source has corrected of it and of the sessions before it."""

    committed: Committed
    corrections: list[Correction]


def missing_file_error(url: str) -> SourceUnavailableError:
    """The error for a file that the source does not have."""
    return SourceUnavailableError(f"the source has no file {url}: not published yet, or the prices' URL or the symbol is wrong")


def find_bar(bars: Sequence[Bar], session: date, where: str) -> Bar:
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


def fetch_session(
    store: Store, template: str, symbol: str, session: date, verdict: MarketStatus, accept_corrections: bool = False
) -> FetchedSession:
    """Fetches and commits the bar of one session, and compares the sessions before it with the source.

    `verdict` is what the calendar and its overrides say of it. Raises SourceUnavailableError when the source has no bar yet, DataError
    when it should have none, and when it has corrected the session and corrections are not to be taken.
    """
    url, data = read_year_file(template, symbol, session.year)
    if data is None:
        raise missing_file_error(url)
    bars = parse_year_file(data, url, session.year)
    bar = find_bar(bars, session, url)
    if wrong := describe_contradiction(verdict, has_bar=True):
        raise DataError(f"{session}: {wrong}; if the exchange was open, say so by a line in the overrides file")
    place = bars.index(bar)
    looked_at = bars[max(0, place - RECHECKED_SESSIONS) : place + 1]
    with ThreadPoolExecutor(1 if store.local else MAX_CONCURRENT_COMMITS) as pool:
        names = pool.map(lambda one: store.list(paths.prices(symbol, one.date)), looked_at)
        latest = paths.latest_revisions(name for listed in names for name in listed)
    found = find_corrections(store, symbol, looked_at, latest)
    own = [one for one in found if one.bar == bar]
    if own and not accept_corrections:
        raise DataError(format_corrections(symbol, own))
    if own:
        return FetchedSession(commit_corrections(store, symbol, own)[0], [one for one in found if one not in own])
    revision = paths.parse_revision(latest[session]) if session in latest else 1
    return FetchedSession(commit_bar(store, symbol, bar, revision, is_new=session not in latest), found)


def read_years(template: str, symbol: str, first: date, last: date) -> Iterator[tuple[int, list[Bar]]]:
    """The years from `first` to `last` with all bars of each, each year's file read once.

    Years before the source's first are told and passed over; raises SourceUnavailableError for one that is missing later, and when
    there is none at all.
    """
    found = False
    for year in range(first.year, last.year + 1):
        url, data = read_year_file(template, symbol, year)
        if data is None:
            if not any(max(first, date(year, 1, 1)) <= day <= last for day in session_closes()):
                continue  # on the first of January nobody needs the new year's file
            if found or year == last.year:
                raise missing_file_error(url)
            log.info("%d: the source has no file %s", year, url)
            continue
        found = True
        yield year, parse_year_file(data, url, year)


@dataclass(frozen=True)
class FetchedRange:
    """What became of a range: how many sessions were committed, were there, were revised; the URI of the last manifest."""

    committed: int
    already_committed: int
    revised: int
    last: str


def fetch_range(
    store: Store,
    symbol: str,
    first: date,
    last: date,
    years: Iterable[tuple[int, Sequence[Bar]]],
    market_status: Callable[[date], MarketStatus],
    accept_corrections: bool = False,
) -> FetchedRange:
    """Commits every bar from `first` to `last` that is not committed yet.

    Raises NothingToDoError where the range holds no session. Raises DataError, once all the others are committed, where calendar and
    source contradict each other, and where the source has corrected what is committed and corrections are not to be taken.
    """
    from tqdm import tqdm

    latest = paths.latest_revisions(store.list(paths.prices_root(symbol)))
    committed: list[Committed] = []
    suspect: dict[date, str] = {}
    corrected: list[Correction] = []
    sessions: list[date] = []
    expected = sum(first <= day <= last for day in session_closes())
    with (
        tqdm(total=expected, disable=None, unit=" sessions", file=sys.stderr) as progress,
        ThreadPoolExecutor(MAX_CONCURRENT_COMMITS) as pool,
    ):
        for year, bars in years:
            wanted = [bar for bar in bars if first <= bar.date <= last]
            # Up to the source's last bar, which tells nothing of the days after it; a year's end is looked at with the next.
            suspect |= find_contradictions({bar.date for bar in wanted}, sessions[-1] if sessions else None, market_status)
            wanted = [bar for bar in wanted if bar.date not in suspect]
            new = [bar for bar in wanted if bar.date not in latest]
            old = [bar for bar in wanted if bar.date in latest]
            for done in (map if store.local else pool.map)(lambda bar: commit_bar(store, symbol, bar, is_new=True), new):
                committed.append(done)
                progress.update()
            corrected += find_corrections(store, symbol, old, latest)
            progress.update(len(old))
            sessions += [bar.date for bar in wanted]
            if progress.disable and wanted:
                log.info("%d: %d sessions committed, %d were there", year, len(new), len(old))
    revised = commit_corrections(store, symbol, corrected) if accept_corrections else []
    wrong = [join_first(list(suspect.values())), "" if accept_corrections else format_corrections(symbol, corrected)]
    if any(wrong):
        raise DataError("; ".join([*filter(None, wrong), f"committed: {len(committed)} others"]))
    if not sessions:
        raise NothingToDoError("the source has no session in that range")
    uris = {session: store.uri(name) for session, name in latest.items()}
    uris |= {done.manifest.session: done.uri for done in (*committed, *revised)}
    return FetchedRange(len(committed), len(sessions) - len(committed), len(revised), uris[sessions[-1]])


def find_contradictions(
    bars: Collection[date], before: date | None, market_status: Callable[[date], MarketStatus]
) -> dict[date, str]:
    """The days from the first to the last of `bars`, or from the one after `before`, on which calendar and source differ."""
    if not bars:
        return {}
    first = before + timedelta(days=1) if before else min(bars)
    days = (first + timedelta(days=number) for number in range((max(bars) - first).days + 1))
    return {day: f"{day}: {wrong}" for day in days if (wrong := describe_contradiction(market_status(day), day in bars))}
