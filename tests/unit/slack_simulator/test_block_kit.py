"""The simulator refuses what Slack refuses, with Slack's error and the place of the problem."""

from __future__ import annotations

import urllib.request
from typing import Any

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_simulator.simulator import Simulator

Blocks = list[dict[str, Any]]
PICTURE = b"\x89PNG\r\n\x1a\n\x00 a picture \xff"


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


def image(file_id: Any, **fields: Any) -> Blocks:
    return block("image", slack_file={"id": file_id}, alt_text="the forecast") if not fields else block("image", **fields)


def test_an_image_block_shows_only_a_picture_that_was_shared(slack: Simulator, client: WebClient) -> None:
    channel = client.chat_postMessage(channel="workflows", text="x")["channel"]
    shared, other = (
        client.files_upload_v2(channel=channel, filename=name, content=content)["files"][0]["id"]
        for name, content in (("a.png", PICTURE), ("a.txt", b"text"))
    )
    announced = client.files_getUploadURLExternal(filename="b.png", length=len(PICTURE))
    urllib.request.urlopen(announced["upload_url"], data=PICTURE, timeout=10).close()  # noqa: S310
    assert post_error(client, text="x", blocks=image(shared)) == ""
    posted = slack.channel("workflows")[-1]
    assert client.chat_update(channel=channel, ts=posted.ts, text="x", blocks=image(shared))["ok"]
    for file_id in (other, announced["file_id"], "F0123456789"):
        with pytest.raises(SlackApiError) as raised:
            client.chat_postMessage(channel=channel, text="x", blocks=image(file_id))
        assert raised.value.response["errors"] == ["invalid slack file [json-pointer:/blocks/0/slack_file]"]


@pytest.mark.parametrize(
    ("blocks", "place"),
    [
        (image("x"), "/blocks/0/slack_file/id"),
        (image(7), "/blocks/0/slack_file"),
        (image("", slack_file="F0123456789", alt_text="x"), "/blocks/0/slack_file"),
        (image("", image_url="https://a.example/b.png", alt_text="x"), "/blocks/0/slack_file"),
        (image("", slack_file={"id": "F0123456789"}), "/blocks/0"),
        (image("", slack_file={"id": "F0123456789"}, alt_text="x" * 2001), "/blocks/0/alt_text"),
    ],
)
def test_an_invalid_image_block_is_refused_with_the_place(blocks: Blocks, place: str, client: WebClient) -> None:
    with pytest.raises(SlackApiError) as raised:
        client.chat_postMessage(channel="workflows", text="x", blocks=blocks)
    assert raised.value.response["errors"][0].endswith(f"[json-pointer:{place}]")


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
