"""Slack's mrkdwn as HTML: the marks and emoji that the monitor sends. Everything else is escaped.

https://docs.slack.dev/messaging/formatting-message-text
"""

from __future__ import annotations

import re
from html import escape

EMOJI = {
    "white_check_mark": "✅",
    "red_circle": "🔴",
    "large_orange_circle": "🟠",
    "large_yellow_circle": "🟡",
    "large_green_circle": "🟢",
    "large_blue_circle": "🔵",
    "white_circle": "⚪️",
    "black_circle": "⚫️",
}
SCHEMES = ("http://", "https://")
EMOJI_NAME = re.compile(r":([a-z0-9_+-]{1,60}):")
# Formatting characters inside a word are literal: 2_000_000 is not italic.
MARK = re.compile(
    r"`(?P<code>[^`\n]+)`"
    r"|<(?P<link>[^<>\n]+)>"
    r"|(?<![\w*])\*(?P<bold>[^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])"
    r"|(?<![\w_])_(?P<italic>[^\s_](?:[^_\n]*[^\s_])?)_(?![\w_])"
    r"|(?P<url>https?://[^\s<>|]+)"
)


def to_html(text: str) -> str:
    """Return a mrkdwn text as HTML."""
    parts, end = [], 0
    for mark in MARK.finditer(text):
        parts += [plain_to_html(text[end : mark.start()]), _mark_to_html(mark)]
        end = mark.end()
    return "".join([*parts, plain_to_html(text[end:])])


def plain_to_html(text: str) -> str:
    """Return a text without marks as HTML: emoji shown, line breaks kept, Slack's three entities decoded first."""
    return EMOJI_NAME.sub(lambda name: EMOJI.get(name[1], name[0]), _escape(text)).replace("\n", "<br>\n")


def _escape(text: str) -> str:
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(entity, character)
    return escape(text)


def _mark_to_html(mark: re.Match[str]) -> str:
    kind, content = str(mark.lastgroup), mark[str(mark.lastgroup)]
    if kind == "code":
        return f"<code>{_escape(content)}</code>"
    if kind == "link":
        url, _, label = content.partition("|")
        return _link(url, to_html(label) if label else _escape(url))
    if kind == "url":
        return _link(content, _escape(content))
    tag = {"bold": "b", "italic": "i"}[kind]
    return f"<{tag}>{to_html(content)}</{tag}>"


def _link(url: str, label: str) -> str:
    """Return a link with a label in HTML; only the label if the URL is not a web address."""
    url = url.replace("&amp;", "&")
    if not url.lower().startswith(SCHEMES):
        return label
    return f'<a href="{escape(url)}" rel="noopener noreferrer" target="_blank">{label}</a>'
