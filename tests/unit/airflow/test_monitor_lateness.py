"""A DAG's own limit of lateness: its tag `late:MINUTES`."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow_monitor.airflow_responses import parse_dag
from airflow_monitor.metrics import late_seconds
from airflow_monitor.models import Run, Thresholds

from .fake_airflow_api import dag
from .monitor_harness import RUN_ID, SIX_PM, MonitorHarness, add_session_run, monitor

__all__ = ["monitor"]
MINUTES = timedelta(minutes=1)


def is_late(monitor: MonitorHarness) -> bool:
    return any("is late" in message.text for message in monitor.broadcasts())


@pytest.mark.parametrize(("tag", "limit"), [("late:240", 240), ("late:5", 5)])
def test_a_tag_sets_when_runs_of_its_dag_are_late(monitor: MonitorHarness, tag: str, limit: int) -> None:
    monitor.airflow.dags = [dag("market_daily", tags=("market", tag)), dag("other")]
    add_session_run(monitor.airflow)
    monitor.poll(SIX_PM + (limit - 1) * MINUTES)
    assert not is_late(monitor)
    monitor.poll(SIX_PM + (limit + 1) * MINUTES)
    [alert] = monitor.broadcasts()
    assert f"it has not finished {limit} min after 18:00" in alert.text


def test_other_dags_are_late_after_the_setting(monitor: MonitorHarness) -> None:
    monitor.airflow.dags = [dag("market_daily"), dag("other", tags=("late:240",))]
    add_session_run(monitor.airflow)
    monitor.airflow.add_run("manual__1", at=SIX_PM, dag_id="other")
    monitor.poll(SIX_PM + 61 * MINUTES)
    [alert] = monitor.broadcasts()
    assert "*Thu 15 Jan 2026* is late" in alert.text


@pytest.mark.parametrize("tag", ["latest", "late-2024", "late2", "late_night", "translate:60"])
def test_a_tag_that_only_begins_alike_is_no_incident(monitor: MonitorHarness, tag: str) -> None:
    monitor.airflow.dags = [dag("market_daily", tags=(tag,))]
    for minutes in (1, 2):
        monitor.poll(SIX_PM + minutes * MINUTES)
    assert not [message for message in monitor.channel() if "LATE_MINUTES" in message.text]


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        (("late:soon",), "the invalid tag 'late:soon'"),
        (("late:",), "the invalid tag 'late:'"),
        (("late:0",), "the invalid tag 'late:0'"),
        (("late:-5",), "the invalid tag 'late:-5'"),
        (("late:999999999999999999",), "the invalid tag 'late:999999999999999999'"),
        (("late:1e3",), "the invalid tag 'late:1e3'"),
        (("late:４０",), "the invalid tag 'late:４０'"),
        (("Late:60",), "the invalid tag 'Late:60'"),
        ((" late: 60",), "the invalid tag ' late: 60'"),
        (("late=60",), "the invalid tag 'late=60'"),
        (("late:30", "late:240"), "more than one tag for its lateness (late:240, late:30)"),
        (("late:<!channel>",), "the invalid tag 'late:&lt;!channel&gt;'"),
    ],
)
def test_an_invalid_tag_is_one_sentence_and_the_setting_applies(
    monitor: MonitorHarness, tags: tuple[str, ...], named: str
) -> None:
    monitor.airflow.dags = [dag("market_daily", tags=tags)]
    add_session_run(monitor.airflow)
    for minutes in (1, 2, 61):
        monitor.poll(SIX_PM + minutes * MINUTES)
    [incident] = [message for message in monitor.channel() if "LATE_MINUTES" in message.text]
    assert incident.text == f":red_circle: `market_daily` has {named}, so its runs are late after LATE_MINUTES (60)"
    assert "such as `late:240`, and deploy" in str(incident.blocks)
    assert is_late(monitor)
    monitor.airflow.dags = [dag("market_daily", tags=("late:90",))]
    for minutes in (62, 63):
        monitor.poll(SIX_PM + minutes * MINUTES)
    assert incident.text.startswith(":white_check_mark: Resolved")


@pytest.mark.parametrize("tag", ["latest", "late-binding", "template:5", "translate:3", "late"])
def test_a_tag_of_another_meaning_is_no_limit(monitor: MonitorHarness, tag: str) -> None:
    parsed = parse_dag(dag("market_daily", tags=(tag,)))
    assert (parsed.late_after, parsed.late_tag_error) == (None, "")


def test_a_paused_dag_is_reported_after_its_own_limit(monitor: MonitorHarness) -> None:
    monitor.airflow.dags = [dag("market_daily", next_run_after=SIX_PM, is_paused=True, tags=("late:240",))]
    monitor.poll(SIX_PM + 239 * MINUTES)
    assert monitor.first_lines() == []
    monitor.poll(SIX_PM + 241 * MINUTES)
    assert "is paused" in monitor.first_lines()[0]


def test_the_metric_of_lateness_uses_the_dags_limit() -> None:
    parsed = parse_dag(dag("market_daily", tags=("late:240",)))
    run = Run("market_daily", RUN_ID, "scheduled", "running", SIX_PM, SIX_PM, SIX_PM, SIX_PM)
    thresholds, now = Thresholds().with_dags([parsed]), SIX_PM + 250 * MINUTES
    assert late_seconds(parsed, [run], now, thresholds) == 10 * 60
    assert late_seconds(parsed, [run], now, Thresholds()) == 190 * 60
