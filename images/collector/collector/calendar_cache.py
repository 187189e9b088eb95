"""A cache of the exchange's sessions and closing times, computed by exchange_calendars.

Importing that library takes longer than the rest of a decision. Its result is therefore cached in a file in the Python
environment, named after the library's version; the image is built with it.

    python calendar_cache.py   # writes the cache
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from datetime import date, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path

EXCHANGE = "XKRX"


def cache_path() -> Path:
    """Return the path of the cache for the installed version of exchange_calendars."""
    return Path(sys.prefix) / "share" / "collector" / f"{EXCHANGE}-{version('exchange-calendars')}.txt"


def compute_closes() -> str:
    """Return a line for each session that exchange_calendars knows: date and time of the close in its time zone."""
    import exchange_calendars

    # None where the calendar has no bound: the library's default applies. Any short range selects the class.
    bounds = type(exchange_calendars.get_calendar(EXCHANGE, start="2025-01-01", end="2025-12-31"))
    calendar = exchange_calendars.get_calendar(EXCHANGE, start=bounds.bound_min(), end=bounds.bound_max())
    return "".join(f"{close:%Y-%m-%d %H:%M}\n" for close in calendar.closes.dt.tz_convert(calendar.tz))


def write_cache() -> str:
    """Write the cache if its directory is writable; return its content."""
    text, path = compute_closes(), cache_path()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(text)
        temporary.rename(path)
    return text


@cache
def session_closes() -> dict[date, datetime]:
    """Return the time of each session's close in the exchange's time zone, ordered by session."""
    # Not at the top: the image runs this file before it has the contract.
    from step_contract.schemas import MARKET_TIME_ZONE

    try:
        text = cache_path().read_text()
    except OSError:
        text = write_cache()
    closes = [datetime.fromisoformat(line).replace(tzinfo=MARKET_TIME_ZONE) for line in text.splitlines()]
    return {close.date(): close for close in closes}


if __name__ == "__main__":
    write_cache()
