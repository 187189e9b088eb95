"""Messages arrive once, whatever Slack does, and a restart or a second monitor duplicates none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from step_contract.commit import Content, commit

from .monitor_harness import RUN_ID, SIX_PM, MonitorHarness, add_session_run, monitor

__all__ = ["monitor"]
PICTURE = b"\x89PNG\r\n\x1a\n a picture"


def test_an_unchanged_run_is_posted_once_even_after_a_restart(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="success")
    for minute in range(3):
        monitor.poll(SIX_PM + timedelta(seconds=minute))
    monitor.restart(SIX_PM + timedelta(minutes=2))
    monitor.poll(SIX_PM + timedelta(minutes=2))
    assert [call["method"] for call in monitor.slack.received] == ["chat.postMessage"]


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


def test_a_rejected_message_is_posted_as_plain_text(monitor: MonitorHarness) -> None:
    monitor.slack.faults({"method": "chat.postMessage", "times": 1, "error": "invalid_blocks"})
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
    monitor.record_failure("train")
    for _ in range(2):
        monitor.poll()
    root, alert = monitor.channel()
    assert root.text.startswith(":red_circle: *Thu 15 Jan 2026*") and alert.broadcast


def test_replies_to_a_rejected_root_stand_alone_with_the_runs_name(monitor: MonitorHarness) -> None:
    monitor.slack.faults({"method": "chat.postMessage", "times": 2, "error": "invalid_blocks"})
    add_run_with_plot(monitor)
    monitor.airflow.add_run(RUN_ID, "failed", at=SIX_PM)
    monitor.airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM, try_number=2)
    monitor.record_failure("train", 1, will_retry=True, meaning="source unavailable")
    monitor.record_failure("train", 2)
    monitor.poll()
    monitor.restart(SIX_PM)
    for _ in range(2):
        monitor.poll()
    texts = [message.text for message in monitor.channel()]
    assert len(texts) == 3 and all(text.count("*Thu 15 Jan 2026*") == 1 for text in texts)
    assert "was retried" in texts[0] and "`train` failed" in texts[2]
    [plot] = [message for message in monitor.channel() if message.files]
    assert monitor.slack.workspace.content(plot.files[0]) == PICTURE


def test_a_message_deleted_by_a_person_is_not_posted_again(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.poll()
    monitor.slack.faults({"method": "chat.update", "times": 1, "error": "message_not_found"})
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    for _ in range(3):
        monitor.poll()
    assert len(monitor.slack.calls("chat.postMessage")) == len(monitor.slack.calls("chat.update")) == 1


def add_run_with_plot(monitor: MonitorHarness, *, damaged: bool = False) -> None:
    content = Content({"forecast.png": PICTURE}, rows=0, schema_version=1, facts={})
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
    assert monitor.slack.workspace.content(message.files[0]) == PICTURE


def test_a_plot_that_cannot_be_read_is_uploaded_later(monitor: MonitorHarness) -> None:
    add_run_with_plot(monitor)
    [picture] = Path(monitor.store.root.removeprefix("file://")).rglob("*.png")
    hidden = picture.with_name("hidden")
    picture.rename(hidden)
    picture.symlink_to("/proc/self/mem")  # reading it fails with an input/output error
    monitor.poll()
    assert [message for message in monitor.messages() if message.files] == []
    picture.unlink()
    hidden.rename(picture)
    monitor.poll(SIX_PM + timedelta(minutes=10))
    assert [message.files for message in monitor.messages() if message.files]


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


def test_a_new_channel_receives_only_later_runs(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="success")
    for minutes in (0, 8):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    monitor.restart(SIX_PM + timedelta(minutes=9), "another")
    monitor.airflow.add_run("session__2026-01-16", at=SIX_PM + timedelta(minutes=9), logical_date="2026-01-16T09:00:00+00:00")
    monitor.poll(SIX_PM + timedelta(minutes=9))
    assert [message.text.split("*")[1] for message in monitor.slack.channel("another")] == ["Fri 16 Jan 2026"]
