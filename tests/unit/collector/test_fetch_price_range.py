from __future__ import annotations

import io
from datetime import date
from pathlib import Path

import pytest
from arro3.io import read_parquet
from step_contract.commit import open_artifact
from step_contract.schemas import PRICES_FILE

from .conftest import Run


def day_of(uri: object) -> date:
    day: date = read_parquet(io.BytesIO(open_artifact(str(uri))[1][PRICES_FILE])).read_all().column("date")[0].as_py()
    return day


def test_a_range_commits_every_session_of_it_once(collector: Run, tmp_path: Path) -> None:
    code, shown, result = collector("fetch-prices", "--from", "2025-12-29", "--to", "2026-01-06")
    sessions = sorted(path.name for path in (tmp_path / "artifacts/prices/symbol=KS11").iterdir())
    assert sessions == [f"session={day}" for day in ("2025-12-29", "2025-12-30", "2026-01-02", "2026-01-05", "2026-01-06")]
    told = "KS11, 2025-12-29 to 2026-01-06: 5 sessions committed, 0 were there"
    assert (code, result["facts"]) == (0, {"told": told, "committed": 5, "there": 0, "revised": 0})
    assert open_artifact(str(result["manifest"]))[0].session == date(2026, 1, 6)
    assert "2025: 2 sessions committed" in shown and "2026: 3 sessions committed" in shown
    again = collector("fetch-prices", "--from", "2025-12-29", "--to", "2026-01-07")[2]["facts"]
    assert (again["committed"], again["there"]) == (1, 5)


def test_a_range_without_a_session_is_nothing_to_do(collector: Run) -> None:
    assert collector("fetch-prices", "--from", "2026-01-03", "--to", "2026-01-04")[0] == 99


def test_a_range_and_single_sessions_give_the_same_partitions(collector: Run, tmp_path: Path) -> None:
    collector("fetch-prices", "--from", "2026-03-19", "--to", "2026-03-20")
    _, shown, result = collector("fetch-prices", "--session", "2026-03-20")
    assert "committed before" in shown
    assert day_of(result["manifest"]) == date(2026, 3, 20)


def test_a_range_that_begins_before_the_source_begins_there(collector: Run) -> None:
    code, shown, result = collector("fetch-prices", "--from", "2023-01-01", "--to", "2025-01-03")
    assert (code, result["facts"]["committed"], result["facts"]["there"]) == (0, 2, 0)
    assert "2024: the source has no file" in shown


def test_a_year_that_is_missing_within_a_range_is_69(collector: Run, mirror: Path) -> None:
    (mirror / "2026.csv").unlink()
    assert collector("fetch-prices", "--from", "2025-01-01", "--to", "2026-02-01")[0] == 69
    (mirror / "2025.csv").unlink()
    assert collector("fetch-prices", "--from", "2025-01-01", "--to", "2026-02-01")[0] == 69


def test_a_range_up_to_a_day_that_the_source_does_not_reach_says_where_it_ends(collector: Run) -> None:
    code, shown, _ = collector("fetch-prices", "--from", "2026-03-19", "--to", "2026-03-24")
    assert (code, "2 sessions committed, 0 were there; the source ends with 2026-03-20" in shown) == (0, True)
    assert "ends with" not in collector("fetch-prices", "--from", "2026-03-19", "--to", "2026-03-22")[1]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ((b"\n2026-02-13,", b"\n2026-02-14,"), "2026-02-13: a session of the XKRX calendar, but the source has no bar for it"),
        ((b"\n2026-02-13,", b"\n2026-02-14,"), "2026-02-14: a Saturday, but the source has a bar for it"),
    ],
)
def test_days_on_which_calendar_and_source_differ_are_told_and_the_others_committed(
    damage: tuple[bytes, bytes], told: str, collector: Run, mirror: Path, tmp_path: Path
) -> None:
    (mirror / "2026.csv").write_bytes((mirror / "2026.csv").read_bytes().replace(*damage))
    code, shown, _ = collector("fetch-prices", "--from", "2026-02-02", "--to", "2026-02-20")
    assert (code, told in shown, "committed: 11 others" in shown) == (65, True, True)
    there = {path.name for path in (tmp_path / "artifacts/prices/symbol=KS11").iterdir()}
    assert len(there) == 11 and not there & {"session=2026-02-13", "session=2026-02-14"}


def test_the_end_of_a_year_that_is_missing_is_told_once_the_next_year_is_there(collector: Run, mirror: Path) -> None:
    data = (mirror / "2025.csv").read_bytes()
    (mirror / "2025.csv").write_bytes(data[: data.index(b"2025-12-30")])
    code, shown, _ = collector("fetch-prices", "--from", "2025-12-01", "--to", "2026-01-10")
    assert (code, "2025-12-30: a session of the XKRX calendar, but the source has no bar" in shown) == (65, True)


def test_a_range_that_ends_before_the_years_first_session_needs_no_file_of_that_year(collector: Run, mirror: Path) -> None:
    (mirror / "2026.csv").unlink()
    code, shown, _ = collector("fetch-prices", "--from", "2025-12-29", "--to", "2026-01-01")
    assert (code, "2 sessions committed" in shown) == (0, True)


def test_a_range_from_before_the_calendar_is_78(collector: Run) -> None:
    code, shown, _ = collector("fetch-prices", "--from", "0001-01-01", "--to", "2026-01-01")
    assert (code, "outside the exchange's calendar" in shown) == (78, True)
