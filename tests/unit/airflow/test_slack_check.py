from __future__ import annotations

import json

import pytest
from airflow_monitor.slack_check import slack_test
from slack_stand_in.state import StandIn

WRITES = ("chat:write", "files:write")


def test_a_connection_that_works_is_tried_out_with_message_edit_and_picture(
    slack: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slack_test("workflows") == 0
    [message] = slack.channel("workflows")
    assert "posted and edited" in message.text
    assert "Slack hears of everything" in capsys.readouterr().out


@pytest.mark.parametrize("missing", WRITES)
def test_a_missing_scope_is_named_with_what_to_do(slack: StandIn, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    slack.scopes = tuple(scope for scope in (*WRITES, "channels:history", "channels:read") if scope != missing)
    assert slack_test("workflows") == 1
    told = capsys.readouterr().out
    assert f"MISSING scope {missing}" in told and "OAuth & Permissions" in told


def test_a_scope_that_is_no_must_is_told_and_stops_nothing(slack: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    slack.scopes = WRITES
    assert slack_test("workflows") == 0
    assert "no scope channels:history" in capsys.readouterr().out


@pytest.mark.parametrize(("channel", "told"), [("no-such-channel", "there is no such channel"), ("not-in-there", "/invite")])
def test_a_channel_that_cannot_be_written_to_is_told(
    slack: StandIn, channel: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slack_test(channel) == 1
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(("password", "told"), [("wrong", "not valid"), (None, "no connection slack_conn")])
def test_a_token_that_is_wrong_or_missing_is_told_and_never_shown(
    slack: StandIn, password: str | None, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_CONN")
    if password:
        connection = {"conn_type": "slack", "password": "xapp-secret-token", "extra": {"base_url": slack.url}}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", json.dumps(connection))
    assert slack_test("workflows") == 1
    shown = capsys.readouterr()
    assert told in shown.out and "xapp-secret-token" not in shown.out + shown.err


def test_what_is_no_slack_at_all_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    connection = {"conn_type": "slack", "password": "xoxb-test", "extra": {"base_url": "http://127.0.0.1:9/api/"}}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", json.dumps(connection))
    assert slack_test("workflows") == 1
    assert "Slack does not answer" in capsys.readouterr().out
