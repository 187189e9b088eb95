"""Whether a feed, which holds its latest entries only, covers the session's day: what its entries show about it.

An entry of the day shows that the feed holds the end of it, and entries before the day may show that it holds all of it.
Without one, either nothing was published or the feed no longer holds the day: decision 28 states what counts as evidence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from itertools import pairwise, takewhile

from step_contract.errors import DataError
from step_contract.facts import Availability
from step_contract.manifest import canonical
from step_contract.schemas import FEEDS_FILE, MARKET_TIME_ZONE

# The exchange's longest closure, around Chuseok in 2017, had eleven days: an entry before it is not one that is pinned.
LONGEST_CLOSURE = timedelta(days=14)
# What a feed is compared with is its own rhythm: the longest pause between its entries nearest to the day, on either side.
NEAREST_ENTRIES, MIN_PAUSES, MAX_PAUSE_FACTOR = 20, 3, 2
# For a feed with too few entries to have a rhythm: the day before, the day, and the day after.
DEFAULT_MAX_PAUSE = timedelta(days=3)
# For so long after the session's day, a feed that is down or empty may recover and still hold the day.
RECOVERY_PERIOD = timedelta(days=3)


class Coverage(StrEnum):
    """What a feed's entries show about the session's day.

    COMPLETE: it holds the whole day until it was read. PARTIAL: it holds the end of the day, and earlier entries may be gone.
    EXPIRED: it holds later days only. INCONCLUSIVE: its entries show nothing about the day. BROKEN: it could not be read.
    """

    COMPLETE = "complete"
    PARTIAL = "partial"
    EXPIRED = "expired"
    INCONCLUSIVE = "inconclusive"
    BROKEN = "broken"


# Only these are better than others; the three without any of the day are equal.
_RANKS = {Coverage.COMPLETE: 2, Coverage.PARTIAL: 1}


@dataclass(frozen=True)
class FeedCoverage:
    """What one feed's entries show about the session's day.

    Attributes:
        feed: its name.
        coverage: a value of `Coverage`.
        reason: why it is not complete, as a phrase that follows the feed's name; empty if it is.
    """

    feed: str
    coverage: Coverage
    reason: str = ""

    @property
    def holds_day(self) -> bool:
        """Whether the feed holds the day, or a part of it."""
        return self.coverage in _RANKS

    @property
    def may_recover(self) -> bool:
        """Whether the feed may hold the day when it is read again; an expired one drops more entries only."""
        return self.coverage in (Coverage.INCONCLUSIVE, Coverage.BROKEN)


def day_bounds(session: date) -> tuple[datetime, datetime]:
    """Return when the session's day begins and ends in Seoul."""
    start = datetime.combine(session, time(), MARKET_TIME_ZONE)
    return start, start + timedelta(days=1)


def assess_feed(feed: str, published: Iterable[datetime], undated: int, session: date, now: datetime) -> FeedCoverage:
    """Return what the entries of a feed show about the session's day.

    Args:
        feed: its name.
        published: when each dated entry was published, in any order. Entries after `now` show nothing and are ignored, unless
            they are of the day itself.
        undated: the number of other entries, any of which may be of the day.
        session: the day.
        now: when the feed was read.
    """
    start, end = day_bounds(session)
    times = sorted(published)
    before = [time for time in times if time < start]
    of_day = [time for time in times if start <= time < end]
    after = [time for time in times if end <= time <= now]
    if of_day:
        first = f"{_format(of_day[0], '%H:%M')} on that day"
        if not before:
            return FeedCoverage(feed, Coverage.PARTIAL, f"its oldest entry is of {first}")
        if of_day[0] - before[-1] <= _longest_pause_before(before, [*of_day, *after]):
            return FeedCoverage(feed, Coverage.COMPLETE)
        reason = f"it has nothing between {_format(before[-1])} and {first}, a longer pause than is usual for it"
        return FeedCoverage(feed, Coverage.PARTIAL, reason)
    if not before:
        if not after:
            return FeedCoverage(feed, Coverage.INCONCLUSIVE, "it has no entry with a valid date")
        return FeedCoverage(feed, Coverage.EXPIRED, f"its oldest entry is of {_format(after[0])}")
    # Without a later entry the pause lasts until now: a copy of the feed from before the day shows nothing about it.
    pause_end = after[0] if after else now
    if pause_end - before[-1] <= _longest_usual_pause(before, after, DEFAULT_MAX_PAUSE):
        if undated:
            return FeedCoverage(feed, Coverage.INCONCLUSIVE, f"{undated} of its entries have no valid date")
        return FeedCoverage(feed, Coverage.COMPLETE)
    if not after:
        return FeedCoverage(feed, Coverage.INCONCLUSIVE, f"its newest entry is of {_format(before[-1])}")
    reason = f"it has nothing between {_format(before[-1])} and {_format(after[0])}, a longer pause than is usual for it"
    return FeedCoverage(feed, Coverage.EXPIRED, reason)


