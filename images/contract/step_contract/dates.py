"""Dates as everybody here writes them."""

from __future__ import annotations

import re
from datetime import date

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def iso_date(text: str) -> date:
    """The date written as YYYY-MM-DD and in no other of ISO 8601's forms; raises ValueError otherwise."""
    return date.fromisoformat(text if _DATE.fullmatch(text) else "")
