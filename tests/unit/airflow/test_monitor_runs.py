"""Runs, failures, retries and backfills, as the channel shows them."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from step_contract.facts import DecisionFacts, HeadlinesFacts

from .monitor_harness import PRICES, RUN_ID, SIX_PM, MonitorHarness, add_session_run, monitor

__all__ = ["monitor"]


def test_a_run_is_one_message_that_is_edited_and_a_reply_at_its_end(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "deferred", at=SIX_PM, trigger={"triggerer_id": 1})
    monitor.poll()
    assert monitor.first_lines() == [":large_blue_circle: *Thu 15 Jan 2026*  `fetch_prices` …"]
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "fetch_prices", PRICES)
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.poll(SIX_PM + timedelta(seconds=30))
    assert monitor.first_lines() == [":large_green_circle: *Thu 15 Jan 2026*  closed at 4,797.55 (+1.59%)"] * 2
    assert [message.is_reply for message in monitor.channel()] == [False, True]
    assert (len(monitor.slack.calls("chat.postMessage")), len(monitor.slack.calls("chat.update"))) == (2, 1)


@pytest.mark.parametrize(
    ("state", "reason", "line"),
    [
        ("closed", "Lunar New Year's Day", ":white_circle: *Thu 15 Jan 2026*  closed: Lunar New Year's Day"),
        ("suspect", "no bar", ":large_orange_circle: *Thu 15 Jan 2026*  suspect: no bar"),
    ],
)
def test_a_day_without_a_session_shows_the_reason(monitor: MonitorHarness, state: str, reason: str, line: str) -> None:
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.airflow.add_task(RUN_ID, "decide", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "decide", DecisionFacts(state, reason, "2026-01-15").to_facts())
    monitor.poll()
    assert monitor.first_lines()[0] == line
    alerts = [message for message in monitor.channel() if message.broadcast]
    assert len(alerts) == (state == "suspect")
    assert all("overrides.csv" in json.dumps(alert.blocks) for alert in alerts)


def test_headlines_that_no_feed_holds_are_not_shown_as_none(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.airflow.add_task(RUN_ID, "fetch_headlines", "success", at=SIX_PM)
    gap = "economy: its oldest entry is of 2026-11-28"
    facts = HeadlinesFacts("2026-01-15", 0, 1, availability="unavailable", uncovered=1, incomplete_feeds=gap)
    monitor.airflow.add_result(RUN_ID, "fetch_headlines", facts.to_facts())
    monitor.poll()
    assert monitor.first_lines()[0] == ":large_green_circle: *Thu 15 Jan 2026*  headlines: not available for this session"
    [reply] = [message for message in monitor.messages() if message.is_reply]
    assert not reply.broadcast and reply.text == f"`fetch_headlines`: {gap}"


def test_prices_come_first_in_the_line_even_if_the_headlines_started_first(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.airflow.add_task(RUN_ID, "fetch_headlines", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "fetch_headlines", HeadlinesFacts("2026-01-15", 3, 1).to_facts())
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "success", at=SIX_PM + timedelta(milliseconds=20))
    monitor.airflow.add_result(RUN_ID, "fetch_prices", PRICES)
    monitor.poll(SIX_PM + timedelta(seconds=30))
    assert monitor.first_lines()[0].endswith("*Thu 15 Jan 2026*  closed at 4,797.55 (+1.59%) · 3 headlines")


def test_a_failure_is_broadcast_once_with_reason_advice_and_links(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "failed", at=SIX_PM)
    monitor.airflow.add_task(RUN_ID, "train", "upstream_failed", at=SIX_PM)
    monitor.record_failure("fetch_prices", reason="fetch-prices: line 11: 'x' is <no> number")
    for seconds in (0, 50, 100):
        monitor.poll(SIX_PM + timedelta(seconds=seconds))
    root, alert = monitor.channel()
    assert root.text == ":red_circle: *Thu 15 Jan 2026*  `fetch_prices` failed: invalid data"
    assert alert.broadcast and alert.thread_ts == root.ts
    shown = json.dumps(alert.blocks)
    for part in (
        "&lt;no&gt; number",
        "*What to do:* Check it.",
        "attempt 1 of 1",
        "tasks/fetch_prices?try_number=1|log>",
    ):
        assert part in shown
    assert monitor.slack.calls("chat.update") == []


def test_repeated_retries_are_one_reply_and_the_failure_one_broadcast(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    for number in range(1, 12):
        monitor.airflow.add_task(RUN_ID, "fetch_prices", "up_for_retry", at=SIX_PM, try_number=number)
        next_at = (SIX_PM + timedelta(minutes=30 * number)).isoformat()
        monitor.record_failure(
            "fetch_prices",
            number,
            will_retry=True,
            meaning="source unavailable",
            attempt=number,
            max_attempts=12,
            next_attempt_at=next_at,
        )
        monitor.poll(SIX_PM + timedelta(minutes=number))
    assert monitor.first_lines() == [
        ":large_yellow_circle: *Thu 15 Jan 2026*  `fetch_prices` will be retried at 23:30: source unavailable"
    ]
    [reply] = [message for message in monitor.messages() if message.is_reply]
    assert not reply.broadcast and "attempt 11 of 12" in json.dumps(reply.blocks)
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "failed", at=SIX_PM, try_number=12)
    monitor.airflow.add_run(RUN_ID, "failed", at=SIX_PM, seconds=20 * 60)
    monitor.record_failure("fetch_prices", 12, meaning="source unavailable", attempt=12, max_attempts=12)
    monitor.poll(SIX_PM + timedelta(minutes=20))
    assert sum(message.broadcast for message in monitor.messages()) == 1


def test_a_failure_without_a_recorded_reason_is_reported(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "branch", "failed", at=SIX_PM)
    monitor.poll(SIX_PM + timedelta(seconds=5))
    assert not monitor.replies()  # the failure may still be recorded
    monitor.poll(SIX_PM + timedelta(seconds=60))
    [alert] = monitor.broadcasts()
    assert "No failure reason recorded" in json.dumps(alert.blocks)


def test_a_retry_that_cannot_help_is_broadcast(monitor: MonitorHarness) -> None:
    """As when the worker that sets the task's state is lost: only Airflow's own number of retries applies then."""
    add_session_run(monitor.airflow)
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "up_for_retry", at=SIX_PM)
    monitor.record_failure("fetch_prices", will_retry=True, permanent=True)
    monitor.poll()
    [alert] = monitor.broadcasts()
    assert "`fetch_prices` will be retried" in alert.text


def test_a_second_failure_is_broadcast_and_both_show_the_later_success(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM, try_number=1)
    monitor.record_failure("train", 1)
    monitor.poll()
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM, try_number=2)
    monitor.record_failure("train", 2)
    monitor.poll(SIX_PM + timedelta(seconds=10))
    monitor.airflow.add_task(RUN_ID, "train", "success", at=SIX_PM, try_number=3)
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.poll(SIX_PM + timedelta(seconds=20))
    alerts = monitor.alerts()
    assert len(alerts) == 2
    assert all("Current state: success (attempt 3)" in json.dumps(alert.blocks) for alert in alerts)
    assert monitor.first_lines()[0].startswith(":large_green_circle:")


def test_a_failure_that_a_person_marks_as_success_keeps_its_reason(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
    monitor.record_failure("train", reason="line 11 is no number")
    monitor.poll()
    monitor.airflow.add_task(RUN_ID, "train", "success", at=SIX_PM)
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.poll(SIX_PM + timedelta(seconds=20))
    [alert] = monitor.alerts()
    shown = json.dumps(alert.blocks)
    assert "Current state: success (attempt 1)" in shown and "line 11 is no number" in shown


def test_a_late_run_is_broadcast_once_with_its_unfinished_tasks(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "running", at=SIX_PM)
    for minutes in (59, 61, 62):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    late = [message for message in monitor.messages() if "is late" in message.text]
    assert len(late) == 1 and late[0].broadcast and "`fetch_prices` (running)" in json.dumps(late[0].blocks)


def test_an_orphaned_trigger_is_broadcast_and_marked_as_resolved(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.airflow.add_task(RUN_ID, "train", "deferred", at=SIX_PM, trigger={"triggerer_id": None})
    for minutes in (20, 21, 23, 24):  # the grace period starts when the trigger is first seen orphaned
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
        assert len(monitor.broadcasts()) == (minutes > 22)
    [alert] = monitor.broadcasts()
    assert "no triggerer is running its trigger" in alert.text
    monitor.airflow.add_task(RUN_ID, "train", "deferred", at=SIX_PM, trigger={"triggerer_id": 7})
    for minutes in (25, 26):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    assert alert.text.endswith("_Resolved._") and len(monitor.slack.calls("chat.update")) == 1


def test_a_backfill_is_one_message_with_one_reply_for_failures(monitor: MonitorHarness) -> None:
    at = SIX_PM + timedelta(seconds=5)
    monitor.airflow.backfills = [
        {"id": 3, "dag_id": "market_daily", "from_date": "2026-01-05T00:00:00Z", "to_date": "2026-01-30T00:00:00Z"}
        | {"created_at": SIX_PM.isoformat(), "completed_at": None}
    ]
    for number in range(5, 30):
        state = "failed" if number in (7, 9) else "success"
        day, logical_date = f"2026-01-{number:02}", f"2026-01-{number:02}T09:00:00+00:00"
        monitor.airflow.add_run(f"session__{day}", state, at=at, logical_date=logical_date, run_type="backfill")
        monitor.poll(at)
    assert [message.broadcast for message in monitor.channel()] == [False, True]
    root, alert = monitor.channel()
    assert "*Backfill of market_daily, Mon 5 Jan 2026 to Fri 30 Jan 2026*  23 of 25 succeeded, 2 failed" in root.text
    assert "2026-01-07" in alert.text and "2026-01-09" in alert.text


def test_the_end_of_a_backfill_notifies_once(monitor: MonitorHarness) -> None:
    backfill = {"id": 4, "dag_id": "market_daily", "from_date": "2026-01-01T00:00:00Z", "to_date": "2026-02-28T00:00:00Z"}
    monitor.airflow.backfills = [backfill | {"created_at": SIX_PM.isoformat(), "completed_at": None}]
    dates = ("2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00")
    for seconds, (first, second) in enumerate((("running", "queued"), ("success", "running"), ("success", "success"))):
        at = SIX_PM + timedelta(seconds=5 * (1 + seconds))
        for date, state in zip(dates, (first, second), strict=True):
            monitor.airflow.add_run(f"backfill__{date}", state, at=at, logical_date=date, run_type="backfill")
        monitor.poll(at)
    assert [message.broadcast for message in monitor.channel()] == [False]
    monitor.airflow.backfills = [backfill | {"created_at": SIX_PM.isoformat(), "completed_at": at.isoformat()}]
    for seconds in (20, 30):
        monitor.poll(SIX_PM + timedelta(seconds=seconds))
    assert [message.broadcast for message in monitor.channel()] == [False, True]
    assert "2 of 2 succeeded" in monitor.channel()[1].text


def test_a_dag_tagged_quiet_is_not_reported(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run("smoke__1", "failed", at=SIX_PM, dag_id="market_smoke")
    monitor.poll()
    assert monitor.first_lines() == []


def test_runs_before_the_first_monitor_are_not_reported(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run("session__2026-01-14", "failed", at=SIX_PM - timedelta(days=1))
    monitor.poll()
    assert monitor.first_lines() == []


def test_a_deleted_run_is_shown_as_deleted(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.poll()
    monitor.airflow.runs = []
    for _ in range(2):
        monitor.poll()
    assert monitor.first_lines() == [":black_circle: *Thu 15 Jan 2026*  deleted in Airflow before it finished"]


def test_a_late_run_that_fails_is_broadcast_as_late_and_as_failed(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.airflow.add_task(RUN_ID, "train", "running", at=SIX_PM)
    monitor.poll(SIX_PM + timedelta(minutes=61))
    monitor.airflow.add_run(RUN_ID, "failed", at=SIX_PM, seconds=70 * 60)
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
    monitor.record_failure("train")
    for minutes in (71, 72):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    assert ["is late" in message.text for message in monitor.broadcasts()] == [True, False]


def test_a_manual_run_is_not_late_before_its_logical_date(monitor: MonitorHarness) -> None:
    morning = SIX_PM - timedelta(hours=7, minutes=30)
    monitor.airflow.add_run("manual__1", at=morning, logical_date=SIX_PM.isoformat(), run_type="manual")
    monitor.poll(SIX_PM - timedelta(minutes=5))
    assert not [message for message in monitor.messages() if "is late" in message.text]
    monitor.poll(SIX_PM + timedelta(minutes=61))
    assert [message for message in monitor.messages() if "is late" in message.text]


def test_a_failed_run_cleared_the_next_morning_is_not_late(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="failed")
    monitor.poll(SIX_PM)
    morning = SIX_PM + timedelta(hours=14)
    monitor.airflow.add_run(RUN_ID, "running", at=morning, run_after=SIX_PM.isoformat(), updated_at=morning.isoformat())
    monitor.poll(morning + timedelta(minutes=5))
    assert "is late" not in str([message.text for message in monitor.messages()])
