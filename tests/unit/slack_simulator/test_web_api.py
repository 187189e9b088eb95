"""The official client works against the stand-in as it does against Slack."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
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
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        body: bytes = answer.read()
    return body


def refusal(failed: pytest.ExceptionInfo[SlackApiError]) -> dict[str, Any]:
    data = failed.value.response.data
    assert failed.value.response.status_code == 200 and isinstance(data, dict)
    return data


def test_a_message_gets_the_channels_id_and_a_later_ts_than_every_other(client: WebClient) -> None:
    answers = [client.chat_postMessage(channel=name, text="hello") for name in ("workflows", "#workflows", "workflows")]
    assert len({answer["channel"] for answer in answers}) == 1
    assert re.fullmatch(r"C[A-Z0-9]{8,}", answers[0]["channel"])
    times = [float(answer["ts"]) for answer in answers]
    assert times == sorted(set(times))
    by_id = client.chat_postMessage(channel=answers[0]["channel"], text="hello")
    assert by_id["channel"] == answers[0]["channel"] and by_id["message"]["text"] == "hello"


def test_messages_that_are_sent_at_once_each_get_a_ts_of_their_own(slack: Simulator, client: WebClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda number: client.chat_postMessage(channel="workflows", text=str(number)), range(40)))
    assert len({one["ts"] for one in sent}) == len(slack.channel("workflows")) == 40


def test_a_clock_that_stands_still_or_goes_back_gives_later_ts_all_the_same(tmp_path: Path) -> None:
    found = []
    for now in (1768467600.0, 1768467000.0):
        workspace = Workspace(tmp_path, now=lambda now=now: now)  # type: ignore[misc]
        found += [workspace.add(workspace.open_channel("workflows"), text="x").ts for _ in range(2)]
    assert found == ["1768467600.000000", "1768467600.000001", "1768467600.000002", "1768467600.000003"]


def test_a_reply_stays_in_its_thread_and_a_broadcast_is_in_the_channel_too(client: WebClient) -> None:
    root = client.chat_postMessage(channel="workflows", text="root")
    channel, ts = root["channel"], root["ts"]
    client.chat_postMessage(channel=channel, text="inside", thread_ts=ts)
    client.chat_postMessage(channel=channel, text="both", thread_ts=ts, reply_broadcast=True)
    thread = client.conversations_replies(channel=channel, ts=ts)["messages"]
    assert [one["text"] for one in thread] == ["root", "inside", "both"]
    assert thread[0]["reply_count"] == 2 and thread[1]["thread_ts"] == ts
    history = client.conversations_history(channel=channel)["messages"]
    assert [one["text"] for one in history] == ["both", "root"]
    assert history[0]["subtype"] == "thread_broadcast"


def test_an_update_changes_the_message_and_its_text_alone_marks_it_as_edited(client: WebClient) -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "first"}}]
    sent = client.chat_postMessage(channel="workflows", text="first", blocks=blocks)
    where = {"channel": sent["channel"], "ts": sent["ts"]}
    again = client.chat_update(**where, text="second", blocks=blocks)
    assert "edited" not in again["message"] and again["message"]["blocks"] == blocks
    client.chat_update(**where, text="third")
    [message] = client.conversations_history(channel=sent["channel"])["messages"]
    assert (message["text"], "blocks" in message, "edited" in message) == ("third", False, True)


def test_an_update_of_no_message_or_by_the_channels_name_is_refused(client: WebClient) -> None:
    sent = client.chat_postMessage(channel="workflows", text="first")
    with pytest.raises(SlackApiError) as failed:
        client.chat_update(channel=sent["channel"], ts="1700000000.000100", text="x")
    assert refusal(failed)["error"] == "message_not_found"
    with pytest.raises(SlackApiError) as failed:
        client.chat_update(channel="workflows", ts=sent["ts"], text="x")
    assert refusal(failed)["error"] == "channel_not_found"


def test_history_finds_a_message_by_its_metadata(client: WebClient) -> None:
    metadata = {"event_type": "session", "event_payload": {"session": "2026-01-15", "tries": 2}}
    client.chat_postMessage(channel="workflows", text="other")
    sent = client.chat_postMessage(channel="workflows", text="this", metadata=metadata)
    asked = {"channel": sent["channel"], "include_all_metadata": True}
    found = [one for one in client.conversations_history(**asked)["messages"] if one.get("metadata") == metadata]
    assert [one["ts"] for one in found] == [sent["ts"]]
    assert all("metadata" not in one for one in client.conversations_history(channel=sent["channel"])["messages"])


def test_history_comes_by_pages_from_the_newest_and_not_before_oldest(client: WebClient) -> None:
    sent = [client.chat_postMessage(channel="workflows", text=str(number)) for number in range(7)]
    asked = {"channel": sent[0]["channel"], "oldest": sent[1]["ts"], "limit": 2}
    pages = [[one["text"] for one in page["messages"]] for page in client.conversations_history(**asked)]
    assert pages == [["6", "5"], ["4", "3"], ["2"]]


def test_a_permalink_leads_to_the_message(client: WebClient) -> None:
    sent = client.chat_postMessage(channel="workflows", text="look here")
    link = client.chat_getPermalink(channel=sent["channel"], message_ts=sent["ts"])["permalink"]
    assert f"/archives/{sent['channel']}/p{sent['ts'].replace('.', '')}" in link
    assert b"look here" in get(link)


def test_a_file_comes_back_byte_for_byte_in_the_thread_it_was_sent_to(client: WebClient) -> None:
    root = client.chat_postMessage(channel="workflows", text="root")
    where = {"channel": root["channel"], "thread_ts": root["ts"]}
    client.files_upload_v2(**where, filename="forecast.png", content=PICTURE, title="The forecast", initial_comment="see")
    reply = client.conversations_replies(channel=root["channel"], ts=root["ts"])["messages"][1]
    [file] = reply["files"]
    assert (reply["text"], file["title"], file["size"]) == ("see", "The forecast", len(PICTURE))
    assert get(file["url_private"]) == PICTURE


def test_a_file_is_not_taken_by_the_channels_name_nor_half(slack: Simulator, client: WebClient) -> None:
    with pytest.raises(SlackApiError) as failed:
        client.files_upload_v2(channel="workflows", filename="a.png", content=PICTURE)
    assert refusal(failed)["error"] == "invalid_arguments"
    assert "[json-pointer:/channel_id]" in refusal(failed)["response_metadata"]["messages"][0]
    asked = client.files_getUploadURLExternal(filename="a.png", length=99)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(asked["upload_url"], data=PICTURE, timeout=10)  # noqa: S310
    with pytest.raises(SlackApiError) as failed:
        client.files_completeUploadExternal(files=[{"id": asked["file_id"], "title": "a"}])
    assert refusal(failed)["error"] == "file_not_found"
    assert slack.channel("workflows") == []


def test_airflows_hook_works_against_it(slack: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    connection = {"conn_type": "slack", "password": "xoxb-secret", "extra": {"base_url": slack.url, "timeout": 10}}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", json.dumps(connection))
    hook = SlackHook(slack_conn_id="slack_conn")
    assert hook.test_connection()[0]
    hook.call("chat.postMessage", json={"channel": "#workflows", "text": "from the hook"})
    picture = tmp_path / "forecast.png"
    picture.write_bytes(PICTURE)
    with pytest.warns(UserWarning, match="expects a Slack Channel ID"):
        hook.send_file_v1_to_v2(channels="#workflows", file=picture, initial_comment="the forecast")
    assert [one.text for one in slack.channel("workflows")] == ["from the hook", "the forecast"]


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
def test_who_may_not_send_is_told_why(slack: Simulator, token: str, channel: str, error: str) -> None:
    with pytest.raises(SlackApiError) as failed:
        WebClient(token=token, base_url=slack.url).chat_postMessage(channel=channel, text="x")
    assert refusal(failed)["error"] == error


def test_an_unknown_method_is_told(client: WebClient) -> None:
    with pytest.raises(SlackApiError) as failed:
        client.api_call("chat.shout")
    assert refusal(failed)["error"] == "unknown_method"


def test_a_missing_scope_is_named_with_those_that_are_there(slack: Simulator, client: WebClient) -> None:
    slack.scopes = ("chat:write", "channels:read")
    sent = client.chat_postMessage(channel="workflows", text="x")
    assert sent.headers["x-oauth-scopes"] == "chat:write,channels:read"
    with pytest.raises(SlackApiError) as failed:
        client.conversations_history(channel=sent["channel"])
    told = {"error": "missing_scope", "needed": "channels:history", "provided": "chat:write,channels:read"}
    assert refusal(failed) == {"ok": False} | told


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    with run_simulator(data=tmp_path) as slack:
        client = WebClient(token="xoxb-1", base_url=slack.url)
        root = client.chat_postMessage(channel="prices", text="first", metadata={"event_type": "a", "event_payload": {"b": 1}})
        client.chat_update(channel=root["channel"], ts=root["ts"], text="second")
        where = {"channel": root["channel"], "thread_ts": root["ts"]}
        client.files_upload_v2(**where, filename="forecast.png", content=PICTURE)
        before = client.conversations_replies(channel=root["channel"], ts=root["ts"], include_all_metadata=True)["messages"]
    with run_simulator(data=tmp_path) as slack:
        client = WebClient(token="xoxb-1", base_url=slack.url)
        after = client.conversations_replies(channel=root["channel"], ts=root["ts"], include_all_metadata=True)["messages"]
        assert get(after[1]["files"][0]["url_private"]) == PICTURE
        for message in (before[1], after[1]):
            message["files"][0].pop("url_private")  # the port is another one
        assert after == before
        assert float(client.chat_postMessage(channel="prices", text="x")["ts"]) > float(after[1]["ts"])
