"""Injected faults: what a client gets, whether the call was executed, and what was recorded."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler
from slack_simulator.simulator import Simulator


def control(slack: Simulator, name: str, body: Any) -> None:
    request = urllib.request.Request(f"{slack.page_url}control/{name}", data=json.dumps(body).encode())  # noqa: S310
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


def test_rate_limited_client_retries_after_the_given_seconds(slack: Simulator, client: WebClient) -> None:
    slack.faults({"method": "chat.postMessage", "status": 429, "retry_after": 1})
    client.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
    started = time.monotonic()
    assert client.chat_postMessage(channel="workflows", text="once")["ok"]
    assert time.monotonic() - started >= 1
    assert [call["status"] for call in slack.calls("chat.postMessage")] == [429, 200]
    assert len(slack.channel("workflows")) == 1


def test_fault_affects_its_method_the_given_number_of_times(slack: Simulator, client: WebClient) -> None:
    slack.faults({"method": "chat.postMessage", "status": 503, "times": 2})
    assert client.auth_test()["ok"]
    for _ in range(2):
        with pytest.raises(SlackApiError) as raised:
            client.chat_postMessage(channel="workflows", text="x")
        assert raised.value.response.status_code == 503
    assert client.chat_postMessage(channel="workflows", text="x")["ok"]
    assert len(slack.channel("workflows")) == 1


def test_error_fault_does_not_execute_the_call(slack: Simulator, client: WebClient) -> None:
    slack.faults({"error": "is_archived"})
    with pytest.raises(SlackApiError, match="is_archived"):
        client.chat_postMessage(channel="workflows", text="x")
    assert slack.channel("workflows") == []


def test_dropped_call_is_executed_without_a_response(slack: Simulator, client: WebClient) -> None:
    slack.faults({"method": "chat.postMessage", "drop": True})
    with pytest.raises(ConnectionError):
        client.chat_postMessage(channel="workflows", text="executed")
    assert [message.text for message in slack.channel("workflows")] == ["executed"]
    assert slack.calls("chat.postMessage")[0]["status"] is None


def test_hanging_call_is_executed_and_times_out(slack: Simulator, client: WebClient) -> None:
    slack.faults({"method": "chat.postMessage", "hang": 60})
    client.timeout = 1
    with pytest.raises(TimeoutError):
        client.chat_postMessage(channel="workflows", text="late")
    assert [message.text for message in slack.channel("workflows")] == ["late"]


def test_simulator_that_is_down_executes_nothing(slack: Simulator, client: WebClient) -> None:
    control(slack, "down", True)
    with pytest.raises(ConnectionError):
        client.chat_postMessage(channel="workflows", text="x")
    control(slack, "down", False)
    assert client.chat_postMessage(channel="workflows", text="back")["ok"]
    assert [message.text for message in slack.channel("workflows")] == ["back"]


def test_calls_are_recorded_in_order_without_the_token(slack: Simulator, client: WebClient) -> None:
    client.chat_postMessage(channel="workflows", text="first")
    with pytest.raises(SlackApiError):
        client.api_call("chat.postMessage", data={"channel": "no-such", "text": "second", "token": "xoxb-secret"})
    assert [(call["arguments"]["text"], call["status"], call["error"]) for call in slack.received] == [
        ("first", 200, None),
        ("second", 200, "channel_not_found"),
    ]
    assert "xoxb-secret" not in json.dumps(slack.received)


def test_faults_are_injected_over_http(slack: Simulator, client: WebClient) -> None:
    control(slack, "faults", [{"error": "is_archived"}])
    with pytest.raises(SlackApiError, match="is_archived"):
        client.chat_postMessage(channel="prices", text="x")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 200}, "status must be 400 to 599, not 200"),
        ({"status": 500, "drop": True}, "exactly one of status, error, hang, drop, not status and drop"),
        ({"method": "*"}, "not none"),
        ({"hang": "long"}, "hang must be a number"),
        ({"drops": True}, "an object with method, times"),
        ("429", "an object with method, times"),
    ],
)
def test_invalid_fault_is_refused_with_the_reason(fault: Any, message: str, slack: Simulator) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        control(slack, "faults", [fault])
    assert raised.value.code == 400
    assert message in raised.value.read().decode()
