"""Whether the exchange holds a session on a day or is closed for a holiday, and when the bar of a session is final.

The XKRX calendar of exchange_calendars answers; `overrides.csv` corrects it, for example if a holiday was announced late.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from step_contract.errors import ConfigurationError, SourceUnavailableError
from step_contract.schemas import MARKET_TIME_ZONE, parse_iso_date

from collector.calendar_cache import EXCHANGE, session_closes

OVERRIDE_COLUMNS = ["date", "state", "reason", "source"]
MAX_REASON_LENGTH = 300  # characters of reason and source together
# The exchange held some Saturday sessions until this one; exchange_calendars has none of them.
LAST_SATURDAY_SESSION = date(1998, 12, 5)
# The exchange closes an hour later on the day of the university entrance examination, which exchange_calendars does not have
# for every year, and the source publishes with a delay.
FINALIZATION_DELAY = timedelta(hours=1)


@dataclass(frozen=True)
class MarketStatus:
    """Whether the exchange holds a session on a day, and the reason.

    Attributes:
        is_open: None if neither calendar nor overrides determine it.
        reason: a phrase for messages.
    """

    is_open: bool | None
    reason: str


def describe_contradiction(status: MarketStatus, has_bar: bool | None) -> str:
    """Describe how `status` and the source contradict each other; empty if they do not, or if either is unknown."""
    if status.is_open is None or has_bar is None or status.is_open == has_bar:
        return ""
    return f"{status.reason}, but the source has {'a' if has_bar else 'no'} bar for it"


def calendar_status(day: date) -> MarketStatus:
    """Return the status of `day` by exchange_calendars: a session, a weekend or a holiday.

    Raises ConfigurationError if its calendar does not cover the day.
    """
    closes = session_closes()
    first, last = next(iter(closes)), next(reversed(closes))
    if not first <= day <= last:
        raise ConfigurationError(f"{day} is outside the {EXCHANGE} calendar: choose a day from {first} to {last}")
    if day in closes:
        return MarketStatus(True, f"a session of the {EXCHANGE} calendar")
    if day.weekday() == 5 and day <= LAST_SATURDAY_SESSION:
        return MarketStatus(
            None, f"a Saturday before {LAST_SATURDAY_SESSION + timedelta(days=7)}, when some Saturdays were sessions"
        )
    if day.weekday() >= 5:
        return MarketStatus(False, f"a {day:%A}")
    return MarketStatus(False, f"a {day:%A} that is not a session of the {EXCHANGE} calendar")


def parse_overrides(text: str, name: str) -> dict[date, MarketStatus]:
    """Return the status of each day in the overrides file `name`, CSV with the columns date, state, reason and source.

    Raises ConfigurationError naming the first invalid line.
    """
    header = ",".join(OVERRIDE_COLUMNS)
    try:
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise ConfigurationError(f"{name}: invalid CSV: {error}; the columns must be {header}") from None
    if not rows or rows[0] != OVERRIDE_COLUMNS:
        raise ConfigurationError(f"{name}, line 1: the header must be {header}")
    overrides: dict[date, MarketStatus] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        line = f"{name}, line {number}"
        try:
            day, state, reason, source = parse_iso_date(row[0]), row[1], row[2], row[3]
        except (ValueError, IndexError):
            raise ConfigurationError(f"{line}: invalid row {row}: must be {header}, with the date as YYYY-MM-DD") from None
        if len(row) > 4:
            raise ConfigurationError(f"{line}: more than 4 columns: quote a reason or source that contains a comma")
        if len(reason + source) > MAX_REASON_LENGTH or not (reason + source).isprintable():
            raise ConfigurationError(
                f"{line}: reason and source must be printable text of at most {MAX_REASON_LENGTH} characters together"
            )
        if state not in ("open", "closed"):
            raise ConfigurationError(f"{line}: invalid state {state!r}: must be open or closed")
        if not reason or not source:
            raise ConfigurationError(f"{line}: reason and source must not be empty")
        if day in overrides:
            raise ConfigurationError(f"{line}: {day} occurs twice: remove one of the lines")
        overrides[day] = MarketStatus(state == "open", f"{reason} ({source})")
    return overrides


def read_overrides(path: Path) -> dict[date, MarketStatus]:
    """Return the status of each day in the overrides file at `path`. Raises ConfigurationError if it is missing or invalid."""
    try:
        return parse_overrides(path.read_text(encoding="utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the overrides file {path}: {error}; check --overrides") from error


def market_status(day: date, overrides: Mapping[date, MarketStatus]) -> MarketStatus:
    """Return the status of `day`. A line of `overrides.csv` takes precedence over the calendar."""
    return overrides.get(day) or calendar_status(day)


def bar_final_at(day: date) -> datetime:
    """Return the time in Seoul from which the bar of `day` is final; before it, the source may still change the bar."""
    regular_close = datetime(day.year, day.month, day.day, 15, 30, tzinfo=MARKET_TIME_ZONE)
    return session_closes().get(day, regular_close) + FINALIZATION_DELAY


def check_bar_is_final(day: date, now: datetime) -> None:
    """Raise SourceUnavailableError if the bar of `day` is not final at `now`."""
    if now < (final_at := bar_final_at(day)):
        raise SourceUnavailableError(
            f"the bar of {day} is not final until {final_at:%Y-%m-%d %H:%M} {MARKET_TIME_ZONE.key} time: "
            "run the step again after that"
        )
