"""Whether the exchange holds a session on a day: the exchange's calendar, and the overrides that know better."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from step_contract.errors import ConfigurationError, SourceUnavailableError
from step_contract.schemas import parse_iso_date

from collector.calendar_cache import EXCHANGE, SEOUL, session_closes

OVERRIDE_COLUMNS = ["date", "state", "reason", "source"]
MAX_REASON_LENGTH = 300  # characters
# The calendar knows no Saturdays; the exchange held them until this one.
LAST_SATURDAY_SESSION = date(1998, 12, 5)
# On the day of the university entrance examination the exchange closes an hour late, of which the calendar does not know
# every year; and the source takes a while.
FINALIZATION_DELAY = timedelta(hours=1)


@dataclass(frozen=True)
class MarketStatus:
    """Whether the exchange holds a session on a day, None where nobody but the source knows, and why it is thought so."""

    is_open: bool | None
    reason: str


def describe_contradiction(verdict: MarketStatus, has_bar: bool | None) -> str:
    """How calendar or overrides and the source contradict each other; empty where they do not, or one of them does not know."""
    if verdict.is_open is None or has_bar is None or verdict.is_open == has_bar:
        return ""
    return f"{verdict.reason}, but the source has {'a' if has_bar else 'no'} bar for it"


def calendar_status(day: date) -> MarketStatus:
    """What exchange_calendars says of `day`; raises ConfigurationError for a day that its calendar does not reach."""
    known = session_closes()
    first, last = next(iter(known)), next(reversed(known))
    if not first <= day <= last:
        raise ConfigurationError(f"{day} is outside the exchange's calendar, whose sessions are from {first} to {last}")
    if day in known:
        return MarketStatus(True, f"a session of the {EXCHANGE} calendar")
    if day.weekday() == 5 and day <= LAST_SATURDAY_SESSION:
        return MarketStatus(None, f"a Saturday before {LAST_SATURDAY_SESSION + timedelta(days=7)}, when some were sessions")
    if day.weekday() >= 5:
        return MarketStatus(False, f"a {day:%A}")
    return MarketStatus(False, f"a {day:%A} that is no session of the {EXCHANGE} calendar")


def parse_overrides(text: str, where: str) -> dict[date, MarketStatus]:
    """The verdicts of an overrides file (CSV: date, state, reason, source) by day.

    Raises ConfigurationError naming the line that is not of that form.
    """
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise ConfigurationError(f"{where}: {error}; it must be CSV with {','.join(OVERRIDE_COLUMNS)}") from None
    if not rows or rows[0] != OVERRIDE_COLUMNS:
        raise ConfigurationError(f"{where}, line 1: the header must be {','.join(OVERRIDE_COLUMNS)}")
    found: dict[date, MarketStatus] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            day, state, reason, source = parse_iso_date(row[0]), row[1], row[2], row[3]
        except (ValueError, IndexError):
            raise ConfigurationError(f"{where}, line {number}: {row} is not date,state,reason,source") from None
        if len(row) > 4:
            raise ConfigurationError(f"{where}, line {number}: a reason or a source with a comma in it needs quotes around it")
        if len(reason + source) > MAX_REASON_LENGTH or not (reason + source).isprintable():
            raise ConfigurationError(f"{where}, line {number}: reason and source must be a short line of text")
        if state not in ("open", "closed") or not reason or not source or day in found:
            raise ConfigurationError(
                f"{where}, line {number}: the state must be open or closed, with a reason and a source, once a date"
            )
        found[day] = MarketStatus(state == "open", f"{reason} ({source})")
    return found


def read_overrides(path: Path) -> dict[date, MarketStatus]:
    """The verdicts of the overrides file at `path`; raises ConfigurationError where it cannot be read or is wrong."""
    try:
        return parse_overrides(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the overrides file {path} cannot be read: {error}") from error


def market_status(day: date, known: Mapping[date, MarketStatus]) -> MarketStatus:
    """What the overrides say of `day`, or else the calendar."""
    return known.get(day) or calendar_status(day)


def bar_final_at(day: date) -> datetime:
    """When the bar of `day` can be taken as final, in Seoul's time; before, it grows."""
    usual = datetime(day.year, day.month, day.day, 15, 30, tzinfo=SEOUL)
    return session_closes().get(day, usual) + FINALIZATION_DELAY


def check_bar_is_final(day: date, now: datetime) -> None:
    """Raises SourceUnavailableError while the bar of `day` may still change."""
    if now < (moment := bar_final_at(day)):
        raise SourceUnavailableError(f"the bar of {day} is final from {moment:%Y-%m-%d %H:%M} Seoul time; until then it grows")
