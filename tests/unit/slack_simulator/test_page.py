"""The page shows what was sent as Slack would, and nothing that was sent can be more than shown."""

from __future__ import annotations

import itertools
import re
import urllib.request
from html.parser import HTMLParser
from typing import Any

import pytest
from slack_sdk import WebClient
from slack_simulator import mrkdwn
from slack_simulator.page import render_page
from slack_simulator.simulator import Simulator
from slack_simulator.workspace import Workspace

PICTURE = b"\x89PNG\r\n\x1a\n\x00 a picture \xff"
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>' onmouseover='alert(3)"
SCRIPT = "javascript:alert(4)"
HOSTILE_CHANNEL = "<script>x"


def page(slack: Simulator, query: str = "") -> str:
    with urllib.request.urlopen(f"{slack.page_url}{query}", timeout=10) as answer:  # noqa: S310
        body: bytes = answer.read()
    return body.decode()


class Tags(HTMLParser):
    """All elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("*bold* _italic_ ~gone~ `a *b*`", "<b>bold</b> <i>italic</i> <s>gone</s> <code>a *b*</code>"),
        ("*bold with _italic_*", "<b>bold with <i>italic</i></b>"),
        ("2_000_000 a*b*c :nosuch: 12:30:45", "2_000_000 a*b*c :nosuch: 12:30:45"),
        ("a &amp; b &lt;i&gt; & <", "a &amp; b &lt;i&gt; &amp; &lt;"),
        ("&amp;lt;", "&amp;lt;"),
        (":white_check_mark: done", "✅ done"),
    ],
)
def test_marks_are_shown_and_what_only_looks_like_one_stays_text(sent: str, shown: str) -> None:
    assert mrkdwn.inline(sent) == shown


def test_links_have_their_words_and_other_addresses_are_text() -> None:
    found = mrkdwn.inline("<https://a.example/?x=1&y=_2_|the *log*> <https://b.example> https://c.example/d")
    assert [tag[1]["href"] for tag in Tags(found).found if tag[0] == "a"] == [
        "https://a.example/?x=1&y=_2_",
        "https://b.example",
        "https://c.example/d",
    ]
    assert ">the <b>log</b></a>" in found
    assert mrkdwn.inline("<javascript:alert(1)|here> <!here>") == 'here <span class="mention">@here</span>'


def test_lists_quotes_and_preformatted_text_keep_their_lines() -> None:
    found = mrkdwn.html("Why:\n• one\n• two\n&gt; said\n```\na *b*\n  <c>\n```\nend")
    assert found.count('class="item"') == 2
    assert "<blockquote>said</blockquote>" in found
    assert "<pre>a *b*\n  &lt;c&gt;</pre>" in found
    assert found.endswith("<div>end</div>")


def test_messages_stand_under_their_day_and_hour_in_seoul() -> None:
    clock = itertools.chain([1768467600.0], itertools.repeat(1768489500.0))  # 15 January 2026, 18:00 in Seoul; past midnight
    workspace = Workspace(now=lambda: next(clock))
    for text in ("the close", "the next day"):
        workspace.add(workspace.open_channel("workflows"), text=text)
    found = render_page(workspace)
    order = ["Thursday, January 15th", "6:00 PM", "the close", "Friday, January 16th", "12:05 AM", "the next day"]
    places = [found.index(one) for one in order]
    assert places == sorted(places)


def test_a_thread_opens_under_its_message_and_a_broadcast_says_so(slack: Simulator, client: WebClient) -> None:
    root = client.chat_postMessage(channel="workflows", text="the session")
    for number in range(2):
        client.chat_postMessage(channel="workflows", text=f"step {number}", thread_ts=root["ts"])
    client.chat_postMessage(channel="workflows", text="it failed", thread_ts=root["ts"], reply_broadcast=True)
    client.chat_update(channel=root["channel"], ts=root["ts"], text="the session is done")
    shown = page(slack)
    assert "3 replies" in shown and "(edited)" in shown and "replied to a thread" in shown
    thread = shown[shown.index("<details") : shown.index("</details>")]
    assert [text in thread for text in ("step 0", "step 1", "it failed", "the session is done")] == [True, True, True, False]
    assert "step 1" in page(slack, f"thread?ts={root['ts']}")


def test_each_kind_of_block_is_shown(slack: Simulator, client: WebClient) -> None:
    text = {"type": "mrkdwn", "text": "*KOSPI* <https://example.org|source>"}
    button = {"type": "button", "text": {"type": "plain_text", "text": "Open the log"}, "url": "https://example.org/log"}
    rich = {"type": "rich_text_section", "elements": [{"type": "text", "text": "rich", "style": {"bold": True}}]}
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": ":calendar: 2026-01-15"}},
        {"type": "section", "text": text, "fields": [{"type": "mrkdwn", "text": "*Close*\n4,797.55"}]},
        {"type": "divider"},
        {"type": "context", "elements": [{"type": "mrkdwn", "text": "model `ed1e`"}]},
        {"type": "image", "image_url": "https://example.org/a.png", "alt_text": "a plot"},
        {"type": "actions", "elements": [button]},
        {"type": "rich_text", "elements": [rich]},
    ]
    client.chat_postMessage(channel="workflows", text="only a notification", blocks=blocks)
    shown = page(slack)
    assert "only a notification" not in shown
    for part in ("📅 2026-01-15</h3>", "<b>KOSPI</b>", "4,797.55", "<hr>", "<code>ed1e</code>", 'alt="a plot"', "<b>rich</b>"):
        assert part in shown, part
    assert ("a", "https://example.org/log") in [(tag, given.get("href")) for tag, given in Tags(shown).found]


def test_the_page_alone_holds_its_pictures_and_asks_nothing_of_anybody(slack: Simulator, client: WebClient) -> None:
    sent = client.chat_postMessage(channel="workflows", text="root")
    where = {"channel": sent["channel"], "thread_ts": sent["ts"]}
    client.files_upload_v2(**where, filename="forecast.png", content=PICTURE, title="The forecast")
    shown = render_page(slack.workspace, "workflows")
    sources = [given.get("src") or "" for tag, given in Tags(shown).found if tag == "img"]
    assert [source[:22] for source in sources] == ["data:image/png;base64,"]
    assert not [given for tag, given in Tags(shown).found if tag in ("script", "link", "iframe") or "http-equiv" in given]


def hostile(slack: Simulator, client: WebClient) -> None:
    text = {"type": "mrkdwn", "text": f"{HOSTILE} <{SCRIPT}|x> <https://e.example/{HOSTILE[:2]}|{HOSTILE}>"}
    button = {"type": "button", "text": {"type": "plain_text", "text": HOSTILE[:75]}, "url": SCRIPT, "value": HOSTILE}
    pieces = [
        {"type": "text", "text": HOSTILE},
        {"type": "link", "url": SCRIPT, "text": HOSTILE},
        {"type": "emoji", "name": "<b>"},
    ]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": HOSTILE[:150], "emoji": False}},
        {"type": "section", "text": text, "fields": [text], "accessory": button},
        {"type": "context", "elements": [text, {"type": "image", "image_url": SCRIPT, "alt_text": HOSTILE}]},
        {"type": "image", "image_url": f"https://e.example/{HOSTILE}", "alt_text": HOSTILE},
        {"type": "actions", "elements": [button]},
        {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": pieces}]},
    ]
    sent = client.chat_postMessage(channel=slack.workspace.open_channel(HOSTILE_CHANNEL).id, text=HOSTILE)
    inside = {"channel": sent["channel"], "thread_ts": sent["ts"], "reply_broadcast": True}
    client.chat_postMessage(channel=sent["channel"], text=HOSTILE, blocks=blocks)
    client.chat_postMessage(**inside, text=f"```{HOSTILE}``` `{HOSTILE}`")
    client.files_upload_v2(channel=sent["channel"], filename=f"{HOSTILE}.svg", content="<svg onload=alert(5)>", title=HOSTILE)
    client.files_upload_v2(channel=sent["channel"], filename=f"{HOSTILE}.png", content=PICTURE, title=HOSTILE, alt_txt=HOSTILE)


def test_nothing_that_was_sent_becomes_markup(slack: Simulator, client: WebClient) -> None:
    hostile(slack, client)
    thread = f"thread?ts={slack.channel(HOSTILE_CHANNEL)[0].ts}"
    for shown in (page(slack), page(slack, thread), render_page(slack.workspace)):
        assert "alert(1)" in shown
        for tag, given in Tags(shown).found:
            assert tag not in ("script", "svg", "iframe", "object")
            assert not [name for name in given if name.startswith("on")]
            for name in ("href", "src"):
                assert re.match(r"(https?:|mailto:|data:|/|#|$)", given.get(name) or ""), given
            assert not (given.get("href") or "").startswith("data:text")


def test_a_file_that_is_no_picture_is_only_ever_downloaded(slack: Simulator, client: WebClient) -> None:
    sent = client.chat_postMessage(channel="workflows", text="x")
    client.files_upload_v2(channel=sent["channel"], filename="a.html", content="<script>alert(1)</script>")
    [file] = client.conversations_history(channel=sent["channel"])["messages"][0]["files"]
    with urllib.request.urlopen(file["url_private"], timeout=10) as answer:  # noqa: S310
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
