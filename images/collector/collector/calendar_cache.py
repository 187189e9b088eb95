"""The exchange's sessions and when each closes, as exchange_calendars knows them.

Importing that library takes longer than all else that a decision does, so its answer is kept in a file beside it, under its
version; the image is built with the file in it.

    python calendar_cache.py   # writes the file
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import date, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from zoneinfo import ZoneInfo

SEOUL = ZoneInfo("Asia/Seoul")
EXCHANGE = "XKRX"


def cache_path() -> Path:
    """Where the sessions of the installed library are kept: in the environment, by the library's version."""
    return Path(sys.prefix) / "share" / "collector" / f"{EXCHANGE}-{version('exchange-calendars')}.txt"


def closes_from_library() -> str:
    """Every session that exchange_calendars knows, a line each: date and time of the close in Seoul."""
    import exchange_calendars
    from exchange_calendars.exchange_calendar_xkrx import XKRXExchangeCalendar as Bounds

    calendar = exchange_calendars.get_calendar(EXCHANGE, start=Bounds.bound_min(), end=Bounds.bound_max())
    return "".join(f"{close:%Y-%m-%d %H:%M}\n" for close in calendar.closes.dt.tz_convert(SEOUL))


def write_cache() -> str:
    """Writes the sessions to their file, where that can be written; returns them."""
    text, file = closes_from_library(), cache_path()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_text(text)
        beside.rename(file)
    return text


@cache
def session_closes() -> dict[date, datetime]:
    """When each session closes, by the session, in order."""
    try:
        text = cache_path().read_text()
    except OSError:
        text = write_cache()
    moments = [datetime.fromisoformat(line).replace(tzinfo=SEOUL) for line in text.splitlines()]
    return {moment.date(): moment for moment in moments}


if __name__ == "__main__":
    write_cache()
