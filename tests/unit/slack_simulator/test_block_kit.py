"""The simulator refuses what Slack refuses, with Slack's error and the place of the problem."""

from __future__ import annotations

from typing import Any

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_simulator.simulator import Simulator

Blocks = list[dict[str, Any]]


def mrkdwn(length: int) -> dict[str, str]:
    return {"type": "mrkdwn", "text": "x" * length}


def block(block_type: str, **fields: Any) -> Blocks:
    return [{"type": block_type} | fields]


def sections(count: int, length: int) -> Blocks:
    return block("section", text=mrkdwn(length)) * count


# For each limit: valid blocks, invalid blocks, and the place that Slack names.
LIMITS: list[tuple[Blocks, Blocks, str]] = [
    (sections(50, 1), sections(51, 1), "/blocks"),
    (sections(1, 3000), sections(1, 3001), "/blocks/0/text/text"),
    (sections(1, 1), sections(1, 0), "/blocks/0/text/text"),
    (sections(1, 1), block("section", text={"type": "html", "text": "x"}), "/blocks/0/text/type"),
    (block("section", fields=[mrkdwn(1)] * 10), block("section", fields=[mrkdwn(1)] * 11), "/blocks/0/fields"),
    (block("section", fields=[mrkdwn(2000)]), block("section", fields=[mrkdwn(2001)]), "/blocks/0/fields/0/text"),
    (block("section", text=mrkdwn(1)), block("section"), "/blocks/0"),
    (block("context", elements=[mrkdwn(1)] * 10), block("context", elements=[mrkdwn(1)] * 11), "/blocks/0/elements"),
    (block("context", elements=[mrkdwn(1)]), block("context", elements=[]), "/blocks/0/elements"),
    (sections(1, 1), block("carousel"), "/blocks/0/type"),
]


@pytest.mark.parametrize(("valid", "invalid", "place"), LIMITS)
def test_blocks_beyond_a_limit_are_refused_with_the_place(
    valid: Blocks, invalid: Blocks, place: str, slack: Simulator, client: WebClient
) -> None:
    assert client.chat_postMessage(channel="workflows", text="x", blocks=valid)["ok"]
    with pytest.raises(SlackApiError) as raised:
        client.chat_postMessage(channel="workflows", text="x", blocks=invalid)
    response = raised.value.response.data
    assert isinstance(response, dict) and response["error"] == "invalid_blocks"
    assert response["errors"][0].endswith(f"[json-pointer:{place}]")
    assert response["response_metadata"]["messages"][0] == f"[ERROR] {response['errors'][0]}"
    assert len(slack.channel("workflows")) == 1


def post_error(client: WebClient, **arguments: Any) -> str:
    """Post a message; return Slack's error, or an empty string."""
    try:
        client.chat_postMessage(channel="workflows", **arguments)
    except SlackApiError as error:
        return str(error.response["error"])
    return ""


def test_too_long_or_empty_text_is_refused(client: WebClient) -> None:
    assert post_error(client, text="x" * 40_000) == ""
    assert post_error(client, text="x" * 40_001) == "msg_too_long"
    assert post_error(client, text="") == "no_text"
    assert post_error(client, text="", blocks=sections(1, 1)) == ""


def test_updated_text_has_a_lower_limit(client: WebClient) -> None:
    posted = client.chat_postMessage(channel="workflows", text="x" * 40_000)
    with pytest.raises(SlackApiError, match="msg_too_long"):
        client.chat_update(channel=posted["channel"], ts=posted["ts"], text="x" * 4_001)
    assert client.chat_update(channel=posted["channel"], ts=posted["ts"], text="x" * 4_000)["ok"]


def test_blocks_that_are_too_long_in_total_are_refused(client: WebClient) -> None:
    assert post_error(client, text="x", blocks=sections(4, 3000)) == ""
    assert post_error(client, text="x", blocks=sections(5, 2500)) == "msg_blocks_too_long"


def test_blocks_that_are_not_a_list_of_objects_are_refused(client: WebClient) -> None:
    assert post_error(client, text="x", blocks="no JSON") == "invalid_blocks_format"
    assert post_error(client, text="x", blocks='{"type": "divider"}') == "invalid_blocks_format"
    assert post_error(client, text="x", blocks='["divider", {"type": ["divider"]}]') == "invalid_blocks"


@pytest.mark.parametrize(
    ("metadata", "error"),
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
def test_invalid_metadata_is_refused(metadata: Any, error: str, client: WebClient) -> None:
    assert post_error(client, text="x", metadata=metadata) == error
