"""Slack's Block Kit within its documented limits, and text that Slack shows literally.

https://docs.slack.dev/reference/block-kit/blocks and https://docs.slack.dev/messaging/formatting-message-text
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from airflow_steps.redaction import redact_text

Block = dict[str, Any]

# Characters, markup included.
SECTION_LENGTH = 3000
FIELD_LENGTH = 2000
MAX_FIELDS = 10
ELEMENT_LENGTH = 2000
ALT_LENGTH = 2000
TEXT_LENGTH = 4000  # Slack truncates the notification text at 40,000
URL_LENGTH = 1500
PHRASE_LENGTH = 200  # a part of a line

ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape(text: str, length: int) -> str:
    """Return `text` on one line, redacted, escaped for mrkdwn and truncated to `length` characters."""
    line = " ".join(redact_text(text).split())
    escaped = [ESCAPES.get(character, character) for character in line]
    if sum(map(len, escaped)) <= length:
        return "".join(escaped)
    remaining, kept = length - 1, []
    for character in escaped:
        remaining -= len(character)
        if remaining < 0:
            break
        kept.append(character)
    return "".join(kept).rstrip() + "…"


def link(url: str | None, label: str) -> str:
    """Return a link, or the label alone if there is no URL or it is too long."""
    if not url or len(url) > URL_LENGTH:
        return escape(label, 100)
    address = url.replace("&", "&amp;").replace("<", "%3C").replace(">", "%3E").replace("|", "%7C")
    return f"<{address}|{escape(label, 100).replace('|', '/')}>"


def optional_link(url: str | None, label: str) -> str:
    """Return a link, or an empty string if there is no URL."""
    return link(url, label) if url else ""


def bold(text: str) -> str:
    """Return `text` escaped, truncated and bold."""
    return f"*{escape(text, PHRASE_LENGTH)}*"


def section(text: str, fields: Sequence[str] = ()) -> Block:
    """Return a section block: a paragraph of mrkdwn, with short fields in two columns below it."""
    block: Block = {"type": "section", "text": {"type": "mrkdwn", "text": truncate(text, SECTION_LENGTH)}}
    if fields:
        block["fields"] = [{"type": "mrkdwn", "text": truncate(field, FIELD_LENGTH)} for field in fields[:MAX_FIELDS]]
    return block


def sections(lines: Iterable[str]) -> list[Block]:
    """Return section blocks with the lines, as many in each as Slack allows."""
    paragraphs: list[str] = []
    for line in lines:
        if paragraphs and len(paragraphs[-1]) + len(line) < SECTION_LENGTH:
            paragraphs[-1] += f"\n{line}"
        else:
            paragraphs.append(line)
    return [section(paragraph) for paragraph in paragraphs]


def context(texts: Iterable[str]) -> list[Block]:
    """Return a context block with the texts that are not empty; no block if all are."""
    joined = truncate(" · ".join(filter(None, texts)), ELEMENT_LENGTH)
    return [{"type": "context", "elements": [{"type": "mrkdwn", "text": joined}]}] if joined else []


def image(file_id: str, alt_text: str) -> Block:
    """Return an image block that shows a picture that was uploaded before. `alt_text`: plain text."""
    return {"type": "image", "slack_file": {"id": file_id}, "alt_text": alt_text[:ALT_LENGTH] or "picture"}


def truncate(text: str, length: int) -> str:
    """Return mrkdwn of at most `length` characters, cut between words and never within a link or an escape."""
    if len(text) <= length:
        return text
    cut = text[: length - 1]
    cut = cut[: max(cut.rfind(" "), 0)] or cut
    if cut.rfind("<") > cut.rfind(">"):
        cut = cut[: cut.rfind("<")]
    cut = re.sub(r"&[a-z]{0,3}$", "", cut)
    return cut.rstrip() + "…"
