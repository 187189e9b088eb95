"""Slack's Block Kit, within its documented limits, and text that Slack shows as it is.

https://docs.slack.dev/reference/block-kit/blocks and https://docs.slack.dev/messaging/formatting-message-text
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from airflow_steps.redaction import redact

Block = dict[str, Any]

SECTION = 3000  # characters of a section's text, markup included
FIELD = 2000
FIELDS = 10
ELEMENT = 2000
TEXT = 4000  # of what a notification shows; Slack cuts at 40,000
URL = 1500
BRIEF = 200  # of a part of a line

ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def safe(text: str, length: int) -> str:
    """`text` in one line, without secrets, as Slack shows it and not as it would read it; at most `length` characters."""
    words = " ".join(redact(text).split())
    escaped = [ESCAPED.get(letter, letter) for letter in words]
    if sum(map(len, escaped)) <= length:
        return "".join(escaped)
    room, kept = length - 1, []
    for letter in escaped:
        room -= len(letter)
        if room < 0:
            break
        kept.append(letter)
    return "".join(kept).rstrip() + "…"


def link(url: str | None, words: str) -> str:
    """A link with these words; the words alone where there is nowhere to link to, or too far."""
    if not url or len(url) > URL:
        return safe(words, 100)
    address = url.replace("&", "&amp;").replace("<", "%3C").replace(">", "%3E").replace("|", "%7C")
    return f"<{address}|{safe(words, 100).replace('|', '/')}>"


def link_if(url: str | None, words: str) -> str:
    """A link with these words; nothing where there is nowhere to link to."""
    return link(url, words) if url else ""


def bold(text: str) -> str:
    """`text`, brief and bold: what a message is about."""
    return f"*{safe(text, BRIEF)}*"


def section(text: str, fields: Sequence[str] = ()) -> Block:
    """A paragraph of mrkdwn, with short fields in two columns below."""
    block: Block = {"type": "section", "text": {"type": "mrkdwn", "text": whole(text, SECTION)}}
    if fields:
        block["fields"] = [{"type": "mrkdwn", "text": whole(one, FIELD)} for one in fields[:FIELDS]]
    return block


def context(texts: Iterable[str]) -> list[Block]:
    """A small grey line of these texts; no block where there are none."""
    joined = whole(" · ".join(filter(None, texts)), ELEMENT)
    return [{"type": "context", "elements": [{"type": "mrkdwn", "text": joined}]}] if joined else []


def whole(text: str, length: int) -> str:
    """mrkdwn of at most `length` characters: cut between words, never within a link or an escape."""
    if len(text) <= length:
        return text
    cut = text[: length - 1]
    cut = cut[: max(cut.rfind(" "), 0)] or cut
    if cut.rfind("<") > cut.rfind(">"):
        cut = cut[: cut.rfind("<")]
    cut = re.sub(r"&[a-z]{0,3}$", "", cut)
    return cut.rstrip() + "…"
