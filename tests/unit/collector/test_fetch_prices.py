from __future__ import annotations

import io
from datetime import date
from pathlib import Path

import pytest
from arro3.io import read_parquet
from collector.prices import partition
from collector.year_file import parse
from step_contract.commit import open_artifact
from step_contract.tables import PRICES_COLUMNS, PRICES_FILE

from .conftest import REAL, Run


def row(data: bytes) -> dict[str, object]:
    table = read_parquet(io.BytesIO(data)).read_all()
    return {name: table.column(name)[0].as_py() for name in table.column_names}


def test_a_session_becomes_one_partition_with_the_sources_figures(collector: Run) -> None:
    code, shown, result = collector("fetch-prices", "--session", "2026-03-20")
    manifest, files = open_artifact(str(result["manifest"]))
    assert (code, manifest.step, manifest.rows, manifest.session) == (0, "fetch-prices", 1, date(2026, 3, 20))
    assert str(result["manifest"]) in shown
    values = row(files[PRICES_FILE])
    assert tuple(values) == PRICES_COLUMNS
    assert values == {
        "date": date(2026, 3, 20),
        "open": 5813.35,
        "high": 5833.68,
        "low": 5764.64,
        "close": 5781.2,
        "change": 0.0031,
        "volume": 1490805229,
        "amount": 34025853798776,
        "market_cap": 4768189155100582,
    }


def test_what_the_source_leaves_empty_is_null() -> None:
    data = (REAL / "1995.csv").read_bytes().replace(b"0.0101", b"", 1)
    values = row(partition(parse(data, "here", 1995)[0]))
    assert (values["change"], values["market_cap"], values["close"]) == (None, None, 906.04)


def test_the_same_bar_gives_the_same_bytes() -> None:
    bars = parse((REAL / "2026.csv").read_bytes(), "here", 2026)
    assert [partition(bar) for bar in bars] == [partition(bar) for bar in bars]


def test_a_second_fetch_returns_the_first_partition_although_the_file_has_grown(collector: Run, mirror: Path) -> None:
    whole = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(whole[: whole.index(b"2026-03-20")])
    first = collector("fetch-prices", "--session", "2026-03-19")[2]
    (mirror / "2026.csv").write_bytes(whole)
    code, shown, second = collector("fetch-prices", "--session", "2026-03-19")
    assert (code, second["manifest"]) == (0, first["manifest"])
    assert "committed before" in shown


def test_a_corrected_bar_is_refused_and_the_committed_one_stays(collector: Run, mirror: Path) -> None:
    first = collector("fetch-prices", "--session", "2026-03-20")[2]
    data = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(data.replace(b",34025853798776,", b",34025853798777,"))
    code, shown, _ = collector("fetch-prices", "--session", "2026-03-20")
    assert (code, "made from other inputs (bar: " in shown) == (65, True)
    assert row(open_artifact(str(first["manifest"]))[1][PRICES_FILE])["amount"] == 34025853798776


def test_a_session_that_is_not_published_yet_is_69(collector: Run) -> None:
    code, shown, _ = collector("fetch-prices", "--session", "2026-03-23")
    assert code == 69
    assert "no bar for 2026-03-23 yet: it reaches 2026-03-20" in shown


def test_a_day_that_the_source_passes_over_is_65(collector: Run) -> None:
    code, shown, _ = collector("fetch-prices", "--session", "2026-03-02")
    assert code == 65
    assert "goes on with 2026-03-03" in shown


def test_a_source_without_the_years_file_is_69_and_its_name_is_told(collector: Run) -> None:
    code, shown, _ = collector("fetch-prices", "--session", "2027-01-04")
    assert code == 69
    assert "year_ks11/2027.csv" in shown


def test_a_damaged_file_commits_nothing(collector: Run, mirror: Path, tmp_path: Path) -> None:
    (mirror / "2026.csv").write_bytes(b"<html>maintenance</html>\n")
    code, shown, result = collector("fetch-prices", "--session", "2026-03-20")
    assert code == 65
    assert "line 1" in shown and "line 1" in str(result["error"])
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("folder", ["year_mine", "year_MINE"])
def test_another_symbol_is_found_by_its_name_in_lower_case_or_as_it_is(folder: str, collector: Run, mirror: Path) -> None:
    mirror.rename(mirror.with_name(folder))
    code, _, result = collector("fetch-prices", "--session", "2026-03-20", "--symbol", "MINE")
    assert code == 0
    assert "/prices/symbol=MINE/session=2026-03-20/" in str(result["manifest"])


@pytest.mark.parametrize(
    "template", ["file:///mirror/2026.csv", "file:///{year}/{month}.csv", "/mirror/{year}.csv", "file:///{year"]
)
def test_a_template_that_cannot_be_one_is_78(template: str, collector: Run) -> None:
    code, shown, _ = collector("fetch-prices", "--session", "2026-03-20", "--prices-url", template)
    assert code == 78
    assert "{year}" in shown


def test_a_range_commits_every_session_of_it_once(collector: Run, tmp_path: Path) -> None:
    code, shown, result = collector("fetch-prices", "--from", "2025-12-29", "--to", "2026-01-06")
    sessions = sorted(path.name for path in (tmp_path / "artifacts/prices/symbol=KS11").iterdir())
    assert sessions == [f"session={day}" for day in ("2025-12-29", "2025-12-30", "2026-01-02", "2026-01-05", "2026-01-06")]
    told = "KS11, 2025-12-29 to 2026-01-06: 5 sessions committed, 0 were there"
    assert (code, result["facts"]) == (0, {"told": told, "committed": 5, "there": 0})
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
    assert row(open_artifact(str(result["manifest"]))[1][PRICES_FILE])["date"] == date(2026, 3, 20)


def test_a_range_that_begins_before_the_source_begins_there(collector: Run) -> None:
    code, shown, result = collector("fetch-prices", "--from", "2023-01-01", "--to", "2025-01-03")
    assert (code, result["facts"]["committed"], result["facts"]["there"]) == (0, 2, 0)
    assert "2024: the source has no file" in shown


def test_a_year_that_is_missing_within_a_range_is_69(collector: Run, mirror: Path) -> None:
    assert collector("fetch-prices", "--from", "2025-01-01", "--to", "2027-02-01")[0] == 69
    (mirror / "2025.csv").unlink()
    (mirror / "2026.csv").unlink()
    assert collector("fetch-prices", "--from", "2025-01-01", "--to", "2026-02-01")[0] == 69


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "2026-01-01"],
        ["--from", "2026-01-02", "--to", "2026-01-01"],
        ["--from", "2026-01-01", "--to", "2026-01-02", "--session", "2026-01-01"],
        [],
    ],
)
def test_what_is_neither_a_session_nor_a_range_is_78(arguments: list[str], collector: Run) -> None:
    code, shown, _ = collector("fetch-prices", *arguments)
    assert code == 78
    assert "--from YYYY-MM-DD --to" in shown
