"""Tries out the connection to Slack, step by step, and says which scope or invitation is missing."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from airflow_monitor.slack_client import ADVICE, NotConnected, Refused, Slack, Unavailable

NEEDED = {"chat:write": "posts and edits messages", "files:write": "sends the picture"}
WANTED = {
    "channels:history": "looks whether a message was sent whose answer got lost; without it such a one may come twice",
    "channels:read": "finds the channel's id for that",
}


def slack_test(channel: str) -> int:
    """Posts a message, edits it and sends a picture into its thread; prints what worked. Returns 0 when all did, or else 1."""
    slack = Slack(channel, pace=0)
    try:
        who = slack.call("auth_test")
    except NotConnected as error:
        return _failed(f"{error}: set AIRFLOW_CONN_SLACK_CONN, in a cluster the secret slack; see docs/slack.md")
    except (Unavailable, Refused) as error:
        return _failed(str(error))
    print(f"ok: {who.get('team')}, as {who.get('user')}")
    scopes = _scopes(who)
    lacking = [scope for scope in NEEDED if scopes and scope not in scopes]
    for scope in lacking:
        print(f"MISSING scope {scope}: {NEEDED[scope]}")
    for scope in [scope for scope in WANTED if scopes and scope not in scopes]:
        print(f"no scope {scope}, which is no must: {WANTED[scope]}")
    if lacking:
        return _failed(ADVICE["missing_scope"])
    try:
        thread = slack.post("slack-test", "A test: this message will be edited.", (), None, False)
        print(f"ok: a message to #{channel.lstrip('#')}")
        slack.update(*thread, "slack-test", ":white_check_mark: A test of market-daily: posted and edited.", ())
        print("ok: edited")
        slack.upload("test.png", square(), "and a picture", thread)
        print("ok: a picture in its thread")
    except (Unavailable, Refused) as error:
        return _failed(str(error))
    print("Slack hears of everything")
    return 0


def _scopes(answer: Any) -> set[str]:
    headers = {name.lower(): value for name, value in (answer.headers or {}).items()}
    told = headers.get("x-oauth-scopes", "")
    return {scope.strip() for scope in (told if isinstance(told, str) else ",".join(told)).split(",") if scope.strip()}


def _failed(why: str) -> int:
    print(f"Slack was not told: {why}")
    return 1


def square(side: int = 16) -> bytes:
    """A green square as a PNG of `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x2e\xb6\x7d" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
