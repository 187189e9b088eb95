"""Incidents of Airflow and of the object store, as the channel shows them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from .fake_airflow_api import dag
from .monitor_harness import RUN_ID, SIX_PM, MonitorHarness, add_session_run, monitor

__all__ = ["monitor"]


def test_incidents_of_airflow_are_reported_and_resolved(monitor: MonitorHarness) -> None:
    monitor.airflow.health["scheduler"]["status"] = "unhealthy"
    monitor.airflow.import_errors = [{"filename": "market_daily.py", "stack_trace": "Traceback\n  File …\nNameError: name 'x'"}]
    monitor.airflow.dags = [dag("market_daily", next_run_after=SIX_PM), dag("by_hand", is_stale=True, has_import_errors=True)]
    for minutes in (1, 3, 6, 7):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    lines = monitor.first_lines()
    expected = ("scheduler is unhealthy", "market_daily.py` cannot be imported", "`market_daily` was due at 18:00")
    assert len(lines) == 3 and all(any(text in line for line in lines) for text in expected)
    assert "NameError: name 'x'" in lines[0] + lines[1] and "File" not in lines[0] + lines[1]
    monitor.restart(SIX_PM + timedelta(minutes=8))
    monitor.airflow.health["scheduler"]["status"] = "healthy"
    monitor.airflow.import_errors, monitor.airflow.dags = [], []
    for minutes in (8, 9):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    lines = monitor.first_lines()
    assert len(lines) == 3 and all(line.startswith(":white_check_mark: Resolved") for line in lines)


def test_a_component_that_is_healthy_for_a_moment_is_one_incident(monitor: MonitorHarness) -> None:
    for seconds in range(0, 400, 10):
        # From 180 to 210: its first heartbeat after a restart, followed by none.
        is_healthy = 180 <= seconds < 220 or seconds >= 300
        monitor.airflow.health["triggerer"]["status"] = "healthy" if is_healthy else "unhealthy"
        monitor.poll(SIX_PM + timedelta(seconds=seconds))
        if seconds == 290:
            [line] = monitor.first_lines()
            assert line.startswith(":red_circle: ")
    [line] = monitor.first_lines()
    assert line.startswith(":white_check_mark: Resolved at 18:05 ")


def test_interruptions_restart_the_grace_period_of_an_incident(monitor: MonitorHarness) -> None:
    for seconds in range(0, 600, 10):
        monitor.airflow.health["triggerer"]["status"] = "unhealthy" if seconds % 120 else "healthy"
        monitor.poll(SIX_PM + timedelta(seconds=seconds))
    assert not monitor.first_lines()


def test_paused_stale_and_missing_dags_are_reported(monitor: MonitorHarness) -> None:
    monitor.airflow.dags = [dag("market_daily", next_run_after=SIX_PM, is_paused=True), dag("market_history", is_stale=True)]
    monitor.poll(SIX_PM + timedelta(minutes=59))
    assert not monitor.first_lines()
    monitor.poll(SIX_PM + timedelta(minutes=62))
    assert monitor.first_lines() == [
        ":red_circle: `market_daily` is paused; a run was due at 18:00 on Thu 15 Jan 2026",
        ":red_circle: `market_history` does not run, as no DAG file defines it any more",
    ]
    monitor.airflow.dags = []
    for minutes in (63, 72, 73):  # both are deleted in the UI, so that no DAG is left
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    assert [line.split(":")[1] for line in monitor.first_lines()] == ["white_check_mark", "white_check_mark", "red_circle"]
    assert "Airflow has no DAGs" in monitor.first_lines()[-1]


def test_an_unavailable_api_is_reported_and_resolves_nothing(monitor: MonitorHarness) -> None:
    monitor.airflow.health["triggerer"]["status"] = "unhealthy"
    for minutes in (0, 3):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    monitor.airflow.down = True
    for minutes in (4, 7, 8):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    assert [line.startswith(":red_circle:") for line in monitor.first_lines()] == [True, True]
    assert "API is unavailable: 503 Service Unavailable" in monitor.first_lines()[1]


def test_an_unavailable_database_is_named(monitor: MonitorHarness) -> None:
    monitor.poll()
    monitor.airflow.health["metadatabase"]["status"] = "unhealthy"
    for minutes in (1, 4):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    [line] = monitor.first_lines()
    assert "cannot reach the metadata database" in line


def test_an_unavailable_object_store_is_reported_and_resolved(monitor: MonitorHarness, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("not a directory")
    for minutes in (0, 1, 2, 3):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    [line] = monitor.first_lines()
    assert line.startswith(":red_circle: The object store is unavailable: ")
    (tmp_path / "artifacts").unlink()
    for minutes in (4, 5, 6):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    assert [line.startswith(":white_check_mark: Resolved") for line in monitor.first_lines()] == [True]


def test_failures_are_reported_while_the_object_store_is_unavailable(monitor: MonitorHarness, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("not a directory")
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
    for seconds in (0, 60, 70):
        monitor.poll(SIX_PM + timedelta(seconds=seconds))
    assert [message.broadcast for message in monitor.channel()] == [False, True]
