"""A poll costs what has changed since the previous one, and no change is missed for long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from airflow_monitor.run_tracker import RECONCILE_INTERVAL
from slack_simulator.simulator import Simulator
from step_contract.store import Store

from .fake_airflow_api import FakeAirflowApi, serve_airflow_api
from .monitor_harness import PRICES, RUN_ID, SIX_PM, MonitorHarness, add_session_run, monitor

__all__ = ["monitor"]
POLL = timedelta(seconds=10)
MAX_REQUESTS = 10


class CountingStore(Store):
    """A store that counts how often it is listed."""

    lists = 0

    def list(self, path: str) -> list[str]:
        self.lists += 1
        return super().list(path)


class BusyHarness(MonitorHarness):
    """A monitor whose store counts."""

    store: CountingStore


@pytest.fixture
def busy(tmp_path: Path, slack: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[BusyHarness]:
    """A monitor that has polled an Airflow with a hundred active runs, some with retries, until nothing changed."""
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    with serve_airflow_api() as airflow:
        for number in range(100):
            add_active_run(airflow, f"run{number}", retried=number % 4 == 0)
        harness = BusyHarness(airflow, slack, CountingStore(f"file://{tmp_path}/artifacts"))
        for number in (0, 1, 5, 24):
            poll(harness, SIX_PM + number * POLL)
        yield harness


def add_active_run(airflow: FakeAirflowApi, run_id: str, *, retried: bool = False) -> None:
    airflow.add_run(run_id, at=SIX_PM)
    airflow.add_task(run_id, "decide", "success", at=SIX_PM)
    airflow.add_result(run_id, "decide", {"summary": "decided"}, "file:///x/decisions/manifest.json")
    airflow.add_task(run_id, "fetch", "deferred", at=SIX_PM, try_number=1 + retried, trigger={"triggerer_id": 1})
    airflow.add_task(run_id, "train", "", at=SIX_PM)


def poll(monitor: MonitorHarness, now: datetime) -> int:
    """Poll as the scheduler examines each running run all the time; return the number of requests."""
    for run in monitor.airflow.runs:
        if run["state"] == "running":
            run["updated_at"] = now.isoformat()
    before = len(monitor.airflow.requests)
    monitor.poll(now)
    return len(monitor.airflow.requests) - before


@pytest.mark.slow
def test_a_hundred_unchanged_runs_cost_ten_requests_and_no_list(busy: BusyHarness) -> None:
    lists = busy.store.lists
    requests = [poll(busy, SIX_PM + timedelta(minutes=4, seconds=10 * number)) for number in range(6)]
    assert max(requests) <= MAX_REQUESTS, requests
    assert busy.store.lists == lists
    requests = [poll(busy, SIX_PM + timedelta(minutes=6, seconds=10 * number)) for number in range(10)]
    assert max(requests) <= MAX_REQUESTS, requests
    # Two runs a poll are read again, and the failures of every fourth one.
    assert 4 <= busy.store.lists - lists <= 6


@pytest.mark.slow
def test_a_changed_task_costs_only_its_result(busy: BusyHarness) -> None:
    busy.airflow.add_task("run1", "fetch", "success", at=SIX_PM)
    busy.airflow.add_result("run1", "fetch", PRICES, "file:///x/prices/manifest.json")
    now, lists, first = SIX_PM + timedelta(minutes=4, seconds=10), busy.store.lists, len(busy.airflow.requests)
    poll(busy, now)
    extra = [path for path in busy.airflow.requests[first:] if "run1/" in path]
    path = "/dags/market_daily/dagRuns/run1/taskInstances/"
    keys = ("facts", "return_value", "_link_PictureLink")
    assert extra == [f"{path}~/xcomEntries", *(f"{path}fetch/xcomEntries/{key}" for key in keys)]
    assert busy.store.lists == lists
    assert any("closed at 4,797.55" in message.text for message in busy.messages())
    busy.airflow.add_task("run2", "fetch", "failed", at=SIX_PM)
    poll(busy, now + POLL)
    poll(busy, now + 2 * POLL)
    assert busy.store.lists - lists == 2  # until the failure is recorded
    assert any("`fetch` failed" in message.text for message in busy.messages())


@pytest.mark.slow
def test_a_backfill_of_five_hundred_runs_costs_ten_requests(monitor: MonitorHarness) -> None:
    airflow = monitor.airflow
    airflow.backfills = [
        {"id": 3, "dag_id": "market_daily", "from_date": "2024-01-01T00:00:00Z", "to_date": "2025-12-31T00:00:00Z"}
        | {"created_at": SIX_PM.isoformat(), "completed_at": None}
    ]
    for number in range(500):
        at, state = datetime.fromisoformat("2024-01-01T09:00:00+00:00") + timedelta(days=number), "queued"
        airflow.add_run(f"session__{number}", state, at=SIX_PM, run_type="backfill", logical_date=at.isoformat())
    poll(monitor, SIX_PM)
    for number in range(8):
        for run_id in (f"session__{2 * number}", f"session__{2 * number + 1}"):
            run = next(run for run in airflow.runs if run["dag_run_id"] == run_id)
            run |= {"state": "failed" if number == 3 else "success", "updated_at": airflow.now.isoformat()}
        now = SIX_PM + timedelta(minutes=3, seconds=10 * (number + 1))
        assert poll(monitor, now) <= MAX_REQUESTS
    assert "14 of 500 succeeded, 2 failed, 484 queued" in monitor.first_lines()[0]


@pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_clock_that_differs_from_airflows_hides_no_change(monitor: MonitorHarness, skew: timedelta) -> None:
    add_session_run(monitor.airflow)
    for number in range(6):
        monitor.poll(SIX_PM + number * POLL, airflow_now=SIX_PM + number * POLL + skew)
        if number == 3:
            monitor.airflow.add_task(RUN_ID, "fetch_prices", "running", at=SIX_PM)
    assert "`fetch_prices` …" in monitor.first_lines()[0]


def test_a_change_committed_late_is_found_by_the_reconciliation(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.poll(SIX_PM)
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "running", at=SIX_PM, updated_at="2026-01-15T08:00:00+00:00")
    monitor.poll(SIX_PM + POLL)
    assert "fetch_prices" not in monitor.first_lines()[0]
    monitor.poll(SIX_PM + RECONCILE_INTERVAL)
    assert "`fetch_prices` …" in monitor.first_lines()[0]


@pytest.mark.parametrize("path", ["dagRuns", "~/dagRuns/~/taskInstances", f"{RUN_ID}/taskInstances", "xcomEntries"])
def test_a_poll_that_fails_midway_loses_no_change(monitor: MonitorHarness, path: str) -> None:
    add_session_run(monitor.airflow)
    monitor.poll(SIX_PM)
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "fetch_prices", PRICES)
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.airflow.failing_paths = {path}
    monitor.poll(SIX_PM + POLL)
    monitor.airflow.failing_paths = set()
    monitor.poll(SIX_PM + 2 * POLL)
    assert monitor.run_lines() == [":large_green_circle: *Thu 15 Jan 2026*  closed at 4,797.55 (+1.59%)"]


def test_a_deleted_run_is_noticed_although_another_was_created(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.poll(SIX_PM)
    monitor.airflow.runs = []
    monitor.airflow.add_run("another", at=SIX_PM + POLL)
    monitor.poll(SIX_PM + POLL)
    assert [line.split()[0] for line in monitor.first_lines()] == [":black_circle:", ":large_blue_circle:"]


def test_a_finished_run_cleared_hours_later_is_followed(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="success")
    for minutes in (0, 4, 5):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    assert not monitor.reconciler.snapshots.read(SIX_PM + timedelta(minutes=5), SIX_PM + timedelta(minutes=5)).runs
    later = SIX_PM + timedelta(hours=3)
    monitor.airflow.add_run(RUN_ID, "running", at=later)
    monitor.airflow.now = later
    monitor.airflow.add_task(RUN_ID, "decide", "running", at=later, try_number=2)
    monitor.poll(later)
    assert monitor.first_lines() == [":large_blue_circle: *Thu 15 Jan 2026*  `decide` …"]


def test_an_expanded_task_replaces_the_one_without_an_index(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.airflow.add_task(RUN_ID, "m", "queued", at=SIX_PM)
    monitor.poll(SIX_PM)
    monitor.airflow.task_instances[RUN_ID].pop()
    for number in range(3):
        monitor.airflow.add_task(RUN_ID, "m", "running", at=SIX_PM, map_index=number)
    monitor.poll(SIX_PM + POLL)
    assert "  `m[0]`, `m[1]`, `m[2]` …" in monitor.first_lines()[0]


def test_a_link_that_a_worker_stores_late_is_found(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run(RUN_ID, at=SIX_PM)
    monitor.airflow.add_task(RUN_ID, "plot", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "plot", {"summary": "plotted"}, "file:///x/manifest.json", picture=True)
    link = monitor.airflow.xcoms.pop((RUN_ID, "plot", "_link_PictureLink", -1))
    monitor.poll(SIX_PM)
    monitor.airflow.xcoms[RUN_ID, "plot", "_link_PictureLink", -1] = link
    for number in (1, 3):
        [run] = monitor.reconciler.snapshots.read(SIX_PM, SIX_PM + number * POLL).runs
    assert run.task_instances[0].has_picture


def test_rows_that_change_while_pages_are_read_are_not_skipped(monitor: MonitorHarness) -> None:
    monitor.airflow.page_limit = 5
    for number in range(12):
        monitor.airflow.add_run(f"run{number}", at=SIX_PM + timedelta(seconds=number))
    monitor.poll(SIX_PM)

    unfinished = list(range(12))

    def finish_a_run() -> None:
        if unfinished:
            monitor.airflow.add_run(f"run{unfinished.pop(0)}", "success", at=SIX_PM, seconds=60)

    monitor.airflow.before_page = finish_a_run
    for number in range(6, 12):
        monitor.poll(SIX_PM + number * POLL)
    assert [line.split()[0] for line in monitor.run_lines()] == [":large_green_circle:"] * 12
