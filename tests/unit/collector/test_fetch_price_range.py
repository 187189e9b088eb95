from __future__ import annotations

import io
from datetime import date
from pathlib import Path

import pytest
from arro3.io import read_parquet
from step_contract.commit import open_artifact
from step_contract.schemas import PRICES

from .conftest import Run


def day_of(uri: object) -> date:
    day: date = read_parquet(io.BytesIO(open_artifact(str(uri))[1][PRICES.file])).read_all().column("date")[0].as_py()
    return day


def test_range_commits_every_session_once(collector: Run, tmp_path: Path) -> None:
    code, output, result = collector("fetch-prices", "--from", "2025-12-29", "--to", "2026-01-06")
    sessions = sorted(path.name for path in (tmp_path / "artifacts/prices/symbol=KS11").iterdir())
    assert sessions == [f"session={day}" for day in ("2025-12-29", "2025-12-30", "2026-01-02", "2026-01-05", "2026-01-06")]
    message = "KS11, 2025-12-29 to 2026-01-06: 5 sessions committed, 0 already committed"
    assert (code, result["facts"]) == (0, {"summary": message, "committed": 5, "already_committed": 0, "revised": 0})
    assert open_artifact(str(result["manifest"]))[0].session == date(2026, 1, 6)
    assert "2025: 2 sessions committed" in output and "2026: 3 sessions committed" in output
    rerun = collector("fetch-prices", "--from", "2025-12-29", "--to", "2026-01-07")[2]["facts"]
    assert (rerun["committed"], rerun["already_committed"]) == (1, 5)


def test_range_without_session_is_nothing_to_do(collector: Run) -> None:
    assert collector("fetch-prices", "--from", "2026-01-03", "--to", "2026-01-04")[0] == 99


def test_a_range_after_the_end_of_the_source_is_no_success(collector: Run) -> None:
    code, output, _ = collector("fetch-prices", "--from", "2026-04-01", "--to", "2026-04-30")
    assert (code, "the source has none of the 22 sessions of the calendar from 2026-04-01" in output) == (65, True)


def test_range_and_single_session_give_the_same_partition(collector: Run, tmp_path: Path) -> None:
    collector("fetch-prices", "--from", "2026-03-19", "--to", "2026-03-20")
    _, output, result = collector("fetch-prices", "--session", "2026-03-20")
    assert "already committed" in output
    assert day_of(result["manifest"]) == date(2026, 3, 20)


def test_range_begins_with_the_sources_first_year(collector: Run) -> None:
    code, output, result = collector("fetch-prices", "--from", "2023-01-01", "--to", "2025-01-03")
    assert (code, result["facts"]["committed"], result["facts"]["already_committed"]) == (0, 2, 0)
    assert "2024: the source has no file" in output


def test_missing_year_in_range_is_source_unavailable(collector: Run, mirror: Path) -> None:
    (mirror / "2026.csv").unlink()
    assert collector("fetch-prices", "--from", "2025-01-01", "--to", "2026-02-01")[0] == 69
    (mirror / "2025.csv").unlink()
    assert collector("fetch-prices", "--from", "2025-01-01", "--to", "2026-02-01")[0] == 69


def test_range_beyond_the_source_states_its_last_session(collector: Run) -> None:
    code, output, _ = collector("fetch-prices", "--from", "2026-03-19", "--to", "2026-03-24")
    assert (code, "2 sessions committed, 0 already committed; the source ends on 2026-03-20" in output) == (0, True)
    assert "ends on" not in collector("fetch-prices", "--from", "2026-03-19", "--to", "2026-03-22")[1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ((b"\n2026-02-13,", b"\n2026-02-14,"), "2026-02-13: a session of the XKRX calendar, but the source has no bar for it"),
        ((b"\n2026-02-13,", b"\n2026-02-14,"), "2026-02-14: a Saturday, but the source has a bar for it"),
    ],
)
def test_contradictions_are_reported_and_other_sessions_committed(
    damage: tuple[bytes, bytes], message: str, collector: Run, mirror: Path, tmp_path: Path
) -> None:
    (mirror / "2026.csv").write_bytes((mirror / "2026.csv").read_bytes().replace(*damage))
    code, output, _ = collector("fetch-prices", "--from", "2026-02-02", "--to", "2026-02-20")
    assert (code, message in output, "other sessions committed: 11" in output) == (65, True, True)
    committed = {path.name for path in (tmp_path / "artifacts/prices/symbol=KS11").iterdir()}
    assert len(committed) == 11 and not committed & {"session=2026-02-13", "session=2026-02-14"}


def test_missing_end_of_year_is_reported_with_the_next_year(collector: Run, mirror: Path) -> None:
    data = (mirror / "2025.csv").read_bytes()
    (mirror / "2025.csv").write_bytes(data[: data.index(b"2025-12-30")])
    code, output, _ = collector("fetch-prices", "--from", "2025-12-01", "--to", "2026-01-10")
    assert (code, "2025-12-30: a session of the XKRX calendar, but the source has no bar" in output) == (65, True)


def test_range_does_not_need_a_year_without_session(collector: Run, mirror: Path) -> None:
    (mirror / "2026.csv").unlink()
    code, output, _ = collector("fetch-prices", "--from", "2025-12-29", "--to", "2026-01-01")
    assert (code, "2 sessions committed" in output) == (0, True)


def test_range_before_calendar_is_invalid_configuration(collector: Run) -> None:
    code, output, _ = collector("fetch-prices", "--from", "0001-01-01", "--to", "2026-01-01")
    assert (code, "outside the XKRX calendar" in output) == (78, True)
