"""The end of a run notifies once: a reply that the channel shows too, with the plot on training days."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from airflow_monitor.messages.runs import RunOptions
from slack_simulator.workspace import Message
from step_contract.commit import Content, commit
from step_contract.facts import DecisionFacts

from .monitor_harness import PRICES, RUN_ID, SIX_PM, MonitorHarness, add_session_run, monitor

__all__ = ["monitor"]
PICTURE = b"\x89PNG\r\n\x1a\n a picture"
LINE = ":large_green_circle: *Thu 15 Jan 2026*  closed at 4,797.55 (+1.59%) · not a training day"
SECONDS, MINUTES, HOURS = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
END = SIX_PM + 25 * SECONDS
NO_TRAINING = RunOptions(training_days=("1",))


def start_run(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "running", at=SIX_PM)


def end_run(monitor: MonitorHarness, state: str = "success", at: datetime = SIX_PM) -> None:
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "success", at=at)
    monitor.airflow.add_result(RUN_ID, "fetch_prices", PRICES)
    monitor.airflow.add_task(RUN_ID, "is_training_day", "success", at=at)
    monitor.airflow.add_run(RUN_ID, state, at=at, logical_date=SIX_PM.isoformat())


def add_plot(monitor: MonitorHarness) -> None:
    content = Content({"forecast.png": PICTURE}, rows=0, schema_version=1, facts={})
    plot = commit(monitor.store, "plots/x", step="plot", session=date(2026, 1, 15), inputs={}, content=content)
    monitor.airflow.add_task(RUN_ID, "plot", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "plot", {"summary": "plotted"}, plot.uri, picture=True)


def get_images(monitor: MonitorHarness, message: Message) -> list[bytes | None]:
    files = [block["slack_file"]["id"] for block in message.blocks if block["type"] == "image"]
    return [monitor.slack.workspace.content(file) for file in files]


@pytest.fixture
def running(monitor: MonitorHarness) -> MonitorHarness:
    """A monitor that has reported a running session; its day is not a training day."""
    monitor.options = NO_TRAINING
    monitor.restart(SIX_PM)
    start_run(monitor)
    monitor.poll()
    return monitor


def test_the_end_of_a_run_notifies_once_with_its_line(running: MonitorHarness) -> None:
    end_run(running)
    for seconds in (30, 40, 400):
        running.poll(SIX_PM + seconds * SECONDS)
    running.restart(SIX_PM + 410 * SECONDS)
    running.poll(SIX_PM + 410 * SECONDS)
    root, completion = running.channel()
    assert (root.text, completion.text) == (LINE, LINE)
    assert completion.thread_ts == root.ts and completion.broadcast


def test_a_closed_market_notifies(monitor: MonitorHarness) -> None:
    monitor.options = NO_TRAINING
    monitor.restart(SIX_PM)
    monitor.airflow.add_run(RUN_ID, at=SIX_PM)
    monitor.airflow.add_task(RUN_ID, "decide", "running", at=SIX_PM)
    monitor.poll()
    monitor.airflow.add_task(RUN_ID, "decide", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "decide", DecisionFacts("closed", "New Year's Day", "2026-01-15").to_facts())
    monitor.airflow.add_task(RUN_ID, "is_training_day", "success", at=SIX_PM)
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.poll(END)
    [completion] = monitor.completions()
    assert completion.text == ":white_circle: *Thu 15 Jan 2026*  closed: New Year's Day · not a training day"


def test_a_training_day_is_shown_from_the_start_and_its_plot_at_the_end(monitor: MonitorHarness) -> None:
    start_run(monitor)
    monitor.airflow.add_task(RUN_ID, "is_training_day", "", at=SIX_PM)
    monitor.poll()
    assert monitor.first_lines() == [":large_blue_circle: *Thu 15 Jan 2026*  `fetch_prices` … · training day"]
    end_run(monitor)
    add_plot(monitor)
    for seconds in (30, 40):
        monitor.poll(SIX_PM + seconds * SECONDS)
    [completion] = monitor.completions()
    assert completion.text == LINE.replace("not a ", "") and get_images(monitor, completion) == [PICTURE]
    [upload] = [message for message in monitor.messages() if message.files]
    assert upload.is_reply and not upload.broadcast
    assert not [call for call in monitor.slack.received if call["error"]]


def test_a_picture_that_slack_has_not_processed_is_added_later(monitor: MonitorHarness) -> None:
    start_run(monitor)
    monitor.poll()
    end_run(monitor)
    add_plot(monitor)
    monitor.slack.faults({"method": "chat.postMessage", "error": "invalid_blocks"})
    monitor.poll(END)
    [completion] = monitor.completions()
    assert completion.text.startswith(":large_green_circle:") and not completion.blocks
    monitor.poll(END + 10 * SECONDS)
    assert get_images(monitor, completion) == [PICTURE] and len(monitor.completions()) == 1


@pytest.mark.parametrize(("rejections", "shown"), [(6, True), (40, False)])
def test_a_later_picture_that_slack_has_not_processed_is_added_unless_it_is_never(
    monitor: MonitorHarness, rejections: int, shown: bool
) -> None:
    start_run(monitor)
    monitor.poll()
    end_run(monitor)
    monitor.poll(END)
    [completion] = monitor.completions()
    add_plot(monitor)
    monitor.slack.faults({"method": "chat.update", "error": "invalid_blocks", "times": rejections})
    for seconds in range(10, 300, 10):
        monitor.poll(END + seconds * SECONDS)
    assert get_images(monitor, completion) == ([PICTURE] if shown else [])
    assert completion.text.startswith(":large_green_circle:") and len(monitor.completions()) == 1


def test_a_run_that_finishes_before_it_is_reported_is_one_message(monitor: MonitorHarness) -> None:
    start_run(monitor)
    end_run(monitor)
    for seconds in (30, 40, 90):
        monitor.poll(SIX_PM + seconds * SECONDS)
        monitor.restart(SIX_PM + seconds * SECONDS)
    assert len(monitor.messages()) == 1


@pytest.mark.parametrize("reported", [True, False], ids=["after its start was reported", "before it was reported"])
def test_an_end_during_a_slack_outage_notifies_once_when_it_is_over(monitor: MonitorHarness, reported: bool) -> None:
    if reported:
        start_run(monitor)
        monitor.poll()
    monitor.slack.down = True
    start_run(monitor)
    end_run(monitor)
    for hours in range(5):
        monitor.poll(END + hours * HOURS)
    monitor.restart(END + 5 * HOURS)
    monitor.poll(END + 5 * HOURS)
    monitor.slack.down = False
    if not reported:
        monitor.expire_claims()
    for hours in (6, 7):
        monitor.poll(END + hours * HOURS)
    assert [message.is_reply for message in monitor.channel()] == [False, True][: 1 + reported]


@pytest.mark.parametrize("restart", [True, False], ids=["restarted", "same monitor"])
@pytest.mark.parametrize("reported", [True, False], ids=["after its start was reported", "before it was reported"])
@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 429, "retry_after": 30}, {"status": 503}], ids=str)
def test_a_lost_response_notifies_once(monitor: MonitorHarness, fault: dict[str, Any], reported: bool, restart: bool) -> None:
    """As when the monitor is killed after Slack has accepted the message and before that is recorded."""
    start_run(monitor)
    if reported:
        monitor.poll()
    end_run(monitor)
    monitor.slack.faults({"method": "chat.postMessage", **fault})
    monitor.poll(END)
    if restart:
        monitor.restart(END)
        monitor.expire_claims()
    for seconds in (10, 20):
        monitor.poll(END + seconds * SECONDS)
    assert monitor.run_lines() == [LINE.replace("not a ", "")]
    assert len(monitor.completions()) == reported


def test_a_run_that_ends_while_the_monitor_is_killed_keeps_no_outdated_line(monitor: MonitorHarness) -> None:
    start_run(monitor)
    monitor.slack.faults({"method": "chat.postMessage", "drop": True})
    monitor.poll()
    end_run(monitor)
    monitor.restart(END)
    monitor.expire_claims()
    for seconds in (10, 20):
        monitor.poll(END + seconds * SECONDS)
    assert monitor.run_lines() == [LINE.replace("not a ", "")] and len(monitor.completions()) == 1


def test_two_monitors_notify_of_an_end_once(running: MonitorHarness) -> None:
    first = running.reconciler
    running.restart(SIX_PM)
    end_run(running)
    for _ in range(2):
        first.poll(END)
        running.poll(END)
    assert len(running.completions()) == 1


def test_a_failed_run_notifies_only_of_its_failure(running: MonitorHarness) -> None:
    end_run(running, "failed")
    running.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
    running.record_failure("train")
    for minutes in (1, 2):
        running.poll(SIX_PM + minutes * MINUTES)
    assert (len(running.alerts()), len(running.completions())) == (1, 0)


@pytest.mark.parametrize("trained", [False, True])
def test_a_suspect_day_notifies_of_its_end_only_if_it_trained(running: MonitorHarness, trained: bool) -> None:
    running.airflow.add_result(RUN_ID, "decide", DecisionFacts("suspect", "no bar", "2026-01-15").to_facts())
    running.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    running.airflow.add_task(RUN_ID, "decide", "success", at=SIX_PM, try_number=2)
    if trained:
        add_plot(running)
    running.poll(END)
    assert (len(running.alerts()), len(running.completions())) == (1, trained)


def test_a_run_that_is_cleared_and_succeeds_again_notifies_no_second_time(running: MonitorHarness) -> None:
    end_run(running)
    running.poll(END)
    later = SIX_PM + 3 * HOURS
    running.airflow.add_run(RUN_ID, "running", at=later, logical_date=SIX_PM.isoformat())
    running.poll(later)
    end_run(running, at=later)
    running.poll(later + 30 * SECONDS)
    assert len(running.completions()) == 1 and running.run_lines() == [LINE]


@pytest.mark.parametrize("succeeded_before", [False, True])
def test_a_run_that_succeeds_after_a_failure_notifies_again(running: MonitorHarness, succeeded_before: bool) -> None:
    if succeeded_before:
        end_run(running)
        running.poll(END)
    failed_at = SIX_PM + 2 * HOURS
    end_run(running, "failed", at=failed_at)
    running.airflow.add_task(RUN_ID, "train", "failed", at=failed_at)
    running.record_failure("train", recorded_at=failed_at.isoformat())
    running.poll(failed_at + MINUTES)
    cleared_at = SIX_PM + 3 * HOURS
    end_run(running, at=cleared_at)
    running.airflow.add_task(RUN_ID, "train", "success", at=cleared_at, try_number=2)
    for minutes in (1, 2, 10):
        running.poll(cleared_at + minutes * MINUTES)
    assert len(running.completions()) == 1 + succeeded_before and len(running.alerts()) == 1
    assert running.channel()[-1] in running.completions()


def test_a_failed_task_that_is_marked_as_success_notifies_once_even_if_the_monitor_restarts(running: MonitorHarness) -> None:
    failed_at, marked_at = SIX_PM + 10 * MINUTES, SIX_PM + 30 * MINUTES
    end_run(running, "failed", at=failed_at)
    running.airflow.add_task(RUN_ID, "fetch_headlines", "failed", at=failed_at)
    running.record_failure("fetch_headlines", recorded_at=(failed_at + SECONDS).isoformat())
    running.poll(failed_at + MINUTES)
    # In the UI: the try number remains 1, so the run shows no failure any more.
    running.airflow.now = marked_at
    running.airflow.add_task(RUN_ID, "fetch_headlines", "success", at=failed_at, updated_at=marked_at.isoformat())
    end_run(running, at=marked_at)
    running.poll(marked_at + 10 * SECONDS)
    assert len(running.completions()) == 1
    running.restart(marked_at + MINUTES)
    for seconds in (60, 70):
        running.poll(marked_at + seconds * SECONDS)
    assert len(running.completions()) == 1


def test_a_backfill_notifies_of_no_end(monitor: MonitorHarness) -> None:
    monitor.airflow.backfills = [
        {"id": 3, "dag_id": "market_daily", "from_date": "2026-01-14T00:00:00Z", "to_date": "2026-01-15T00:00:00Z"}
        | {"created_at": SIX_PM.isoformat(), "completed_at": None}
    ]
    for state in ("running", "success"):
        monitor.airflow.add_run(RUN_ID, state, at=SIX_PM, run_type="backfill")
        monitor.poll(END)
    assert len(monitor.messages()) == 1


def test_the_setting_turns_the_notification_off(running: MonitorHarness) -> None:
    running.options = RunOptions(("1",), completion_enabled=False)
    running.restart(SIX_PM)
    end_run(running)
    running.poll(END)
    assert running.first_lines() == [LINE]


def test_an_old_run_that_is_touched_does_not_notify(running: MonitorHarness) -> None:
    """As by a note in the UI, a month after another version of the monitor has reported the run."""
    running.options = RunOptions(("1",), completion_enabled=False)
    running.restart(SIX_PM)
    end_run(running)
    later = SIX_PM + timedelta(days=30)
    for now in (END, later):
        running.poll(now)
    running.options = NO_TRAINING
    running.restart(later)
    running.airflow.runs[0]["updated_at"] = later.isoformat()
    running.poll(later + MINUTES)
    assert len(running.messages()) == 1


def test_who_deletes_a_runs_message_is_not_notified_of_its_end(running: MonitorHarness) -> None:
    running.slack.faults({"method": "chat.update", "error": "message_not_found"})
    end_run(running)
    for seconds in (30, 40):
        running.poll(SIX_PM + seconds * SECONDS)
    assert running.completions() == []


def test_many_runs_that_finish_at_once_notify_once_each_despite_rate_limits(monitor: MonitorHarness) -> None:
    for number in range(20):
        monitor.airflow.add_run(f"run{number}", at=SIX_PM)
    monitor.poll()
    for number in range(20):
        monitor.airflow.add_run(f"run{number}", "success", at=SIX_PM)
    for number, method in enumerate(["chat.postMessage", "chat.update", "chat.postMessage"]):
        monitor.slack.faults({"method": method, "status": 429})
        monitor.poll(END + number * 10 * SECONDS)
    monitor.poll(END + MINUTES)
    assert len(monitor.run_lines()) == len(monitor.completions()) == 20
