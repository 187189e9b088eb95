"""What works with few scopes, without membership and without a connection, and what the log says about the rest."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow_monitor.slack_check import check_slack
from airflow_monitor.slack_client import SlackClient
from airflow_steps.callbacks import on_run_end
from slack_simulator.simulator import Simulator
from step_contract import paths
from step_contract.commit import Content, commit
from step_contract.store import Store

from .monitor_harness import RUN_ID, SIX_PM, MonitorHarness, add_session_run, monitor

__all__ = ["monitor"]
FOREIGN_CHANNEL = "not-in-it"  # the bot is not a member
POST_ONLY = ("chat:write", "chat:write.public", "channels:read")
PICTURE = b"\x89PNG\r\n\x1a\n a picture"


def add_plot(monitor: MonitorHarness) -> None:
    content = Content({"forecast.png": PICTURE}, rows=0, schema_version=1, facts={})
    plot = commit(monitor.store, "plots/x", step="plot", session=date(2026, 1, 15), inputs={}, content=content)
    monitor.airflow.add_task(RUN_ID, "plot", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "plot", {"summary": "plotted"}, plot.uri, picture=True)


@pytest.mark.parametrize(
    ("scopes", "reason"),
    [
        ((*POST_ONLY, "files:write", "channels:history"), "not_in_channel: the bot is not a member of the channel: /invite it"),
        (POST_ONLY, "missing_scope (files:write): the bot lacks a scope"),
    ],
)
def test_a_bot_that_may_only_post_says_why_there_is_no_picture(
    monitor: MonitorHarness,
    scopes: tuple[str, ...],
    reason: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monitor.slack.scopes = scopes
    monitor.restart(SIX_PM, FOREIGN_CHANNEL)
    add_session_run(monitor.airflow)
    monitor.poll()
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    add_plot(monitor)
    monitor.poll(SIX_PM + timedelta(seconds=30))
    monitor.airflow.add_run("session__2026-01-16", at=SIX_PM + timedelta(days=1))
    for seconds in (0, 10):
        monitor.poll(SIX_PM + timedelta(days=1, seconds=seconds))
    root, completion, following = monitor.slack.channel(FOREIGN_CHANNEL)
    assert root.text.startswith(":large_green_circle:") and completion.broadcast
    assert following.text.startswith(":large_blue_circle: *Fri 16 Jan 2026*")
    [picture] = [text for text in monitor.replies() if "`plot`" in text]
    assert f"cannot be shown: cannot upload plot.png: {reason}" in picture
    assert reason in caplog.text + capsys.readouterr().out


def test_the_check_names_what_a_bot_without_membership_lacks(slack: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    slack.scopes = (*POST_ONLY, "files:write", "channels:history")
    assert check_slack(FOREIGN_CHANNEL) == 1
    output = capsys.readouterr().out
    assert "ok: posted a message" in output and "ok: edited it" in output
    assert "cannot upload test.png: not_in_channel" in output and "/invite" in output and "chat:write.public" in output


def test_without_the_secret_the_log_says_that_a_connection_of_the_ui_does_not_count(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_CONN", raising=False)
    SlackClient("workflows").check_connection()
    log = caplog.text + capsys.readouterr().out
    assert "no connection slack_conn" in log and "the secret slack" in log and "made in Airflow's UI does not reach" in log


@pytest.mark.parametrize("value", ["xoxb-hunter2", '{"password": "hunter2"', '{"conn_type": "slack"}', "slack://"])
def test_a_variable_that_is_no_connection_is_named_and_never_shown(
    value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", value)
    SlackClient("workflows").check_connection()
    assert check_slack("workflows") == 1
    log = caplog.text + "".join(capsys.readouterr())
    assert log.count("AIRFLOW_CONN_SLACK_CONN (in a cluster the secret slack) is no connection with a token") >= 2
    assert "hunter2" not in log


def test_a_working_connection_is_not_mentioned(
    slack: Simulator, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    SlackClient("workflows").check_connection()
    assert "onnection" not in caplog.text + capsys.readouterr().out and not slack.received


def test_a_monitor_without_a_connection_writes_that_into_its_heartbeat(
    monitor: MonitorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_CONN")
    add_session_run(monitor.airflow)
    for minutes in (0, 2):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    heartbeat = json.loads(monitor.store.read(paths.MONITOR_HEARTBEAT) or b"")
    assert heartbeat["slack"].startswith("no connection slack_conn")


def end_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """End a run as the DAG processor does, while a monitor without a connection is alive."""
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    monkeypatch.setenv("MONITOR_ENABLED", "true")
    heartbeat = {"at": datetime.now(UTC).isoformat(), "slack": "no connection slack_conn: set …"}
    Store(f"file://{tmp_path}/artifacts").replace(paths.MONITOR_HEARTBEAT, json.dumps(heartbeat).encode())
    run = SimpleNamespace(dag_id="market_daily", run_id="session__2026-01-15", state="success")
    on_run_end({"dag_run": run, "reason": "success"})


def test_the_end_of_a_run_says_where_an_unconnected_monitor_needs_the_connection(
    slack: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a connection made in Airflow's UI: the DAG processor has it and the monitor has not."""
    end_run(tmp_path, monkeypatch)
    [message] = slack.channel("workflows")
    assert "The monitor has no connection to Slack" in message.text and "the secret `slack`" in message.text


def test_the_end_of_a_run_without_any_connection_is_one_line_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_CONN", raising=False)
    end_run(tmp_path, monkeypatch)
    log = caplog.text + "".join(capsys.readouterr())
    assert "cannot notify Slack, as there is no connection" in log and "Traceback" not in log
