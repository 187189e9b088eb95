"""The page shows what was sent as Slack does, and nothing that was sent becomes markup."""

from __future__ import annotations

import itertools
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from slack_sdk import WebClient
from slack_simulator import mrkdwn
from slack_simulator.page import render_page
from slack_simulator.simulator import Simulator
from slack_simulator.workspace import Workspace

from ..page_elements import PageElements

MONITOR = Path(__file__).resolve().parents[3] / "images" / "airflow"
PICTURE = b"\x89PNG\r\n\x1a\n\x00 a picture \xff"
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>' onmouseover='alert(3)"
SCRIPT = "javascript:alert(4)"
HOSTILE_CHANNEL = "<script>x"


def get_page(slack: Simulator, path: str = "") -> str:
    with urllib.request.urlopen(f"{slack.page_url}{path}", timeout=10) as response:  # noqa: S310
        body: bytes = response.read()
    return body.decode()


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("*bold* _italic_ `a *b*`", "<b>bold</b> <i>italic</i> <code>a *b*</code>"),
        ("*bold with _italic_*", "<b>bold with <i>italic</i></b>"),
        ("2_000_000 a*b*c :nosuch: 12:30:45", "2_000_000 a*b*c :nosuch: 12:30:45"),
        ("a &amp; b &lt;i&gt; & <", "a &amp; b &lt;i&gt; &amp; &lt;"),
        ("&amp;lt;", "&amp;lt;"),
        (":white_check_mark: done", "✅ done"),
        ("• one\n• two", "• one<br>\n• two"),
    ],
)
def test_marks_become_elements_and_other_text_is_escaped(text: str, html: str) -> None:
    assert mrkdwn.to_html(text) == html


def test_links_keep_their_label_and_other_schemes_are_text() -> None:
    html = mrkdwn.to_html("<https://a.example/?x=1&y=_2_|the *log*> <https://b.example> https://c.example/d")
    assert [attributes["href"] for tag, attributes in PageElements(html).elements if tag == "a"] == [
        "https://a.example/?x=1&y=_2_",
        "https://b.example",
        "https://c.example/d",
    ]
    assert ">the <b>log</b></a>" in html
    assert mrkdwn.to_html("<javascript:alert(1)|here>") == "here"


def test_every_emoji_in_the_monitors_code_is_known() -> None:
    names = {name for file in MONITOR.rglob("*.py") for name in re.findall(r":([a-z]+(?:_[a-z]+)+):", file.read_text())}
    assert "red_circle" in names and names <= set(mrkdwn.EMOJI)


def test_messages_are_grouped_by_date_in_seoul() -> None:
    clock = itertools.chain([1768467600.0], itertools.repeat(1768489500.0))  # 15 January 2026, 18:00 in Seoul; past midnight
    workspace = Workspace(now=lambda: next(clock))
    for text in ("the close", "the next day"):
        workspace.add(workspace.open_channel("workflows"), text=text)
    html = render_page(workspace)
    order = ["Thursday, 15 January 2026", "18:00", "the close", "Friday, 16 January 2026", "00:05", "the next day"]
    places = [html.index(text) for text in order]
    assert places == sorted(places)


def test_thread_is_below_its_message_and_broadcasts_link_to_it(slack: Simulator, client: WebClient) -> None:
    root = client.chat_postMessage(channel="workflows", text="the session")
    for number in range(2):
        client.chat_postMessage(channel="workflows", text=f"step {number}", thread_ts=root["ts"])
    client.chat_postMessage(channel="workflows", text="it failed", thread_ts=root["ts"], reply_broadcast=True)
    client.chat_update(channel=root["channel"], ts=root["ts"], text="the session is done")
    html = get_page(slack)
    assert "3 replies" in html and "(edited)" in html and "replied to a thread" in html
    thread = html[html.index("<details") : html.index("</details>")]
    assert [text in thread for text in ("step 0", "step 1", "it failed", "the session is done")] == [True, True, True, False]
    assert "step 1" in get_page(slack, f"thread?ts={root['ts']}")


