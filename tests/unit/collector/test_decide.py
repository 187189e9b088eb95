from __future__ import annotations

import csv
import subprocess
import sys
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
        ("2026-02-17", "closed", "not a session of the XKRX calendar"),
        ("2025-12-31", "closed", "Wednesday"),
    ],
)
def test_past_day_is_decided_correctly(session: str, state: str, reason: str, collector: Run) -> None:
    code, output, result = collector("decide", "--session", session)
    assert (code, result["facts"]["state"]) == (0, state)
    assert reason in output
    assert f"/session={session}/state={state}/manifest.json" in str(result["manifest"])


def test_session_is_suspect_until_source_has_its_bar(collector: Run, mirror: Path) -> None:
    complete = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(complete[: complete.index(b"2026-03-20")])
    assert collector("decide", "--session", "2026-03-20")[2]["facts"]["state"] == "suspect"
    (mirror / "2026.csv").write_bytes(complete)
    assert collector("decide", "--session", "2026-03-20")[2]["facts"]["state"] == "open"


def test_damaged_file_of_the_source_is_invalid_data(collector: Run, mirror: Path, tmp_path: Path) -> None:
    data = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(data.replace(b",4723.1,1,", b",4723.2,1,"))
    code, output, _ = collector("decide", "--session", "2026-03-20")
    assert (code, "2026.csv, line 10, column Close: 4723.2" in output) == (65, True)
    assert not (tmp_path / "artifacts").exists()


def test_decision_on_the_day_itself_does_not_wait_for_pandas(tmp_path: Path) -> None:
    code = "import sys; from collector.cli import main; exit_code = main(); print(exit_code, 'pandas' in sys.modules)"
    command = [sys.executable, "-c", code, "decide", "--session", "2049-11-01", "--artifacts", f"file://{tmp_path}"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.splitlines()[-1] == "0 False"


def test_override_closes_a_day(collector: Run, mirror: Path, tmp_path: Path) -> None:
    data = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(data[: data.index(b"2026-03-20")])
    overrides_file = tmp_path / "overrides.csv"
    overrides_file.write_text("date,state,reason,source\n2026-03-20,closed,a special closure,the exchange's notice\n")
    code, output, _ = collector("decide", "--session", "2026-03-20", "--overrides", str(overrides_file))
    assert (code, "closed: a special closure (the exchange's notice)" in output) == (0, True)


def test_rerun_returns_same_decision(collector: Run) -> None:
    first = collector("decide", "--session", "2026-03-20")[2]
    code, output, second = collector("decide", "--session", "2026-03-20")
    assert (code, second["manifest"], "already committed" in output) == (0, first["manifest"], True)


@pytest.mark.parametrize("session", ["1900-01-01", "2150-01-01"])
def test_day_outside_calendar_is_invalid_configuration(session: str, collector: Run) -> None:
    code, output, _ = collector("decide", "--session", session)
    assert code == 78
    assert "outside the XKRX calendar" in output


def test_every_day_since_1995_is_decided_correctly() -> None:
    bars = set()
    for year in range(1995, 2027):
        with (REAL / f"{year}.csv").open(encoding="utf-8-sig") as file:
            bars |= {date.fromisoformat(row["Date"]) for row in csv.DictReader(file)}
    overrides = read_overrides(Path(cli.__file__).with_name("overrides.csv"))
    first, last = min(bars), max(bars)
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    states = {day: make_decision(market_status(day, overrides), day in bars).state for day in days}
    assert states == {day: "open" if day in bars else "closed" for day in days}  # none is suspect
    since = date(2006, 1, 2)
    weekdays = [day for day in days if day >= since and day.weekday() < 5]
    differ = [day for day in days if (status := calendar_status(day)).is_open is not None and status.is_open != (day in bars)]
    assert (len(weekdays), sum(day in bars for day in weekdays), len(bars)) == (5275, 4985, 7784)
    assert differ == sorted(overrides) and not [day for day in differ if day >= since]


def test_override_contradicted_by_source_is_suspect(collector: Run, tmp_path: Path) -> None:
    overrides_file = tmp_path / "overrides.csv"
    overrides_file.write_text(
        "date,state,reason,source\n2026-03-20,closed,a mistake,someone\n2026-03-21,open,a mistake,someone\n"
    )
    for session, bar in (("2026-03-20", "a bar"), ("2026-03-21", "no bar")):
        code, output, result = collector("decide", "--session", session, "--overrides", str(overrides_file))
        assert (code, result["facts"]["state"]) == (0, "suspect")
        assert f"a mistake (someone), but the source has {bar} for it" in output


def test_future_session_is_open_and_states_when_bar_is_final(collector: Run) -> None:
    code, output, result = collector("decide", "--session", "2049-11-01")
    assert (code, result["facts"]["state"]) == (0, "open")
    assert "its bar is final from 2049-11-01 16:30" in output


@pytest.mark.slow
def test_cached_sessions_equal_those_of_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cached = calendar_cache.session_closes()
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    calendar_cache.session_closes.cache_clear()
    assert calendar_cache.session_closes() == cached
    assert calendar_cache.cache_path().read_text() == calendar_cache.compute_closes()
    exam = date(2020, 12, 3)
    assert f"{cached[exam]:%H:%M %Z}" == "16:30 KST"


@pytest.mark.parametrize(
    ("is_open", "has_bar", "state"),
    [
        (True, True, "open"),
        (True, None, "open"),
        (True, False, "suspect"),
        (False, False, "closed"),
        (False, None, "closed"),
        (False, True, "suspect"),
    ],
)
def test_contradiction_of_calendar_and_source_is_suspect(is_open: bool, has_bar: bool | None, state: str) -> None:
    decision = make_decision(MarketStatus(is_open, "a reason"), has_bar)
    assert decision.state == state
    assert "a reason" in decision.reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1"),
        ("date,state\n", "line 1"),
        ("date,state,reason,source\n2026-03-20,shut,why,who\n", "line 2"),
        ("date,state,reason,source\n2026-03-20,closed,why\n", "line 2"),
        ("date,state,reason,source\n2026-03-20,closed,,who\n", "line 2"),
        ("date,state,reason,source\n20.3.2026,closed,why,who\n", "line 2"),
        ("date,state,reason,source\n2026-03-20,closed,why,who\n2026-03-20,open,why,who\n", "line 3"),
        ("date,state,reason,source\n20260320,closed,why,who\n", "line 2"),
        (
            "date,state,reason,source\n2026-03-20,closed,a reason, with a comma,who\n",
            "line 2: more than 4 columns",
        ),
        (
            f"date,state,reason,source\n2026-03-20,closed,{'x' * 8000},who\n",
            "line 2: .* at most 300 characters",
        ),
        (
            "date,state,reason,source\n2026-03-20,closed,\x1b[31mred,who\n",
            "line 2: .* at most 300 characters",
        ),
        (f'date,state,reason,source\n2026-03-20,closed,"{"x" * 200_000},who\n', "field larger than"),
    ],
)
def test_invalid_overrides_file_is_rejected_with_line(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_overrides(text, "overrides.csv")
