"""When a feed says that an entry was published: in every form that is met, and in Seoul's time where it names no zone."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from collector.sessions import SEOUL

_NINE_HOURS = re.compile(r"\s*\(?(KST|JST)\)?$", re.IGNORECASE)
_ZONE_NAME = re.compile(r"\[[A-Za-z_]+/[A-Za-z_/]+\]$")
_DAY = re.compile(r"^(\d{4})\s*[./년-]\s*(\d{1,2})\s*[./월-]\s*(\d{1,2})\s*[.일]?(?=\D|$)")
_EPOCH = re.compile(r"\d{10}")
_DIGITS = {14: "%Y%m%d%H%M%S", 12: "%Y%m%d%H%M", 8: "%Y%m%d"}
_SAYS_ZONE = re.compile(r"([+-]\d\d:?\d\d|\b(Z|GMT|UTC?|[ECMP][SD]T))$|\dZ$", re.IGNORECASE)
_FORMS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y-%m-%d %I:%M:%S %p",
    "%Y-%m-%d %I:%M %p",
    "%Y-%m-%d %p %I:%M:%S",
    "%Y-%m-%d %p %I:%M",
    "%a, %d %b %Y %I:%M:%S %p",
    "%a %b %d %H:%M:%S %Y",
)


def moment(text: str, parsed: time.struct_time | None = None) -> datetime | None:
    """The moment in UTC that `text` names; None where it cannot be understood.

    `parsed` is what feedparser, which takes all without a zone for UTC, made of it: used where `text` names a zone.
    """
    bare = " ".join(text.split())[:100]
    try:
        found = _read(bare)
        if found is None and parsed and _SAYS_ZONE.search(bare):
            found = datetime.fromtimestamp(calendar.timegm(parsed), UTC)
        # Where no zone of the world can put it on a day of the calendar, it is no moment.
        return found.astimezone(SEOUL).astimezone(UTC) if found else None
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def _read(text: str) -> datetime | None:
    if _EPOCH.fullmatch(text):
        return datetime.fromtimestamp(int(text), UTC)
    if form := _DIGITS.get(len(text)) if text.isdecimal() else None:
        return datetime.strptime(text, form).replace(tzinfo=SEOUL)
    text = _ZONE_NAME.sub("", text.replace("오전", "AM ").replace("오후", "PM "))
    text = _NINE_HOURS.sub("+09:00", text)
    text = " ".join(_DAY.sub(lambda day: f"{day[1]}-{int(day[2]):02}-{int(day[3]):02} ", text).replace(" T", "T").split())
    for read in (datetime.fromisoformat, *(_form(form) for form in _FORMS), _letter):
        try:
            found = read(text)
        except (ValueError, TypeError, IndexError):
            continue
        return found if found.tzinfo else found.replace(tzinfo=SEOUL)
    return None


def _form(form: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, form)  # noqa: DTZ007 it names no zone


def _letter(text: str) -> datetime:
    """As in letters (RFC 5322): `-0000` there means UTC."""
    found = parsedate_to_datetime(text)
    return found.replace(tzinfo=UTC) if text.endswith("-0000") else found
