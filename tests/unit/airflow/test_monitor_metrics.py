"""What the watcher sends to whoever scrapes, from what it saw."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from airflow_monitor.messages.message import Limits
from airflow_monitor.metrics import last_collected, late_seconds, numbers
from airflow_monitor.models import Dag, Health, Run, Task
from airflow_monitor.snapshot import Look

SIX = datetime(2026, 1, 15, 9, tzinfo=UTC)
DAG = Dag("market_daily", False, False, frozenset(), None)


def run(state: str, *tasks: Task, queued: datetime = SIX) -> Run:
    return Run("market_daily", "session__2026-01-15", "scheduled", state, SIX, SIX, queued, queued, None, {}, tasks)


def test_a_dag_is_late_by_what_its_run_takes_too_long_or_has_not_begun() -> None:
    limits, now = Limits(), SIX + timedelta(minutes=90)
    assert late_seconds(DAG, [run("success")], now, limits) == 0
    assert late_seconds(DAG, [run("running")], now, limits) == 30 * 60
    overdue = Dag("market_daily", False, False, frozenset(), SIX)
    assert late_seconds(overdue, [], now, limits) == 90 * 60


def test_the_last_session_that_was_collected_is_the_latest_of_all_that_was_seen() -> None:
    prices = Task("fetch_prices", "success", manifest="s3://b/prices/symbol=KS11/session=2026-01-15/manifest.json")
    assert last_collected([run("success", prices)], None) == date(2026, 1, 15)
    assert last_collected([run("success", prices)], date(2026, 1, 16)) == date(2026, 1, 16)
    odd = Task("fetch_prices", "success", manifest="s3://b/prices/nothing/manifest.json")
    assert last_collected([run("success", odd)], None) is None


def test_the_numbers_of_a_look_are_named_as_the_exporter_maps_them() -> None:
    seen = run("running", Task("train", "deferred"), Task("plot", ""))
    paused = Dag("other", True, False, frozenset(), SIX)
    look = Look(Health({}, {}), [DAG, paused], [seen], [], [])
    told = dict(numbers(look, SIX, Limits(), date(2026, 1, 15)))
    assert told["market_daily.tasks.deferred"] == 1 and told["market_daily.tasks.running"] == 0
    assert told["market_daily.dag.market_daily.late_seconds"] == 0
    assert told["market_daily.watcher.round"] == SIX.timestamp()
    # Midnight in Seoul.
    assert told["market_daily.session.collected"] == datetime(2026, 1, 14, 15, tzinfo=UTC).timestamp()
    assert not [name for name in told if "other" in name]
