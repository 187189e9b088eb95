"""Whether the exchange holds a session on a day: the exchange's calendar, and the overrides that know better."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import date, timedelta

from step_contract.exit_codes import ConfigurationWrong

EXCHANGE = "XKRX"
OVERRIDE_COLUMNS = ["date", "state", "reason", "source"]


@dataclass(frozen=True)
class Verdict:
    """Whether the exchange holds a session on a day, and why it is thought so."""

    open: bool
    reason: str


def calendar_verdict(session: date) -> Verdict:
    """What exchange_calendars says of `session`; raises ConfigurationWrong for a day that its calendar does not reach."""
    import exchange_calendars
    from exchange_calendars.exchange_calendar_xkrx import XKRXExchangeCalendar

    first, last = XKRXExchangeCalendar.bound_min().date(), XKRXExchangeCalendar.bound_max().date()
    if not first + timedelta(days=14) <= session <= last - timedelta(days=14):
        raise ConfigurationWrong(f"{session} is outside the exchange's calendar, which knows {first} to {last}")
    if session.weekday() >= 5 and session.year > 1998:
        return Verdict(False, f"a {session:%A}")
    # A fortnight around the day: building the calendar of all years takes longer than everything else a step does here.
    window = timedelta(days=14)
    calendar = exchange_calendars.get_calendar(EXCHANGE, start=str(session - window), end=str(session + window))
    if calendar.is_session(str(session)):
        return Verdict(True, f"a session of the {EXCHANGE} calendar")
    return Verdict(False, f"a {session:%A} that is no session of the {EXCHANGE} calendar")


def overrides(text: str, where: str) -> dict[date, Verdict]:
    """The verdicts of an overrides file (CSV: date, state, reason, source) by day.

    Raises ConfigurationWrong naming the line that is not of that form.
    """
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or rows[0] != OVERRIDE_COLUMNS:
        raise ConfigurationWrong(f"{where}, line 1: the header must be {','.join(OVERRIDE_COLUMNS)}")
    found: dict[date, Verdict] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            day, state, reason, source = date.fromisoformat(row[0]), row[1], row[2], row[3]
        except (ValueError, IndexError):
            raise ConfigurationWrong(f"{where}, line {number}: {row} is not date,state,reason,source") from None
        if state not in ("open", "closed") or not reason or not source or day in found:
            raise ConfigurationWrong(
                f"{where}, line {number}: the state must be open or closed, with a reason and a source, once a date"
            )
        found[day] = Verdict(state == "open", f"{reason} ({source})")
    return found
