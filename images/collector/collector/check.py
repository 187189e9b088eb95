"""The command `check`: whether calendar, price source and feeds are fresh, as far as a pod of the collector can see."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from step_contract.checks.findings import Finding, error, ok, warning
from step_contract.errors import StepError

from collector.calendar_cache import EXCHANGE, session_closes
from collector.exchange_calendar import MarketStatus, bar_final_at, market_status, read_overrides
from collector.feeds import Feed, get_authorization, read_feeds
from collector.source import read_url, read_year_file

# The calendar ends where exchange_calendars ended when the image was built: about a year later.
CALENDAR_WARNING = timedelta(days=60)
# The source publishes within hours of the close; twelve attempts of fetch_prices last that long.
PUBLICATION_DELAY = timedelta(hours=12)
MAX_MISSING_SESSIONS = 3
# A feed without an entry for that long is probably dead.
MAX_FEED_AGE = timedelta(days=7)


def check_calendar(overrides: Path, now: datetime) -> Iterator[Finding]:
    """Yield whether the calendar covers the coming weeks and the overrides are valid. `now` is aware, in Seoul."""
    days = read_overrides(overrides)
    last, today = next(reversed(session_closes())), now.date()
    latest = f"{len(days)} overrides" + (f", the last of {max(days)}" if days else "")
    if last < today:
        advice = "build and deploy the images again (make lock OPTIONS=--upgrade, make push, make deploy): every decision fails"
        yield error("calendar", f"the {EXCHANGE} calendar ends on {last}", advice)
    elif last - today < CALENDAR_WARNING:
        advice = "upgrade exchange_calendars (make lock OPTIONS=--upgrade), build and deploy the images before that day"
        yield warning("calendar", f"the {EXCHANGE} calendar ends on {last}; {latest}", advice)
    else:
        state = "a session" if market_status(today, days).is_open else "no session"
        yield ok("calendar", f"today, {today}, is {state}; the {EXCHANGE} calendar ends on {last}; {latest}")


def list_final_sessions(now: datetime, overrides: Mapping[date, MarketStatus], number: int) -> list[date]:
    """Return the last `number` sessions whose bar is final at `now` and should be published, the latest first."""
    sessions, day = list[date](), now.date()
    while len(sessions) < number and now.date() - day < timedelta(days=60):
        if market_status(day, overrides).is_open and bar_final_at(day) + PUBLICATION_DELAY <= now:
            sessions.append(day)
        day -= timedelta(days=1)
    return sessions


def check_prices(template: str, symbol: str, overrides: Path, now: datetime, scheduled: bool) -> Iterator[Finding]:
    """Yield whether the source can be read, its file is valid, and it has the last sessions.

    Without a schedule, as with the sample, an old source is no problem.
    """
    from collector.year_file import parse_year_file

    known = read_overrides(overrides)
    expected = list_final_sessions(now, known, MAX_MISSING_SESSIONS)
    days: set[date] = set()
    # Before the first session of a year, the source may not have its file. The sample may end in an earlier year.
    for year in (now.year, now.year - 1):
        url, data = read_year_file(template, symbol, year)
        if data is not None:
            days |= set(parse_year_file(data, url, year).index.date)
    if not days:
        advice = "check prices_url and symbol; fetch_prices would be retried until midnight"
        yield error("prices", f"the source has no bar of {symbol} in {now.year - 1} and {now.year}: {url}", advice)
        return
    recent = [day for day in days if day > max(days) - CALENDAR_WARNING]
    if closed := [day for day in recent if market_status(day, known).is_open is False]:
        advice = "add the day to overrides.csv, or upgrade exchange_calendars: decide calls such a day suspect"
        yield warning("calendar", f"the source has a bar of {max(closed)}, which is no session of the calendar", advice)
    missing = [day for day in expected if day not in days]
    state = f"the last bar of {symbol} is of {max(days)}"
    if not missing or not scheduled:
        note = f"; {', '.join(map(str, missing))} missing, but no run is scheduled" if missing else ""
        yield ok("prices", state + note)
    else:
        advice = (
            "check the source; add the day to overrides.csv if the exchange was closed; set prices_url if the source has moved"
        )
        grade = error if len(missing) == MAX_MISSING_SESSIONS else warning
        yield grade("prices", f"{state}; missing: {', '.join(map(str, sorted(missing)))}", advice)


def check_feeds(path: Path, now: datetime, scheduled: bool) -> Iterator[Finding]:
    """Yield whether the feeds can be read and have recent entries; an error only if none can be read."""
    feeds = read_feeds(path)
    problems, readable = list[str](), list[str]()
    for feed in feeds:
        try:
            age = now - max(read_published(feed))
        except (StepError, ValueError) as problem:
            reason = str(problem) if isinstance(problem, StepError) else f"feed {feed.name} has no dated entry"
            problems.append(reason)
            continue
        readable.append(f"{feed.name} ({max(age, timedelta()) // timedelta(hours=1)} h old)")
        if age > MAX_FEED_AGE and scheduled:
            problems.append(f"the last entry of feed {feed.name} is of {(now - age).date()}")
    yield from summarize_feeds(len(feeds), readable, problems)


def read_published(feed: Feed) -> list[datetime]:
    """Return the times of the feed's entries, UTC. Raises StepError if it cannot be read or is no feed."""
    from step_contract.errors import SourceUnavailableError

    from collector.feed_parsing import parse_feed
    from collector.fetch_headlines import redact

    authorization = get_authorization(feed)
    try:
        data = read_url(feed.url, authorization)
        if data is None:
            raise SourceUnavailableError(f"{feed.url} does not exist; correct the feed's URL")
        return parse_feed(data, feed, datetime.now(UTC).date()).published
    except StepError as problem:
        raise type(problem)(redact(str(problem), feed, authorization)) from None


def summarize_feeds(number: int, readable: Sequence[str], problems: Sequence[str]) -> Iterable[Finding]:
    """Return one finding about `number` feeds."""
    if not readable:
        yield error("feeds", "no feed can be read: " + "; ".join(problems), "check the feeds file and network.sources")
    elif problems:
        advice = "check the feed's URL and the secret of its authorization; other feeds are collected meanwhile"
        yield warning("feeds", "; ".join(problems), advice)
    else:
        yield ok("feeds", f"{len(readable)} of {number} readable: {', '.join(readable)}")
