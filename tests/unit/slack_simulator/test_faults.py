"""Faults on demand: what a client meets, whether the work was done, and what the stand-in tells of it."""

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


def control(slack: Simulator, what: str, body: Any = None, verb: str = "POST") -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{slack.page_url}control/{what}", data=data, method=verb)  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.loads(answer.read())


def test_the_official_retry_waits_as_long_as_a_429_asks(slack: Simulator, client: WebClient) -> None:
    slack.faults({"method": "chat.postMessage", "status": 429, "retry_after": 1})
    client.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
    started = time.monotonic()
    assert client.chat_postMessage(channel="workflows", text="once")["ok"]
    assert time.monotonic() - started >= 1
    assert [one["status"] for one in slack.calls("chat.postMessage")] == [429, 200]
    assert len(slack.channel("workflows")) == 1


def test_a_fault_is_of_its_method_and_so_many_times(slack: Simulator, client: WebClient) -> None:
    slack.faults({"method": "chat.postMessage", "status": 503, "times": 2})
    assert client.auth_test()["ok"]
    for _ in range(2):
        with pytest.raises(SlackApiError) as failed:
            client.chat_postMessage(channel="workflows", text="x")
        assert failed.value.response.status_code == 503
    assert client.chat_postMessage(channel="workflows", text="x")["ok"]
    assert len(slack.channel("workflows")) == 1


def test_a_refusal_can_be_had_by_name(slack: Simulator, client: WebClient) -> None:
    slack.faults({"error": "is_archived"})
    with pytest.raises(SlackApiError, match="is_archived"):
        client.chat_postMessage(channel="workflows", text="x")
    assert slack.channel("workflows") == []


def test_a_dropped_call_is_done_and_not_answered(slack: Simulator, client: WebClient) -> None:
    slack.faults({"method": "chat.postMessage", "drop": True})
    with pytest.raises(ConnectionError):
        client.chat_postMessage(channel="workflows", text="done all the same")
    assert [one.text for one in slack.channel("workflows")] == ["done all the same"]
    assert slack.calls("chat.postMessage")[0]["status"] is None


def test_a_call_that_hangs_is_given_up_by_its_client_and_done(slack: Simulator, client: WebClient) -> None:
    slack.faults({"method": "chat.postMessage", "hang": 60})
    client.timeout = 1
    with pytest.raises(TimeoutError):
        client.chat_postMessage(channel="workflows", text="late")
    assert [one.text for one in slack.channel("workflows")] == ["late"]


def test_while_it_is_down_nobody_is_answered_and_nothing_is_done(slack: Simulator, client: WebClient) -> None:
    control(slack, "down", True)
    with pytest.raises(ConnectionError):
        client.chat_postMessage(channel="workflows", text="x")
    control(slack, "down", False)
    assert client.chat_postMessage(channel="workflows", text="back")["ok"]
    assert [one.text for one in slack.channel("workflows")] == ["back"]


def test_what_was_received_is_told_in_order_and_never_the_token(slack: Simulator, client: WebClient) -> None:
    client.chat_postMessage(channel="workflows", text="first")
    with pytest.raises(SlackApiError):
        client.api_call("chat.postMessage", data={"channel": "no-such", "text": "second", "token": "xoxb-secret"})
    received = control(slack, "received", verb="GET")
    assert [(one["arguments"]["text"], one["status"], one["error"]) for one in received] == [
        ("first", 200, None),
        ("second", 200, "channel_not_found"),
    ]
    assert "xoxb-secret" not in json.dumps(received)
    control(slack, "received", verb="DELETE")
    assert control(slack, "received", verb="GET") == []


def test_faults_and_scopes_are_set_over_http_and_a_reset_forgets_all(slack: Simulator, client: WebClient) -> None:
    client.chat_postMessage(channel="prices", text="x")
    control(slack, "faults", [{"method": "*", "error": "is_archived", "times": 9}])
    control(slack, "scopes", ["chat:write"])
    with pytest.raises(SlackApiError, match="is_archived"):
        client.chat_postMessage(channel="prices", text="x")
    control(slack, "reset")
    assert [one["name"] for one in client.conversations_list()["channels"]] == ["workflows"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"status": 200}, "400 to 599"),
        ({"status": 500, "drop": True}, "one of status, error, hang, drop, not status and drop"),
        ({"method": "*"}, "not none"),
        ({"hang": "long"}, "hang: a number"),
        ({"drops": True}, "a fault has method, times"),
        ("429", "JSON list of objects"),
    ],
)
def test_a_fault_that_cannot_be_had_is_told_in_a_sentence(fault: Any, told: str, slack: Simulator) -> None:
    with pytest.raises(urllib.error.HTTPError) as failed:
        control(slack, "faults", [fault])
    assert failed.value.code == 400
    assert told in failed.value.read().decode()
