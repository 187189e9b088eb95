from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from step_contract.errors import DataError
from step_contract.store import Store
from trainer.dataset import committed, read_closes

from .conftest import put, real_changes


def test_of_a_session_that_was_revised_the_latest_revision_is_read(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    for revision, close in enumerate((100.0, *range(101, 111)), start=1):
        put(store, date(2026, 1, 14), close, revision=revision)
    put(store, date(2026, 1, 15), 200.0)
    found = committed(store, "KS11", date(2026, 1, 15))
    assert found.sessions == [date(2026, 1, 14), date(2026, 1, 15)]
    assert read_closes(store, found).tolist() == [110.0, 200.0]


def closes(store: Store, last: date) -> list[float]:
    found: list[float] = read_closes(store, committed(store, "KS11", last)).tolist()
    return found


def put_real(store: Store, first: date, last: date, without: tuple[date, ...] = ()) -> None:
    for session, (close, change) in real_changes(2017, 2017).items():
        if first <= session <= last and session not in without:
            put(store, session, close, change=change)


@pytest.mark.parametrize("missing", [date(2017, 9, 11), date(2017, 9, 29), date(2017, 10, 10)])
def test_a_session_that_is_missing_between_two_is_told_with_what_to_do(tmp_path: Path, missing: date) -> None:
    store, last = Store(f"file://{tmp_path}"), date(2017, 10, 20)
    put_real(store, date(2017, 9, 1), last, without=(missing,))
    with pytest.raises(DataError) as told:
        closes(store, last)
    days = [day for day in real_changes(2017, 2017) if day != missing]
    before, after = max(day for day in days if day < missing), min(day for day in days if day > missing)
    assert f"between {before} and {after} sessions are missing" in str(told.value)
    assert f"collector fetch-prices --symbol KS11 --from {before} --to {after}" in str(told.value)


def test_weeks_that_are_missing_are_told_also_where_the_source_gives_no_change(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    put(store, date(2026, 1, 2), 100.0)
    put(store, date(2026, 1, 20), 101.0)
    with pytest.raises(DataError, match=r"between 2026-01-02 and 2026-01-20 .* never closed for 17 days"):
        closes(store, date(2026, 1, 20))


def test_the_longest_holiday_of_the_exchange_is_no_gap(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    put_real(store, date(2017, 9, 25), date(2017, 10, 13))
    assert len(closes(store, date(2017, 10, 13))) == 9
