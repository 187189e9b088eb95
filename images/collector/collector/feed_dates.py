"""Dates of feeds that feedparser reads as UTC and that are Seoul's: those without a zone, and those with `KST`."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from collector.sessions import SEOUL

_ZONE = re.compile(r"(Z|[+-]\d\d:?\d\d|\b[A-Z]{1,5})\s*$", re.IGNORECASE)
_KST = re.compile(r"\s*\(?\bKST\b\)?\s*$", re.IGNORECASE)
_FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y.%m.%d %H:%M:%S", "%Y.%m.%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y%m%d%H%M%S")


def published(text: str) -> time.struct_time | None:
    """The moment in UTC that `text` names in Seoul's time; None where it names another zone, and for feedparser to read."""
    local = _KST.sub("", text.strip())
    if local == text.strip() and _ZONE.search(local):
        return None
    moment = _local(local)
    return moment.replace(tzinfo=SEOUL).astimezone(UTC).timetuple() if moment else None


def _local(text: str) -> datetime | None:
    for form in _FORMS:
        try:
            return datetime.strptime(text, form)  # noqa: DTZ007 its zone is Seoul's
        except ValueError:
            continue
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return read(text).replace(tzinfo=None)
        except (ValueError, TypeError):
            continue
    return None
