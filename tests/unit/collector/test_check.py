"""The command `check` of the collector: calendar, price source and feeds, each broken once."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from collector.check import check_calendar, check_prices, list_final_sessions
from collector.exchange_calendar import read_overrides
from step_contract.checks.findings import Finding, Status
from step_contract.schemas import MARKET_TIME_ZONE

from .conftest import HEADER, ROOT, Run

OVERRIDES = ROOT / "images" / "collector" / "collector" / "overrides.csv"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=MARKET_TIME_ZONE)


def parse(output: str) -> dict[str, Finding]:
    """Return the findings in a program's output by check."""
    return {finding.check: finding for line in output.splitlines() if (finding := Finding.parse(line))}


@pytest.fixture
def prices_url(mirror: Path) -> str:
    return f"file://{mirror.parent}/year_{{symbol}}/{{year}}.csv"


@pytest.fixture
def feeds(tmp_path: Path) -> Path:
    """A feeds file with one feed of the sample and one that does not exist."""
    file = tmp_path / "feeds.toml"
    feed = ROOT / "data" / "feeds" / "market.rss"
    file.write_text(
        f'[[feed]]\nname = "good"\nurl = "file://{feed}"\n[[feed]]\nname = "bad"\nurl = "file:///no/feed?key=s3cret"\n'
    )
    return file


def test_the_sample_without_a_schedule_is_ok(collector: Run) -> None:
    feeds = str(ROOT / "data" / "feeds" / "feeds.toml")
    code, output, result = collector("check", "--scheduled", "false", "--format", "json", "--feeds", feeds)
    found = parse(output)
    assert set(found) == {"commit", "platform", "bucket", "clock", "calendar", "prices", "feeds"}
    assert {finding.status for finding in found.values()} == {Status.OK}, output
    assert code == 0 and "0 warnings" in str(result["facts"]["summary"])


def test_an_error_is_a_line_for_a_person_and_the_exit_code_78(collector: Run, tmp_path: Path) -> None:
    code, output, result = collector("check", "--scheduled", "false", "--overrides", str(tmp_path / "none.csv"))
    assert code == 78 and "error   calendar: cannot read the overrides file" in output
    assert "error   prices:" in output and "ok      bucket:" in output, "the other checks run"
    assert "calendar" in str(result["error"])


def test_a_feed_that_cannot_be_read_is_a_warning_without_its_key(collector: Run, feeds: Path) -> None:
    code, output, _ = collector("check", "--scheduled", "false", "--format", "json", "--feeds", str(feeds))
    finding = parse(output)["feeds"]
    assert code == 0 and finding.status is Status.WARNING and "/no/feed" in finding.message and "s3cret" not in output
    feeds.write_text('[[feed]]\nname = "bad"\nurl = "file:///no/feed"\n')
    code, output, _ = collector("check", "--scheduled", "false", "--format", "json", "--feeds", str(feeds))
    assert code == 78 and parse(output)["feeds"].status is Status.ERROR


@pytest.mark.parametrize(
    ("now", "scheduled", "status", "message"),
    [
        ("2026-03-21 09:00", True, Status.OK, "the last bar of KS11 is of 2026-03-20"),
        ("2026-03-23 20:00", True, Status.OK, "2026-03-20"),  # the source publishes within hours
        ("2026-03-24 06:00", True, Status.WARNING, "missing: 2026-03-23"),
        ("2026-03-26 06:00", True, Status.ERROR, "missing: 2026-03-23, 2026-03-24, 2026-03-25"),
        ("2026-03-26 06:00", False, Status.OK, "no run is scheduled"),
    ],
)
def test_missing_sessions_of_the_source_are_named(
    prices_url: str, now: str, scheduled: bool, status: Status, message: str
) -> None:
    [finding] = check_prices(prices_url, "KS11", OVERRIDES, at(now), scheduled)
    assert finding.status is status and message in finding.message


def test_a_source_without_files_is_an_error(tmp_path: Path) -> None:
    [finding] = check_prices(f"file://{tmp_path}/{{year}}.csv", "KS11", OVERRIDES, at("2026-03-21 09:00"), False)
    assert finding.status is Status.ERROR and "no bar of KS11 in 2025 and 2026" in finding.message


def test_in_the_first_days_of_a_year_the_last_years_file_is_enough(prices_url: str, mirror: Path) -> None:
    (mirror / "2026.csv").unlink()
    [finding] = check_prices(prices_url, "KS11", OVERRIDES, at("2026-01-02 09:00"), True)
    assert finding.status is Status.OK, finding


def test_a_bar_on_a_day_that_the_calendar_calls_closed_is_a_warning(prices_url: str, mirror: Path) -> None:
    moved = (mirror / "2026.csv").read_text().replace("2026-03-20", "2026-03-21")
    (mirror / "2026.csv").write_text(moved)
    found = {finding.check: finding for finding in check_prices(prices_url, "KS11", OVERRIDES, at("2026-03-22 09:00"), True)}
    assert found["calendar"].status is Status.WARNING and "2026-03-21" in found["calendar"].message
    assert "missing: 2026-03-20" in found["prices"].message


@pytest.mark.parametrize(
    ("now", "status"),
    [("2026-03-20 09:00", Status.OK), ("2050-12-01 09:00", Status.WARNING), ("2051-01-15 09:00", Status.ERROR)],
)
def test_a_calendar_that_ends_soon_is_a_warning_then_an_error(now: str, status: Status) -> None:
    [finding] = check_calendar(OVERRIDES, at(now))
    assert finding.status is status


def test_the_last_final_sessions_skip_holidays() -> None:
    days = list_final_sessions(at("2026-03-03 12:00"), read_overrides(OVERRIDES), 2)
    assert [str(day) for day in days] == ["2026-02-27", "2026-02-26"], "2 March is a holiday, 3 March not final"


def test_a_damaged_year_file_is_an_error_of_the_prices_only(collector: Run, mirror: Path) -> None:
    (mirror / "2026.csv").write_text(HEADER + "2026-03-20,nonsense\n")
    code, output, _ = collector("check", "--format", "json", "--scheduled", "false")
    assert code == 78 and parse(output)["prices"].status is Status.ERROR and parse(output)["bucket"].status is Status.OK
    assert json.loads(output.splitlines()[0])["check"] == "commit"
