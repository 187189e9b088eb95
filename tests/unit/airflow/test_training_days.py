from __future__ import annotations

from datetime import date

import pytest
from airflow_steps.settings import Settings
from step_contract.errors import ConfigurationError
from step_contract.training_days import is_training_day, parse_training_days


def list_days(text: str, year: int, month: int, days: int) -> list[int]:
    """Return the training days of a month that has `days` days."""
    rule = parse_training_days(text)
    return [day for day in range(1, days + 1) if is_training_day(date(year, month, day), rule)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,15", [1, 15]),
        ("15", [15]),
        ("fri", [6, 13, 20, 27]),
        ("mon, Thu", [2, 5, 9, 12, 16, 19, 23, 26]),
        ("last", [28]),
        ("31", []),
        ("1, last, fri", [1, 6, 13, 20, 27, 28]),
    ],
)
def test_training_days_of_february_2026(text: str, expected: list[int]) -> None:
    assert list_days(text, 2026, 2, 28) == expected


def test_the_last_day_follows_the_months_length() -> None:
    assert [list_days("last", 2028, month, days) for month, days in ((1, 31), (2, 29), (4, 30), (12, 31))] == [
        [31],
        [29],
        [30],
        [31],
    ]


def test_the_setting_defaults_to_the_1st_and_the_15th() -> None:
    assert Settings.read({}).training_days == ("1", "15")
    assert Settings.read({"TRAINING_DAYS": "mon,last"}).training_days == ("mon", "last")


@pytest.mark.parametrize("text", ["0", "32", "friday", "1;15", "1,,15", "first"])
def test_an_invalid_training_day_is_reported(text: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"invalid TRAINING_DAYS '{text}': must be days of the month \(1 to 31\)"):
        Settings.read({"TRAINING_DAYS": text})
