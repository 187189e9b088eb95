"""What the channel shows for runs, failures, incidents and backfills, and when Slack or the object store fails."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from step_contract.commit import Content, commit

from .fake_airflow_api import dag
from .monitor_harness import PRICES, RUN_ID, SIX_PM, MonitorHarness, add_session_run, monitor

__all__ = ["monitor"]


def test_a_run_is_one_message_that_is_edited(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "deferred", at=SIX_PM, trigger={"triggerer_id": 1})
    monitor.poll()
    assert monitor.first_lines() == [":large_blue_circle: *Thu 15 Jan 2026*  `fetch_prices` …"]
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "fetch_prices", PRICES)
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.poll(SIX_PM + timedelta(seconds=30))
    assert monitor.first_lines() == [":large_green_circle: *Thu 15 Jan 2026*  closed at 4,797.55 (+1.59%)"]
    assert (len(monitor.slack.calls("chat.postMessage")), len(monitor.slack.calls("chat.update"))) == (1, 1)


def test_an_unchanged_run_is_posted_once_even_after_a_restart(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="success")
    for minute in range(3):
        monitor.poll(SIX_PM + timedelta(seconds=minute))
    monitor.restart(SIX_PM + timedelta(minutes=2))
    monitor.poll(SIX_PM + timedelta(minutes=2))
    assert [call["method"] for call in monitor.slack.received] == ["chat.postMessage"]


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
    monitor.airflow.add_result(RUN_ID, "decide", {"state": state, "reason": reason, "summary": f"{state}: {reason}"})
    monitor.poll()
    assert monitor.first_lines()[0] == line
    alerts = [message for message in monitor.channel() if message.broadcast]
    assert len(alerts) == (state == "suspect")
    assert all("overrides.csv" in json.dumps(alert.blocks) for alert in alerts)


def test_a_failure_is_broadcast_once_with_reason_advice_and_links(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "failed", at=SIX_PM)
    monitor.airflow.add_task(RUN_ID, "train", "upstream_failed", at=SIX_PM)
    monitor.record_failure("fetch_prices", why="fetch-prices: line 11: 'x' is <no> number")
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
            "fetch_prices", number, again=True, meaning="source unavailable", times=number, tries=12, next_at=next_at
        )
        monitor.poll(SIX_PM + timedelta(minutes=number))
    assert monitor.first_lines() == [
        ":large_yellow_circle: *Thu 15 Jan 2026*  `fetch_prices` will be retried at 23:30: source unavailable"
    ]
    [reply] = [message for message in monitor.messages() if message.is_reply]
    assert not reply.broadcast and "attempt 11 of 12" in json.dumps(reply.blocks)
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "failed", at=SIX_PM, try_number=12)
    monitor.airflow.add_run(RUN_ID, "failed", at=SIX_PM, seconds=20 * 60)
    monitor.record_failure("fetch_prices", 12, meaning="source unavailable", times=12, tries=12)
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
    monitor.record_failure("fetch_prices", again=True, final=True)
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
    alerts = monitor.broadcasts()
    assert len(alerts) == 2
    assert all("Current state: success (attempt 3)" in json.dumps(alert.blocks) for alert in alerts)
    assert monitor.first_lines()[0].startswith(":large_green_circle:")


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


def test_messages_missed_during_a_slack_outage_are_delivered_later(monitor: MonitorHarness) -> None:
    monitor.slack.down = True
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
    monitor.record_failure("train")
    for hours in range(5):
        monitor.poll(SIX_PM + timedelta(hours=hours))
    monitor.restart(SIX_PM + timedelta(hours=6))
    monitor.poll(SIX_PM + timedelta(hours=6))
    monitor.slack.down = False
    monitor.expire_claims()
    for hours in (7, 8):
        monitor.poll(SIX_PM + timedelta(hours=hours))
    assert [message.broadcast for message in monitor.channel()] == [False, True]


@pytest.mark.parametrize(
    "fault", [{"drop": True}, {"status": 503}, {"status": 429, "retry_after": 3}, {"error": "internal_error"}]
)
@pytest.mark.parametrize("restart", [False, True], ids=["same monitor", "restarted"])
def test_a_lost_response_duplicates_no_message(monitor: MonitorHarness, fault: dict[str, object], restart: bool) -> None:
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
    monitor.record_failure("train")
    started = datetime.now(UTC)
    for _ in range(3):
        monitor.slack.faults({"method": "chat.postMessage", "times": 1, **fault})
        monitor.poll(SIX_PM)
        if restart:
            monitor.restart(SIX_PM)
            monitor.expire_claims()
        monitor.poll(SIX_PM)
    assert [message.broadcast for message in monitor.channel()] == [False, True]
    assert datetime.now(UTC) - started < timedelta(seconds=30)


def test_two_monitors_at_once_post_nothing_twice(monitor: MonitorHarness) -> None:
    first = monitor.reconciler
    monitor.restart(SIX_PM)
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
    monitor.record_failure("train")
    for _ in range(3):
        first.poll(SIX_PM)
        monitor.poll(SIX_PM)
    assert len(monitor.slack.calls("chat.postMessage")) == 2


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


def test_a_dag_tagged_quiet_is_not_reported(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run("smoke__1", "failed", at=SIX_PM, dag_id="market_smoke")
    monitor.poll()
    assert monitor.first_lines() == []


def test_runs_before_the_first_monitor_are_not_reported(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run("session__2026-01-14", "failed", at=SIX_PM - timedelta(days=1))
    monitor.poll()
    assert monitor.first_lines() == []


def test_an_unavailable_object_store_is_reported_and_resolved(monitor: MonitorHarness, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("not a directory")
    for minutes in (0, 1, 2, 3):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    [line] = monitor.first_lines()
    assert line.startswith(":red_circle: The object store is unavailable: ")
    (tmp_path / "artifacts").unlink()
    for minutes in (4, 5):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    assert [line.startswith(":white_check_mark: Resolved") for line in monitor.first_lines()] == [True]


def test_failures_are_reported_while_the_object_store_is_unavailable(monitor: MonitorHarness, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("not a directory")
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
    for seconds in (0, 60, 70):
        monitor.poll(SIX_PM + timedelta(seconds=seconds))
    assert [message.broadcast for message in monitor.channel()] == [False, True]


def test_a_rejected_message_is_posted_as_plain_text(monitor: MonitorHarness) -> None:
    monitor.slack.faults({"method": "chat.postMessage", "times": 1, "error": "invalid_blocks"})
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
    monitor.record_failure("train")
    for _ in range(2):
        monitor.poll()
    root, alert = monitor.channel()
    assert root.text.startswith(":red_circle: *Thu 15 Jan 2026*") and alert.broadcast


def test_a_message_deleted_by_a_person_is_not_posted_again(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.poll()
    monitor.slack.faults({"method": "chat.update", "times": 1, "error": "message_not_found"})
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    for _ in range(3):
        monitor.poll()
    assert len(monitor.slack.calls("chat.postMessage")) == len(monitor.slack.calls("chat.update")) == 1


def add_run_with_plot(monitor: MonitorHarness, *, damaged: bool = False) -> None:
    content = Content({"forecast.png": b"\x89PNG a picture"}, rows=0, schema_version=1, facts={})
    committed = commit(monitor.store, "plots/x", step="plot", session=date(2026, 1, 15), inputs={}, content=content)
    if damaged:
        [picture] = Path(monitor.store.root.removeprefix("file://")).rglob("*.png")
        picture.write_bytes(b"something else")
    add_session_run(monitor.airflow, state="success")
    monitor.airflow.add_task(RUN_ID, "plot", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "plot", {"summary": "plotted"}, committed.uri, picture=True)


@pytest.mark.parametrize("fault", [None, {"method": "files.completeUploadExternal", "times": 1, "drop": True}])
def test_the_plot_is_uploaded_once_and_unchanged(monitor: MonitorHarness, fault: dict[str, object] | None) -> None:
    add_run_with_plot(monitor)
    if fault:
        monitor.slack.faults(fault)
    for _ in range(3):
        monitor.poll()
    [message] = [message for message in monitor.messages() if message.files]
    assert message.is_reply
    assert monitor.slack.workspace.content(message.files[0]) == b"\x89PNG a picture"


def test_a_damaged_plot_is_not_uploaded(monitor: MonitorHarness) -> None:
    add_run_with_plot(monitor, damaged=True)
    for _ in range(2):
        monitor.poll()
    assert [message for message in monitor.messages() if message.files] == [] and len(monitor.first_lines()) == 1


@pytest.mark.parametrize("error", ["invalid_auth", "missing_scope", "channel_not_found", "not_in_channel", "is_archived"])
def test_a_misconfigured_slack_is_logged_and_retried(
    monitor: MonitorHarness, error: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor.slack.faults({"method": "chat.postMessage", "times": 2, "error": error})
    add_session_run(monitor.airflow)
    for _ in range(4):
        monitor.poll()
    assert len(monitor.first_lines()) == 1
    assert "make slack-test" in caplog.text + capsys.readouterr().out


def test_without_a_connection_each_message_is_logged_once(
    monitor: MonitorHarness,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_CONN")
    caplog.set_level("INFO")
    add_session_run(monitor.airflow)
    for _ in range(3):
        monitor.poll()
    assert (caplog.text + capsys.readouterr().out).count("Not sent to #workflows") == 1


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


def test_a_new_channel_receives_only_later_runs(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="success")
    for minutes in (0, 8):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    monitor.restart(SIX_PM + timedelta(minutes=9), "another")
    monitor.airflow.add_run("session__2026-01-16", at=SIX_PM + timedelta(minutes=9), logical_date="2026-01-16T09:00:00+00:00")
    monitor.poll(SIX_PM + timedelta(minutes=9))
    assert [message.text.split("*")[1] for message in monitor.slack.channel("another")] == ["Fri 16 Jan 2026"]
