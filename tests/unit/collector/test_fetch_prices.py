from __future__ import annotations

import io
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from arro3.io import read_parquet
from collector.calendar_cache import SEOUL
from collector.exchange_calendar import calendar_status
from collector.prices import bar_to_parquet
from collector.year_file import parse_year_file
from step_contract.commit import open_artifact
from step_contract.schemas import PRICES_COLUMNS, PRICES_FILE

from .conftest import HEADER, REAL, Run


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
    data = (REAL / "1995.csv").read_bytes().replace(b"906.04,1,9.04,0.0101,", b"906.04,,,,", 1)
    values = row(bar_to_parquet(parse_year_file(data, "here", 1995)[0]))
    assert (values["change"], values["market_cap"], values["close"]) == (None, None, 906.04)


def test_the_same_bar_gives_the_same_bytes() -> None:
    bars = parse_year_file((REAL / "2026.csv").read_bytes(), "here", 2026)
    assert [bar_to_parquet(bar) for bar in bars] == [bar_to_parquet(bar) for bar in bars]


def test_a_second_fetch_returns_the_first_partition_although_the_file_has_grown(collector: Run, mirror: Path) -> None:
    whole = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(whole[: whole.index(b"2026-03-20")])
    first = collector("fetch-prices", "--session", "2026-03-19")[2]
    (mirror / "2026.csv").write_bytes(whole)
    code, shown, second = collector("fetch-prices", "--session", "2026-03-19")
    assert (code, second["manifest"]) == (0, first["manifest"])
    assert "committed before" in shown


def test_a_bar_that_still_grows_is_69_and_nothing_is_committed(collector: Run, mirror: Path, tmp_path: Path) -> None:
    today = datetime.now(SEOUL).date()
    coming = next(day for day in (today + timedelta(days=number) for number in range(1, 30)) if calendar_status(day).is_open)
    (mirror / f"{coming.year}.csv").write_text(f"{HEADER}{coming},100,3,0,0.0,100,100,100,1,1,1\n")
    code, shown, _ = collector("fetch-prices", "--session", str(coming))
    assert (code, f"the bar of {coming} is final from {coming} 16:30 Seoul time" in shown) == (69, True)
    assert collector("fetch-prices", "--from", str(coming), "--to", str(coming))[0] == 99
    assert not (tmp_path / "artifacts").exists()


def test_a_bar_on_a_day_without_a_session_is_65(collector: Run, mirror: Path) -> None:
    data = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(data.replace(b"\n2026-02-13,", b"\n2026-02-14,"))
    code, shown, _ = collector("fetch-prices", "--session", "2026-02-14")
    assert (code, "2026-02-14: a Saturday, but the source has a bar for it; if the exchange was open" in shown) == (65, True)


def test_a_session_that_is_not_published_yet_is_69(collector: Run) -> None:
    code, shown, _ = collector("fetch-prices", "--session", "2026-03-23")
    assert code == 69
    assert "no bar for 2026-03-23 yet: it reaches 2026-03-20" in shown


def test_a_day_that_the_source_passes_over_is_65(collector: Run) -> None:
    code, shown, _ = collector("fetch-prices", "--session", "2026-03-02")
    assert code == 65
    assert "goes on with 2026-03-03" in shown


def test_a_source_without_the_years_file_is_69_and_its_name_is_told(collector: Run) -> None:
    code, shown, _ = collector("fetch-prices", "--session", "2024-01-04")
    assert code == 69
    assert "year_ks11/2024.csv" in shown


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