def _longest_pause_before(before: Sequence[datetime], since: Sequence[datetime]) -> timedelta:
    """Return how long the pause before the day's first entry may be for the entries `before` to show that none is gone.

    Entries before the day that have a rhythm are not one or two pinned ones: then, a night or a weekend is usual too, although
    the nearest entries of a busy feed are all of the same hours.
    """
    longest = _longest_usual_pause(before, since, LONGEST_CLOSURE)
    if _find_rhythm(before[::-1]) is not None:
        longest = max(longest, DEFAULT_MAX_PAUSE)
    return min(longest, LONGEST_CLOSURE)


def _longest_usual_pause(before: Sequence[datetime], after: Sequence[datetime], default: timedelta) -> timedelta:
    """Return how long a pause around the day may be for it to be one of the feed, rather than entries that are gone.

    If both sides of the day have a rhythm, the shorter counts; if neither has, `default`.
    """
    rhythms = [rhythm for outward in (before[::-1], after) if (rhythm := _find_rhythm(outward)) is not None]
    return MAX_PAUSE_FACTOR * min(rhythms) if rhythms else default


def _find_rhythm(outward: Sequence[datetime]) -> timedelta | None:
    """Return the longest pause between the entries nearest to the day, of those on one side; None if there are too few.

    Entries beyond a pause of more than LONGEST_CLOSURE may be pinned and say nothing about the rhythm.
    """
    pauses = (abs(second - first) for first, second in pairwise(outward[:NEAREST_ENTRIES]))
    usual = list(takewhile(LONGEST_CLOSURE.__ge__, pauses))
    return max(usual) if len(usual) >= MIN_PAUSES else None


def _format(time: datetime, text_format: str = "%Y-%m-%d") -> str:
    return f"{time.astimezone(MARKET_TIME_ZONE):{text_format}}"


def is_recent(session: date, now: datetime) -> bool:
    """Return whether a feed that recovers may still hold the session's day."""
    return now < day_bounds(session)[1] + RECOVERY_PERIOD


def merge_coverage(
    previous: Sequence[FeedCoverage], current: Sequence[FeedCoverage], read_until: datetime | None = None
) -> tuple[list[FeedCoverage], bool]:
    """Return each feed's better coverage, and whether one holds more of the day than before.

    Args:
        previous: what was recorded before; a feed that it lacks is treated as one that held nothing of the day.
        current: all feeds as they are now.
        read_until: when `previous` was recorded, if the day was not over then: a feed that held the day until then and does not
            hold the whole day now is partial.
    """
    known = {feed.feed: feed for feed in previous}
    merged, improved = [], False
    for feed in current:
        before = known.get(feed.feed)
        if before and read_until and before.coverage == Coverage.COMPLETE != feed.coverage:
            before = FeedCoverage(feed.feed, Coverage.PARTIAL, _held_until(read_until))
        if _RANKS.get(feed.coverage, 0) > (_RANKS.get(before.coverage, 0) if before else 0):
            improved = True
        elif before:
            feed = before
        merged.append(feed)
    return merged, improved


def _held_until(read_until: datetime) -> str:
    return f"it held the day until {_format(read_until, '%H:%M')}; later entries may be gone"


def determine_availability(feeds: Sequence[FeedCoverage]) -> Availability:
    """Return how much of the day's headlines the feeds held."""
    if not any(feed.holds_day for feed in feeds):
        return Availability.UNAVAILABLE
    complete = all(feed.coverage == Coverage.COMPLETE for feed in feeds)
    return Availability.COMPLETE if complete else Availability.PARTIAL


def coverage_to_json(feeds: Sequence[FeedCoverage]) -> bytes:
    """Return the file FEEDS_FILE: the feeds in order, each with its name, coverage and reason."""
    return canonical({"feeds": [asdict(feed) for feed in feeds]}) + b"\n"


def coverage_from_json(data: bytes, where: str) -> list[FeedCoverage]:
    """Return the feeds in a FEEDS_FILE. Raises DataError if the file, of the artifact at `where`, is invalid."""
    try:
        return [FeedCoverage(feed["feed"], Coverage(feed["coverage"]), feed["reason"]) for feed in json.loads(data)["feeds"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{FEEDS_FILE} of {where} is invalid: {error!r}; remove the artifact and run the step again") from None
