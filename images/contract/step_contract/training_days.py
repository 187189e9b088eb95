"""On which days the model is trained: the setting TRAINING_DAYS."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta

from step_contract.errors import ConfigurationError

DEFAULT_TRAINING_DAYS = "1,15"
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
LAST_DAY = "last"
TASK_ID = "is_training_day"  # of the task that applies the rule, in each DAG that trains: the monitor shows the answer
VALID_DAYS = frozenset([*(str(day) for day in range(1, 32)), *WEEKDAYS, LAST_DAY])


def parse_training_days(text: str) -> tuple[str, ...]:
    """Return the days that `text` lists, separated by commas: days of the month, weekdays, or `last`, the month's last day.

    Raises ConfigurationError for anything else.
    """
    days = tuple(day.strip().lower() for day in text.split(","))
    if not VALID_DAYS.issuperset(days):
        raise ConfigurationError(
            f"invalid TRAINING_DAYS {text!r}: must be days of the month (1 to 31), weekdays ({', '.join(WEEKDAYS)}) or "
            f"{LAST_DAY} for the month's last day, separated by commas"
        )
    return days


def is_training_day(session: date, rule: Collection[str]) -> bool:
    """Return whether one of the days of `rule` is the day of `session`."""
    names = {str(session.day), WEEKDAYS[session.weekday()]}
    if (session + timedelta(days=1)).day == 1:
        names.add(LAST_DAY)
    return not names.isdisjoint(rule)
