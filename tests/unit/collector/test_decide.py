from __future__ import annotations

import csv
from datetime import date, timedelta
from pathlib import Path

import pytest
from collector import calendar_cache, cli
from collector.decide import make_decision
from collector.exchange_calendar import MarketStatus, calendar_status, market_status, parse_overrides, read_overrides
from step_contract.errors import ConfigurationError

from .conftest import REAL, Run


@pytest.mark.parametrize(
    ("session", "state", "reason"),
    [
        ("2026-03-20", "open", "XKRX"),
        ("2026-03-01", "closed", "Sunday"),
        ("2026-03-02", "closed", "Monday"),
        ("2026-02-17", "closed", "no session of the XKRX calendar"),
        ("2025-12-31", "closed", "Wednesday"),
    ],
)
def test_a_day_of_the_past_is_decided_as_the_exchange_did(session: str, state: str, reason: str, collector: Run) -> None:
    code, shown, result = collector("decide", "--session", session)
    assert (code, result["facts"]["state"]) == (0, state)
    assert reason in shown
    assert f"/session={session}/state={state}/manifest.json" in str(result["manifest"])


def test_a_session_without_a_bar_is_suspect_until_the_source_has_it(collector: Run, mirror: Path) -> None:
    whole = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(whole[: whole.index(b"2026-03-20")])
    assert collector("decide", "--session", "2026-03-20")[2]["facts"]["state"] == "suspect"
    (mirror / "2026.csv").write_bytes(whole)
    assert collector("decide", "--session", "2026-03-20")[2]["facts"]["state"] == "open"


def test_one_line_in_the_overrides_closes_a_day(collector: Run, mirror: Path, tmp_path: Path) -> None:
    data = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(data[: data.index(b"2026-03-20")])
    mine = tmp_path / "overrides.csv"
    mine.write_text("date,state,reason,source\n2026-03-20,closed,a special closure,the exchange's notice\n")
    code, shown, _ = collector("decide", "--session", "2026-03-20", "--overrides", str(mine))
    assert (code, "closed: a special closure (the exchange's notice)" in shown) == (0, True)


def test_a_rerun_returns_the_same_decision(collector: Run) -> None:
    first = collector("decide", "--session", "2026-03-20")[2]
    code, shown, second = collector("decide", "--session", "2026-03-20")
    assert (code, second["manifest"], "committed before" in shown) == (0, first["manifest"], True)


@pytest.mark.parametrize("session", ["1900-01-01", "2150-01-01"])
def test_a_day_that_the_calendar_does_not_reach_is_78(session: str, collector: Run) -> None:
    code, shown, _ = collector("decide", "--session", session)
    assert code == 78
    assert "outside the exchange's calendar" in shown


def test_every_day_since_1995_is_decided_as_the_exchange_did() -> None:
    bars = set()
    for year in range(1995, 2027):
        with (REAL / f"{year}.csv").open(encoding="utf-8-sig") as file:
            bars |= {date.fromisoformat(row["Date"]) for row in csv.DictReader(file)}
    known = read_overrides(Path(cli.__file__).with_name("overrides.csv"))
    first, last = min(bars), max(bars)
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    made = {day: make_decision(market_status(day, known), day in bars).state for day in days}
    assert made == {day: "open" if day in bars else "closed" for day in days}  # none is suspect
    since = date(2006, 1, 2)
    weekdays = [day for day in days if day >= since and day.weekday() < 5]
    differ = [day for day in days if (verdict := calendar_status(day)).is_open is not None and verdict.is_open != (day in bars)]
    assert (len(weekdays), sum(day in bars for day in weekdays), len(bars)) == (5275, 4985, 7784)
    assert differ == sorted(known) and not [day for day in differ if day >= since]


def test_an_override_that_the_calendar_or_the_source_contradicts_is_suspect(collector: Run, tmp_path: Path) -> None:
    mine = tmp_path / "overrides.csv"
    mine.write_text("date,state,reason,source\n2026-03-20,closed,a mistake,somebody\n2026-03-21,open,a mistake,somebody\n")
    for session, what in (("2026-03-20", "a bar"), ("2026-03-21", "no bar")):
        code, shown, result = collector("decide", "--session", session, "--overrides", str(mine))
        assert (code, result["facts"]["state"]) == (0, "suspect")
        assert f"a mistake (somebody), but the source has {what} for it" in shown


def test_a_session_that_has_not_closed_yet_is_open_and_says_when_its_bar_is_final(collector: Run) -> None:
    code, shown, result = collector("decide", "--session", "2049-11-01")
    assert (code, result["facts"]["state"]) == (0, "open")
    assert "whose bar is final from 2049-11-01 16:30" in shown


@pytest.mark.slow
def test_the_sessions_that_are_kept_are_those_of_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = calendar_cache.session_closes()
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    calendar_cache.session_closes.cache_clear()
    assert calendar_cache.session_closes() == kept
    assert calendar_cache.cache_path().read_text() == calendar_cache.closes_from_library()
    exam = date(2020, 12, 3)
    assert f"{kept[exam]:%H:%M %Z}" == "16:30 KST"


@pytest.mark.parametrize(
    ("open_by_calendar", "has_bar", "state"),
    [
        (True, True, "open"),
        (True, None, "open"),
        (True, False, "suspect"),
        (False, False, "closed"),
        (False, None, "closed"),
        (False, True, "suspect"),
    ],
)
def test_calendar_and_source_must_not_contradict_each_other(open_by_calendar: bool, has_bar: bool | None, state: str) -> None:
    made = make_decision(MarketStatus(open_by_calendar, "a reason"), has_bar)
    assert made.state == state
    assert "a reason" in made.reason


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "line 1"),
        ("date,state\n", "line 1"),
        ("date,state,reason,source\n2026-03-20,shut,why,who\n", "line 2"),
        ("date,state,reason,source\n2026-03-20,closed,why\n", "line 2"),
        ("date,state,reason,source\n2026-03-20,closed,,who\n", "line 2"),
        ("date,state,reason,source\n20.3.2026,closed,why,who\n", "line 2"),
        ("date,state,reason,source\n2026-03-20,closed,why,who\n2026-03-20,open,why,who\n", "line 3"),
        ("date,state,reason,source\n20260320,closed,why,who\n", "line 2"),
        ("date,state,reason,source\n2026-03-20,closed,a reason, with a comma,who\n", "line 2: .* needs quotes"),
        (f"date,state,reason,source\n2026-03-20,closed,{'x' * 8000},who\n", "line 2: .* a short line"),
        ("date,state,reason,source\n2026-03-20,closed,\x1b[31mred,who\n", "line 2: .* a short line"),
        (f'date,state,reason,source\n2026-03-20,closed,"{"x" * 200_000},who\n', "field larger than"),
    ],
)
def test_a_wrong_overrides_file_is_refused_and_the_line_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        parse_overrides(text, "overrides.csv")
