"""The monitor's gauges, as computed from a snapshot."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from airflow_monitor.metrics import collect_gauges, late_seconds, latest_session
from airflow_monitor.models import Dag, Health, Run, TaskInstance, Thresholds
from airflow_monitor.snapshot import Snapshot
from step_contract.facts import ForecastFacts

SIX_PM = datetime(2026, 1, 15, 9, tzinfo=UTC)  # in Seoul
DAG = Dag("market_daily", False, False, frozenset(), None)


def make_run(state: str, *task_instances: TaskInstance) -> Run:
    times = (SIX_PM, SIX_PM, SIX_PM, SIX_PM, None)
    return Run("market_daily", "session__2026-01-15", "scheduled", state, *times, {}, task_instances)


def test_a_dag_is_late_by_a_slow_run_or_an_overdue_one() -> None:
    thresholds, now = Thresholds(), SIX_PM + timedelta(minutes=90)
    assert late_seconds(DAG, [make_run("success")], now, thresholds) == 0
    assert late_seconds(DAG, [make_run("running")], now, thresholds) == 30 * 60
    overdue = Dag("market_daily", False, False, frozenset(), SIX_PM)
    assert late_seconds(overdue, [], now, thresholds) == 90 * 60


def test_the_latest_session_never_goes_back() -> None:
    prices = TaskInstance("fetch_prices", "success", manifest="s3://b/prices/symbol=KS11/session=2026-01-15/manifest.json")
    assert latest_session([make_run("success", prices)], None) == date(2026, 1, 15)
    assert latest_session([make_run("success", prices)], date(2026, 1, 16)) == date(2026, 1, 16)
    odd = TaskInstance("fetch_prices", "success", manifest="s3://b/prices/nothing/manifest.json")
    assert latest_session([make_run("success", odd)], None) is None


def test_gauges_have_the_names_that_the_exporter_maps() -> None:
    run = make_run("running", TaskInstance("train", "deferred"), TaskInstance("plot", ""))
    paused = Dag("other", True, False, frozenset(), SIX_PM)
    snapshot = Snapshot(Health({}, {}), [DAG, paused], [run], [], [], SIX_PM)
    gauges = dict(collect_gauges(snapshot, SIX_PM, Thresholds(), date(2026, 1, 15)))
    assert gauges["market_daily.task_instances.deferred"] == 1 and gauges["market_daily.task_instances.running"] == 0
    assert gauges["market_daily.dag.market_daily.late_seconds"] == 0
    assert gauges["market_daily.monitor.last_poll"] == SIX_PM.timestamp()
    # Midnight in Seoul.
    assert gauges["market_daily.last_collected_session"] == datetime(2026, 1, 14, 15, tzinfo=UTC).timestamp()
    assert not [name for name in gauges if "other" in name]


def test_the_drift_is_that_of_the_last_session() -> None:
    def collect(session: str, since: str) -> list[float]:
        facts = ForecastFacts(
            session, 1.0, "baseline: naive", 0.8, 1.0, 1.0, 1.0, 5, 1.0, 1.0, 1.0, drift_since=since
        ).to_facts()
        run = make_run("success", TaskInstance("forecast", "success", facts=facts))
        snapshot = Snapshot(Health({}, {}), [DAG], [run], [], [], SIX_PM)
        gauges = collect_gauges(snapshot, SIX_PM, Thresholds(), date(2026, 1, 15))
        return [value for name, value in gauges if name == "market_daily.forecast_drift"]

    assert (collect("2026-01-15", "2026-01-02"), collect("2026-01-15", "")) == ([1.0], [0.0])
    assert collect("2020-01-16", "2020-01-02") == [], "as in a run for an earlier session"
