"""Slack's own client against the simulator."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.slack.hooks.slack import SlackHook
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_simulator.server import run_simulator
from slack_simulator.simulator import Simulator
from slack_simulator.workspace import Workspace

PICTURE = b"\x89PNG\r\n\x1a\n\x00 a picture \xff"


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310
        body: bytes = response.read()
    return body


def error_response(raised: pytest.ExceptionInfo[SlackApiError]) -> dict[str, Any]:
    data = raised.value.response.data
    assert raised.value.response.status_code == 200 and isinstance(data, dict)
    return data


def test_messages_get_the_channel_id_and_increasing_timestamps(client: WebClient) -> None:
    responses = [client.chat_postMessage(channel=name, text="hello") for name in ("workflows", "#workflows", "workflows")]
    assert len({response["channel"] for response in responses}) == 1
    assert re.fullmatch(r"C[A-Z0-9]{8,}", responses[0]["channel"])
    timestamps = [float(response["ts"]) for response in responses]
    assert timestamps == sorted(set(timestamps))
    by_id = client.chat_postMessage(channel=responses[0]["channel"], text="hello")
    assert by_id["channel"] == responses[0]["channel"] and by_id["message"]["text"] == "hello"


def test_concurrent_messages_get_different_timestamps(slack: Simulator, client: WebClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda number: client.chat_postMessage(channel="workflows", text=str(number)), range(40)))
    assert len({response["ts"] for response in responses}) == len(slack.channel("workflows")) == 40


def test_timestamps_increase_although_the_clock_goes_back(tmp_path: Path) -> None:
    timestamps = []
    for now in (1768467600.0, 1768467000.0):
        workspace = Workspace(tmp_path, now=lambda now=now: now)  # type: ignore[misc]
        timestamps += [workspace.add(workspace.open_channel("workflows"), text="x").ts for _ in range(2)]
    assert timestamps == ["1768467600.000000", "1768467600.000001", "1768467600.000002", "1768467600.000003"]


def test_replies_stay_in_their_thread_unless_broadcast(client: WebClient) -> None:
    root = client.chat_postMessage(channel="workflows", text="root")
    channel, ts = root["channel"], root["ts"]
    client.chat_postMessage(channel=channel, text="inside", thread_ts=ts)
    client.chat_postMessage(channel=channel, text="both", thread_ts=ts, reply_broadcast=True)
    thread = client.conversations_replies(channel=channel, ts=ts)["messages"]
    assert [message["text"] for message in thread] == ["root", "inside", "both"]
    assert thread[0]["reply_count"] == 2 and thread[1]["thread_ts"] == ts
    history = client.conversations_history(channel=channel)["messages"]
    assert [message["text"] for message in history] == ["both", "root"]
    assert history[0]["subtype"] == "thread_broadcast"


def test_only_an_update_without_blocks_marks_as_edited(client: WebClient) -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "first"}}]
    posted = client.chat_postMessage(channel="workflows", text="first", blocks=blocks)
    message_id = {"channel": posted["channel"], "ts": posted["ts"]}
    updated = client.chat_update(**message_id, text="second", blocks=blocks)
    assert "edited" not in updated["message"] and updated["message"]["blocks"] == blocks
    client.chat_update(**message_id, text="third")
    [message] = client.conversations_history(channel=posted["channel"])["messages"]
    assert (message["text"], "blocks" in message, "edited" in message) == ("third", False, True)


def test_updates_need_an_existing_message_and_a_channel_id(client: WebClient) -> None:
    posted = client.chat_postMessage(channel="workflows", text="first")
    with pytest.raises(SlackApiError) as raised:
        client.chat_update(channel=posted["channel"], ts="1700000000.000100", text="x")
    assert error_response(raised)["error"] == "message_not_found"
    with pytest.raises(SlackApiError) as raised:
        client.chat_update(channel="workflows", ts=posted["ts"], text="x")
    assert error_response(raised)["error"] == "channel_not_found"


def test_history_returns_metadata_only_on_request(client: WebClient) -> None:
    metadata = {"event_type": "session", "event_payload": {"session": "2026-01-15", "attempts": 2}}
    client.chat_postMessage(channel="workflows", text="other")
    posted = client.chat_postMessage(channel="workflows", text="this", metadata=metadata)
    history = client.conversations_history(channel=posted["channel"], include_all_metadata=True)["messages"]
    assert [message["ts"] for message in history if message.get("metadata") == metadata] == [posted["ts"]]
    history = client.conversations_history(channel=posted["channel"])["messages"]
    assert all("metadata" not in message for message in history)


def test_history_is_paginated_from_the_newest_back_to_oldest(client: WebClient) -> None:
    posted = [client.chat_postMessage(channel="workflows", text=str(number)) for number in range(7)]
    arguments = {"channel": posted[0]["channel"], "oldest": posted[1]["ts"], "limit": 2}
    pages = [[message["text"] for message in page["messages"]] for page in client.conversations_history(**arguments)]
    assert pages == [["6", "5"], ["4", "3"], ["2"]]


def test_uploaded_file_is_shared_byte_for_byte_in_its_thread(client: WebClient) -> None:
    root = client.chat_postMessage(channel="workflows", text="root")
    thread = {"channel": root["channel"], "thread_ts": root["ts"]}
    client.files_upload_v2(**thread, filename="forecast.png", content=PICTURE, title="The forecast", initial_comment="see")
    reply = client.conversations_replies(channel=root["channel"], ts=root["ts"])["messages"][1]
    [file] = reply["files"]
    assert (reply["text"], file["title"], file["size"]) == ("see", "The forecast", len(PICTURE))
    assert get(file["url_private"]) == PICTURE


def test_upload_needs_a_channel_id_and_the_whole_file(slack: Simulator, client: WebClient) -> None:
    with pytest.raises(SlackApiError) as raised:
        client.files_upload_v2(channel="workflows", filename="a.png", content=PICTURE)
    assert error_response(raised)["error"] == "invalid_arguments"
    assert "[json-pointer:/channel_id]" in error_response(raised)["response_metadata"]["messages"][0]
    announced = client.files_getUploadURLExternal(filename="a.png", length=99)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(announced["upload_url"], data=PICTURE, timeout=10)  # noqa: S310
    with pytest.raises(SlackApiError) as raised:
        client.files_completeUploadExternal(files=[{"id": announced["file_id"], "title": "a"}])
    assert error_response(raised)["error"] == "file_not_found"
    assert slack.channel("workflows") == []


def test_airflow_hook_connects_and_posts(slack: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "slack", "password": "xoxb-secret", "extra": {"base_url": slack.url, "timeout": 10}}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", json.dumps(connection))
    hook = SlackHook(slack_conn_id="slack_conn")
    assert hook.test_connection()[0]
    hook.call("chat.postMessage", json={"channel": "#workflows", "text": "from the hook"})
    assert [message.text for message in slack.channel("workflows")] == ["from the hook"]


@pytest.mark.parametrize(
    ("token", "channel", "error"),
    [
        ("", "workflows", "not_authed"),
        ("secret", "workflows", "invalid_auth"),
        ("xoxb-1", "no-such-place", "channel_not_found"),
        ("xoxb-1", "C0123456789", "channel_not_found"),
        ("xoxb-1", "two words", "channel_not_found"),
        ("xoxb-1", "Workflows", "channel_not_found"),
        ("xoxb-1", "not-in-here", "not_in_channel"),
    ],
)
def test_invalid_token_or_channel_is_refused(slack: Simulator, token: str, channel: str, error: str) -> None:
    with pytest.raises(SlackApiError) as raised:
        WebClient(token=token, base_url=slack.url).chat_postMessage(channel=channel, text="x")
    assert error_response(raised)["error"] == error


def test_with_the_scope_for_public_channels_only_messages_need_no_membership(slack: Simulator, client: WebClient) -> None:
    slack.scopes = (*slack.scopes, "chat:write.public")
    root = client.chat_postMessage(channel="not-in-here", text="root")
    channel, ts = root["channel"], root["ts"]
    client.chat_postMessage(channel=channel, text="reply", thread_ts=ts, reply_broadcast=True)
    client.chat_update(channel=channel, ts=ts, text="edited")
    assert [message.text for message in slack.channel("not-in-here")] == ["edited", "reply"]
    denied: list[Callable[[], object]] = [
        lambda: client.conversations_history(channel=channel),
        lambda: client.conversations_replies(channel=channel, ts=ts),
        lambda: client.files_upload_v2(channel=channel, thread_ts=ts, filename="a.png", content=PICTURE),
    ]
    for call in denied:
        with pytest.raises(SlackApiError) as raised:
            call()
        assert error_response(raised)["error"] == "not_in_channel"


def test_unknown_method_is_refused(client: WebClient) -> None:
    with pytest.raises(SlackApiError) as raised:
        client.api_call("chat.shout")
    assert error_response(raised)["error"] == "unknown_method"


def test_missing_scope_is_named_with_the_provided_ones(slack: Simulator, client: WebClient) -> None:
    slack.scopes = ("chat:write", "channels:read")
    posted = client.chat_postMessage(channel="workflows", text="x")
    assert posted.headers["x-oauth-scopes"] == "chat:write,channels:read"
    with pytest.raises(SlackApiError) as raised:
        client.conversations_history(channel=posted["channel"])
    error = {"error": "missing_scope", "needed": "channels:history", "provided": "chat:write,channels:read"}
    assert error_response(raised) == {"ok": False} | error
    with pytest.raises(SlackApiError) as raised:
        client.conversations_list(types="public_channel,private_channel")
    assert error_response(raised)["needed"] == "groups:read"
    assert [channel["name"] for channel in client.conversations_list()["channels"]] == ["workflows"]


def test_workspace_with_a_folder_survives_a_restart(tmp_path: Path) -> None:
    with run_simulator(folder=tmp_path) as slack:
        client = WebClient(token="xoxb-1", base_url=slack.url)
        root = client.chat_postMessage(channel="prices", text="first", metadata={"event_type": "a", "event_payload": {"b": 1}})
        client.chat_update(channel=root["channel"], ts=root["ts"], text="second")
        thread = {"channel": root["channel"], "thread_ts": root["ts"]}
        client.files_upload_v2(**thread, filename="forecast.png", content=PICTURE)
        before = client.conversations_replies(channel=root["channel"], ts=root["ts"], include_all_metadata=True)["messages"]
    with run_simulator(folder=tmp_path) as slack:
        client = WebClient(token="xoxb-1", base_url=slack.url)
        after = client.conversations_replies(channel=root["channel"], ts=root["ts"], include_all_metadata=True)["messages"]
        assert get(after[1]["files"][0]["url_private"]) == PICTURE
        for message in (before[1], after[1]):
            message["files"][0].pop("url_private")  # the port differs
        assert after == before
        assert float(client.chat_postMessage(channel="prices", text="x")["ts"]) > float(after[1]["ts"])
