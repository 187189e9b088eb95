"""What Slack refuses, the stand-in refuses, with Slack's error and where the fault is."""

from __future__ import annotations

from typing import Any

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_simulator.simulator import Simulator

Blocks = list[dict[str, Any]]


def mrkdwn(length: int) -> dict[str, str]:
    return {"type": "mrkdwn", "text": "x" * length}


def plain(length: int) -> dict[str, str]:
    return {"type": "plain_text", "text": "x" * length}


def button(text: int = 1, **more: Any) -> dict[str, Any]:
    return {"type": "button", "text": plain(text)} | more


def image(**more: Any) -> dict[str, Any]:
    return {"type": "image", "image_url": "https://example.org/a.png", "alt_text": "a"} | more


def one(kind: str, **more: Any) -> Blocks:
    return [{"type": kind} | more]


def sections(count: int, length: int) -> Blocks:
    return [{"type": "section", "text": mrkdwn(length)} for _ in range(count)]


# Each limit: what is just within it, what is just beyond it, and where Slack points.
LIMITS: list[tuple[Blocks, Blocks, str]] = [
    (sections(50, 1), sections(51, 1), "/blocks"),
    (one("header", text=plain(150)), one("header", text=plain(151)), "/blocks/0/text/text"),
    (one("header", text=plain(1)), one("header", text=mrkdwn(1)), "/blocks/0/text/type"),
    (sections(1, 3000), sections(1, 3001), "/blocks/0/text/text"),
    (sections(1, 1), sections(1, 0), "/blocks/0/text/text"),
    (one("section", fields=[mrkdwn(1)] * 10), one("section", fields=[mrkdwn(1)] * 11), "/blocks/0/fields"),
    (one("section", fields=[mrkdwn(2000)]), one("section", fields=[mrkdwn(2001)]), "/blocks/0/fields/0/text"),
    (one("section", text=mrkdwn(1)), one("section"), "/blocks/0"),
    (one("context", elements=[mrkdwn(1)] * 10), one("context", elements=[mrkdwn(1)] * 11), "/blocks/0/elements"),
    (one("context", elements=[mrkdwn(1)]), one("context", elements=[]), "/blocks/0/elements"),
    (one("actions", elements=[button()] * 25), one("actions", elements=[button()] * 26), "/blocks/0/elements"),
    (one("actions", elements=[button(75)]), one("actions", elements=[button(76)]), "/blocks/0/elements/0/text/text"),
    (
        one("actions", elements=[button(url="h" * 3000)]),
        one("actions", elements=[button(url="h" * 3001)]),
        "/blocks/0/elements/0/url",
    ),
    (
        one("actions", elements=[button(value="v" * 2000)]),
        one("actions", elements=[button(value="v" * 2001)]),
        "/blocks/0/elements/0/value",
    ),
    (
        one("actions", elements=[button(action_id="a"), button(action_id="b")]),
        one("actions", elements=[button(action_id="a"), button(action_id="a")]),
        "/blocks/0/elements/1/action_id",
    ),
    ([image(alt_text="a" * 2000)], [image(alt_text="a" * 2001)], "/blocks/0/alt_text"),
    ([image(image_url="h" * 3000)], [image(image_url="h" * 3001)], "/blocks/0/image_url"),
    ([image(title=plain(2000))], [image(title=plain(2001))], "/blocks/0/title/text"),
    (one("divider", block_id="b" * 255), one("divider", block_id="b" * 256), "/blocks/0/block_id"),
    (
        [*one("divider", block_id="a"), *one("divider", block_id="b")],
        [*one("divider", block_id="a"), *one("divider", block_id="a")],
        "/blocks/1/block_id",
    ),
    (one("divider"), one("carousel"), "/blocks/0/type"),
]


@pytest.mark.parametrize(("within", "beyond", "where"), LIMITS)
def test_blocks_beyond_a_limit_are_refused_and_the_place_is_named(
    within: Blocks, beyond: Blocks, where: str, slack: Simulator, client: WebClient
) -> None:
    assert client.chat_postMessage(channel="workflows", text="x", blocks=within)["ok"]
    with pytest.raises(SlackApiError) as failed:
        client.chat_postMessage(channel="workflows", text="x", blocks=beyond)
    told = failed.value.response.data
    assert isinstance(told, dict) and told["error"] == "invalid_blocks"
    assert told["errors"][0].endswith(f"[json-pointer:{where}]")
    assert told["response_metadata"]["messages"][0] == f"[ERROR] {told['errors'][0]}"
    assert len(slack.channel("workflows")) == 1


def error(client: WebClient, **what: Any) -> str:
    try:
        client.chat_postMessage(channel="workflows", **what)
    except SlackApiError as refused:
        return str(refused.response["error"])
    return ""


def test_a_text_beyond_the_limit_or_none_at_all_is_refused(client: WebClient) -> None:
    assert error(client, text="x" * 40_000) == ""
    assert error(client, text="x" * 40_001) == "msg_too_long"
    assert error(client, text="") == "no_text"
    assert error(client, text="", blocks=sections(1, 1)) == ""


def test_an_updated_text_may_be_shorter_only(client: WebClient) -> None:
    sent = client.chat_postMessage(channel="workflows", text="x" * 40_000)
    with pytest.raises(SlackApiError, match="msg_too_long"):
        client.chat_update(channel=sent["channel"], ts=sent["ts"], text="x" * 4_001)
    assert client.chat_update(channel=sent["channel"], ts=sent["ts"], text="x" * 4_000)["ok"]


def test_blocks_that_are_too_long_together_are_refused(client: WebClient) -> None:
    assert error(client, text="x", blocks=sections(4, 3000)) == ""
    assert error(client, text="x", blocks=sections(5, 2500)) == "msg_blocks_too_long"


def test_blocks_that_are_no_list_are_refused(client: WebClient) -> None:
    assert error(client, text="x", blocks="no JSON") == "invalid_blocks_format"
    assert error(client, text="x", blocks='{"type": "divider"}') == "invalid_blocks_format"
    assert error(client, text="x", blocks='["divider", {"type": ["divider"]}]') == "invalid_blocks"


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"event_type": "a", "event_payload": {"b": [1, {"c": True}], "d": "e"}}, ""),
        ({"event_type": "a", "event_payload": {}, "more": 1}, "invalid_metadata_format"),
        ({"event_type": "", "event_payload": {}}, "invalid_metadata_schema"),
        ({"event_type": "a"}, "invalid_metadata_schema"),
        ({"event_type": "a", "event_payload": {"b": None}}, "invalid_metadata_schema"),
        ({"event_type": "a", "event_payload": {"b": "x" * 8000}}, "metadata_too_large"),
        ("no JSON", "invalid_metadata_format"),
    ],
)
def test_metadata_is_an_event_with_plain_values(metadata: Any, told: str, client: WebClient) -> None:
    assert error(client, text="x", metadata=metadata) == told
