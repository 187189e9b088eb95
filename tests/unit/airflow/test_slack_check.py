from __future__ import annotations

import json

import pytest
from airflow_monitor.slack_check import check_slack
from slack_simulator.simulator import Simulator

REQUIRED_SCOPES = ("chat:write", "files:write")


def test_a_working_connection_posts_edits_and_uploads(slack: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_slack("workflows") == 0
    [message] = slack.channel("workflows")
    assert "posted and edited" in message.text
    assert "The connection to Slack works" in capsys.readouterr().out


@pytest.mark.parametrize("missing", REQUIRED_SCOPES)
def test_a_missing_scope_is_named_with_advice(slack: Simulator, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    slack.scopes = tuple(scope for scope in (*REQUIRED_SCOPES, "channels:history", "channels:read") if scope != missing)
    assert check_slack("workflows") == 1
    output = capsys.readouterr().out
    assert f"MISSING scope {missing}" in output and "OAuth & Permissions" in output


def test_a_missing_optional_scope_is_named_and_not_an_error(slack: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    slack.scopes = REQUIRED_SCOPES
    assert check_slack("workflows") == 0
    assert "optional scope channels:history is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("channel", "message"), [("no-such-channel", "the channel does not exist"), ("not-in-there", "/invite")]
)
def test_an_unusable_channel_is_named_with_advice(
    slack: Simulator, channel: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_slack(channel) == 1
    assert message in capsys.readouterr().out


@pytest.mark.parametrize(("password", "message"), [("wrong", "not valid"), (None, "no connection slack_conn")])
def test_an_invalid_or_missing_token_is_reported_and_never_shown(
    slack: Simulator, password: str | None, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_CONN")
    if password:
        connection = {"conn_type": "slack", "password": "xapp-secret-token", "extra": {"base_url": slack.url}}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", json.dumps(connection))
    assert check_slack("workflows") == 1
    output = capsys.readouterr()
    assert message in output.out and "xapp-secret-token" not in output.out + output.err


def test_a_server_that_does_not_respond_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = {"conn_type": "slack", "password": "xoxb-test", "extra": {"base_url": "http://127.0.0.1:9/api/"}}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", json.dumps(connection))
    assert check_slack("workflows") == 1
    assert "Slack does not respond" in capsys.readouterr().out
