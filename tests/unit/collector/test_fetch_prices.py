from __future__ import annotations

import io
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
from arro3.io import read_parquet
from collector.exchange_calendar import calendar_status
from collector.prices import make_partitions
from collector.year_file import parse_year_file
from step_contract.commit import open_artifact
from step_contract.schemas import MARKET_TIME_ZONE, PRICES

from .conftest import HEADER, REAL, Run


def row(data: bytes) -> dict[str, object]:
    table = read_parquet(io.BytesIO(data)).read_all()
    return {name: table.column(name)[0].as_py() for name in table.column_names}


def test_partition_has_the_sources_values(collector: Run) -> None:
    code, output, result = collector("fetch-prices", "--session", "2026-03-20")
    manifest, files = open_artifact(str(result["manifest"]))
    assert (code, manifest.step, manifest.rows, manifest.session) == (0, "fetch-prices", 1, date(2026, 3, 20))
    assert str(result["manifest"]) in output
    values = row(files[PRICES.file])
    assert tuple(values) == PRICES.names
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


def test_empty_cells_are_null() -> None:
    data = (REAL / "1995.csv").read_bytes().replace(b"906.04,1,9.04,0.0101,", b"906.04,,,,", 1)
    values = row(make_partitions("KS11", parse_year_file(data, "here", 1995))[0].file)
    assert (values["change"], values["market_cap"], values["close"]) == (None, None, 906.04)


def test_equal_bars_give_equal_bytes_whatever_is_around_them() -> None:
    data = (REAL / "2026.csv").read_bytes()
    partitions = make_partitions("KS11", parse_year_file(data, "here", 2026))
    assert partitions == make_partitions("KS11", parse_year_file(data, "there", 2026))
    for number in (0, 1, 20, -1):
        prices = parse_year_file(data, "here", 2026).iloc[[number]]
        assert make_partitions("KS11", prices) == [partitions[number]]


def test_inputs_depend_on_the_values_and_not_on_the_writer() -> None:
    """The digest is that of version 1.0.0: sessions that it committed are not corrections."""
    partitions = make_partitions("KS11", parse_year_file((REAL / "2026.csv").read_bytes(), "here", 2026))
    digest = "57ccecc023d7022bc9b8e170d83e9898b8cbad9a5351a5c5813e2d1c94a5c229"
    assert partitions[-1].inputs == {"symbol": "KS11", "bar": digest}


def test_second_fetch_returns_first_partition_after_file_has_grown(collector: Run, mirror: Path) -> None:
    complete = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(complete[: complete.index(b"2026-03-20")])
    first = collector("fetch-prices", "--session", "2026-03-19")[2]
    (mirror / "2026.csv").write_bytes(complete)
    code, output, second = collector("fetch-prices", "--session", "2026-03-19")
    assert (code, second["manifest"]) == (0, first["manifest"])
    assert "already committed" in output


def test_bar_that_is_not_final_is_source_unavailable(collector: Run, mirror: Path, tmp_path: Path) -> None:
    today = datetime.now(MARKET_TIME_ZONE).date()
    session = next(day for day in (today + timedelta(days=number) for number in range(1, 30)) if calendar_status(day).is_open)
    (mirror / f"{session.year}.csv").write_text(f"{HEADER}{session},100,3,0,0.0,100,100,100,1,1,1\n")
    code, output, _ = collector("fetch-prices", "--session", str(session))
    assert (code, f"the bar of {session} is not final until {session} 16:30 Asia/Seoul time" in output) == (69, True)
    assert collector("fetch-prices", "--from", str(session), "--to", str(session))[0] == 99
    assert not (tmp_path / "artifacts").exists()


def test_bar_on_closed_day_is_invalid_data(collector: Run, mirror: Path) -> None:
    data = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(data.replace(b"\n2026-02-13,", b"\n2026-02-14,"))
    code, output, _ = collector("fetch-prices", "--session", "2026-02-14")
    assert (code, "2026-02-14: a Saturday, but the source has a bar for it; if the exchange was open" in output) == (65, True)


def test_unpublished_session_is_source_unavailable(collector: Run) -> None:
    code, output, _ = collector("fetch-prices", "--session", "2026-03-23")
    assert code == 69
    assert "no bar for 2026-03-23 yet: its last bar is 2026-03-20" in output


def test_day_missing_between_bars_is_invalid_data(collector: Run) -> None:
    code, output, _ = collector("fetch-prices", "--session", "2026-03-02")
    assert code == 65
    assert "no bar for 2026-03-02 and its next bar is 2026-03-03" in output


def test_missing_year_file_is_source_unavailable_and_named(collector: Run) -> None:
    code, output, _ = collector("fetch-prices", "--session", "2024-01-04")
    assert code == 69
    assert "year_ks11/2024.csv" in output


def test_invalid_file_commits_nothing(collector: Run, mirror: Path, tmp_path: Path) -> None:
    (mirror / "2026.csv").write_bytes(b"<html>maintenance</html>\n")
    code, output, result = collector("fetch-prices", "--session", "2026-03-20")
    assert code == 65
    assert "line 1" in output and "line 1" in str(result["error"])
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("folder", ["year_mine", "year_MINE"])
def test_symbols_folder_is_in_lower_case_or_unchanged(folder: str, collector: Run, mirror: Path) -> None:
    mirror.rename(mirror.with_name(folder))
    code, _, result = collector("fetch-prices", "--session", "2026-03-20", "--symbol", "MINE")
    assert code == 0
    assert "/prices/symbol=MINE/session=2026-03-20/" in str(result["manifest"])


@pytest.mark.parametrize(
    "template", ["file:///mirror/2026.csv", "file:///{year}/{month}.csv", "/mirror/{year}.csv", "file:///{year"]
)
def test_invalid_prices_url_is_invalid_configuration(template: str, collector: Run) -> None:
    code, output, _ = collector("fetch-prices", "--session", "2026-03-20", "--prices-url", template)
    assert code == 78
    assert "{year}" in output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "2026-01-01"],
        ["--from", "2026-01-02", "--to", "2026-01-01"],
        ["--from", "2026-01-01", "--to", "2026-01-02", "--session", "2026-01-01"],
        [],
    ],
)
def test_neither_session_nor_range_is_invalid_configuration(arguments: list[str], collector: Run) -> None:
    code, output, _ = collector("fetch-prices", *arguments)
    assert code == 78
    assert "--from YYYY-MM-DD --to" in output