def test_blocks_are_shown_instead_of_the_text(slack: Simulator, client: WebClient) -> None:
    text = {"type": "mrkdwn", "text": "*KOSPI* <https://example.org|source>"}
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": text, "fields": [{"type": "mrkdwn", "text": "*Close*\n4,797.55"}]},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "model `ed1e`"}]},
    ]
    client.chat_postMessage(channel="workflows", text="only a notification", blocks=blocks)
    html = get_page(slack)
    assert "only a notification" not in html
    for part in ("<b>KOSPI</b>", "4,797.55", "<code>ed1e</code>"):
        assert part in html, part
    assert ("a", "https://example.org") in [(tag, attributes.get("href")) for tag, attributes in PageElements(html).elements]


def test_saved_page_contains_its_pictures_and_loads_nothing(slack: Simulator, client: WebClient) -> None:
    root = client.chat_postMessage(channel="workflows", text="root")
    thread = {"channel": root["channel"], "thread_ts": root["ts"]}
    client.files_upload_v2(**thread, filename="forecast.png", content=PICTURE, title="The forecast")
    elements = PageElements(render_page(slack.workspace, "workflows")).elements
    sources = [attributes.get("src") or "" for tag, attributes in elements if tag == "img"]
    assert [source[:22] for source in sources] == ["data:image/png;base64,"]
    assert not [attributes for tag, attributes in elements if tag in ("script", "link", "iframe") or "http-equiv" in attributes]


def test_an_image_block_is_shown_below_its_text(slack: Simulator, client: WebClient) -> None:
    root = client.chat_postMessage(channel="workflows", text="root")
    thread = {"channel": root["channel"], "thread_ts": root["ts"]}
    file = client.files_upload_v2(**thread, filename="forecast.png", content=PICTURE, title="The forecast")["files"][0]["id"]
    text = {"type": "mrkdwn", "text": "the end"}
    blocks: list[dict[str, Any]] = [{"type": "section", "text": text}]
    blocks.append({"type": "image", "slack_file": {"id": file}, "alt_text": "the plot"})
    client.chat_postMessage(**thread, reply_broadcast=True, text="the end", blocks=blocks)
    html = get_page(slack)
    end = html.rindex("the end")
    assert f'src="/files/{file}/forecast.png"' in html[end:]


def post_hostile_messages(slack: Simulator, client: WebClient) -> None:
    text = {"type": "mrkdwn", "text": f"{HOSTILE} <{SCRIPT}|x> <https://e.example/{HOSTILE[:2]}|{HOSTILE}>"}
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": text, "fields": [text, {"type": "plain_text", "text": HOSTILE}]},
        {"type": "context", "elements": [text]},
    ]
    root = client.chat_postMessage(channel=slack.workspace.open_channel(HOSTILE_CHANNEL).id, text=HOSTILE)
    thread = {"channel": root["channel"], "thread_ts": root["ts"], "reply_broadcast": True}
    client.chat_postMessage(channel=root["channel"], text=HOSTILE, blocks=blocks)
    client.chat_postMessage(**thread, text=f"`{HOSTILE}`")
    client.files_upload_v2(channel=root["channel"], filename=f"{HOSTILE}.svg", content="<svg onload=alert(5)>", title=HOSTILE)
    client.files_upload_v2(channel=root["channel"], filename=f"{HOSTILE}.png", content=PICTURE, title=HOSTILE)


def test_nothing_that_was_sent_becomes_markup(slack: Simulator, client: WebClient) -> None:
    post_hostile_messages(slack, client)
    thread = f"thread?ts={slack.channel(HOSTILE_CHANNEL)[0].ts}"
    for html in (get_page(slack), get_page(slack, thread), render_page(slack.workspace)):
        assert "alert(1)" in html
        for tag, attributes in PageElements(html).elements:
            assert tag not in ("script", "svg", "iframe", "object")
            assert not [name for name in attributes if name.startswith("on")]
            for name in ("href", "src"):
                assert re.match(r"(https?:|data:|/|#|$)", attributes.get(name) or ""), attributes
            assert not (attributes.get("href") or "").startswith("data:text")


def test_only_pictures_are_served_with_their_media_type(slack: Simulator, client: WebClient) -> None:
    root = client.chat_postMessage(channel="workflows", text="x")
    client.files_upload_v2(channel=root["channel"], filename="a.html", content="<script>alert(1)</script>")
    [file] = client.conversations_history(channel=root["channel"])["messages"][0]["files"]
    with urllib.request.urlopen(file["url_private"], timeout=10) as response:  # noqa: S310
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
