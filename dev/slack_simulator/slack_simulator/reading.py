"""The methods that read: channels, their history, threads."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from slack_simulator.call import NOT_IN, Answer, Call, Refused
from slack_simulator.sending import shown
from slack_simulator.workspace import Message

MOST = 1_000  # items of one answer


def list_channels(call: Call) -> Answer:
    """The channels, by pages."""
    kinds = (call.text("types") or "public_channel").split(",")
    channels = list(call.workspace.channels.values()) if "public_channel" in kinds else []
    page, cursor = _page(call, channels, 100)
    facts = {"is_channel": True, "is_private": False, "is_archived": False}
    found = [{"id": one.id, "name": one.name, "is_member": not one.name.startswith(NOT_IN)} | facts for one in page]
    return {"channels": found, "response_metadata": {"next_cursor": cursor}}


def history(call: Call) -> Answer:
    """What a channel shows, the newest first; what stays in threads is left out."""
    channel = call.channel()
    found = _within(call, reversed(call.workspace.in_channel(channel)))
    page, cursor = _page(call, found, 100)
    metadata = call.flag("include_all_metadata")
    more = {"response_metadata": {"next_cursor": cursor}} if cursor else {}
    return {"messages": [shown(call, one, metadata=metadata) for one in page], "has_more": bool(cursor), "pin_count": 0} | more


def replies(call: Call) -> Answer:
    """A thread: the message that started it, then the replies, the oldest first."""
    channel = call.channel()
    known = call.workspace.messages[channel.id]
    asked = known.get(call.text("ts"))
    root = known.get(asked.thread_ts) if asked and asked.is_reply else asked
    if not root:
        raise Refused("thread_not_found")
    page, cursor = _page(call, [root, *_within(call, call.workspace.replies(root))], MOST)
    metadata = call.flag("include_all_metadata")
    more = {"response_metadata": {"next_cursor": cursor}} if cursor else {}
    return {"messages": [shown(call, one, metadata=metadata) for one in page], "has_more": bool(cursor)} | more


def _within(call: Call, messages: Iterable[Message]) -> list[Message]:
    bounds = {}
    for name, otherwise in (("oldest", 0.0), ("latest", float("inf"))):
        try:
            bounds[name] = float(call.text(name) or otherwise)
        except ValueError:
            raise Refused(f"invalid_ts_{name}") from None
    first, last = bounds["oldest"], bounds["latest"]
    ends = (first, last) if call.flag("inclusive") else ()
    return [one for one in messages if first < float(one.ts) < last or float(one.ts) in ends]


def _page(call: Call, items: list[Any], otherwise: int) -> tuple[list[Any], str]:
    try:
        limit = int(call.text("limit") or otherwise)
    except ValueError:
        limit = 0
    if not 0 < limit <= MOST:
        raise Refused("invalid_limit")
    try:
        start = int(base64.b64decode(call.text("cursor"), validate=True) or 0)
    except ValueError:
        raise Refused("invalid_cursor") from None
    after = start + limit
    return items[start:after], base64.b64encode(str(after).encode()).decode() if after < len(items) else ""
