"""Checks the connection to Slack step by step and names the scope or invitation that is missing."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from step_contract.checks.findings import Finding, error, ok, warning

from airflow_monitor.slack_client import (
    ADVICE,
    CHANNEL_ID,
    MessageRejectedError,
    SlackClient,
    SlackNotConnectedError,
    SlackUnavailableError,
)

REQUIRED_SCOPES = {"chat:write": "posts and edits messages", "files:write": "uploads the plot"}
OPTIONAL_SCOPES = {
    "channels:history": "lets the monitor check whether a message arrived if Slack's response was lost; without it, that "
    "message may be posted twice",
    "channels:read": "finds the channel's id, which that check needs",
}


def check_permissions(channel: str) -> Iterator[Finding]:
    """Yield whether the token is valid, which scopes it lacks, and whether it sees the channel. Posts nothing."""
    client = SlackClient(channel, min_interval=0)
    try:
        identity = client.call("auth_test")
        scopes = _parse_scopes(identity)
        found = client.find_channel_id() if not scopes or "channels:read" in scopes else None
    except SlackNotConnectedError as problem:
        yield warning("slack", str(problem), "messages are only logged; docs/slack.md describes how to connect a workspace")
        return
    except (SlackUnavailableError, MessageRejectedError) as problem:
        yield error(
            "slack", str(problem), "docs/slack.md describes the app; a token that was replaced needs a restarted monitor"
        )
        return
    missing = [scope for scope in REQUIRED_SCOPES if scopes and scope not in scopes]
    optional = [scope for scope in OPTIONAL_SCOPES if scopes and scope not in scopes]
    state = f"connected to {identity.get('team')} as {identity.get('user')}"
    if missing:
        yield error("slack", f"{state}; missing scopes: {', '.join(missing)}", ADVICE["missing_scope"])
    elif found == channel and not re.fullmatch(CHANNEL_ID, channel):
        yield error("slack", f"{state}; it does not see #{channel.lstrip('#')}", ADVICE["channel_not_found"])
    elif optional:
        reasons = "; ".join(f"{scope} {OPTIONAL_SCOPES[scope]}" for scope in optional)
        yield warning("slack", f"{state}; optional scopes are missing: {', '.join(optional)}", reasons)
    else:
        yield ok("slack", f"{state}, with all scopes; make slack-test posts a message")


def check_slack(channel: str) -> int:
    """Post a message, edit it, upload a picture into its thread, and print each result; return 0 if all succeed, else 1."""
    client = SlackClient(channel, min_interval=0)
    try:
        identity = client.call("auth_test")
    except SlackNotConnectedError as error:
        return _fail(str(error))
    except (SlackUnavailableError, MessageRejectedError) as error:
        return _fail(str(error))
    print(f"ok: connected to {identity.get('team')} as {identity.get('user')}")
    scopes = _parse_scopes(identity)
    missing = [scope for scope in REQUIRED_SCOPES if scopes and scope not in scopes]
    for scope in missing:
        print(f"MISSING scope {scope}: {REQUIRED_SCOPES[scope]}")
    for scope in [scope for scope in OPTIONAL_SCOPES if scopes and scope not in scopes]:
        print(f"optional scope {scope} is missing: {OPTIONAL_SCOPES[scope]}")
    if missing:
        return _fail(ADVICE["missing_scope"])
    try:
        message = client.post("slack-check", "Test message; it will be edited.", (), None, False)
        print(f"ok: posted a message to #{channel.lstrip('#')}")
        client.update(message, "slack-check", ":white_check_mark: Test message of market-daily: posted and edited.", ())
        print("ok: edited it")
        client.upload("test.png", make_png(), "Test picture", message)
        print("ok: uploaded a picture into its thread")
    except (SlackUnavailableError, MessageRejectedError) as error:
        return _fail(str(error))
    print("The connection to Slack works")
    return 0


def _parse_scopes(response: Any) -> set[str]:
    headers = {name.lower(): value for name, value in (response.headers or {}).items()}
    value = headers.get("x-oauth-scopes", "")
    scopes = (value if isinstance(value, str) else ",".join(value)).split(",")
    return {scope.strip() for scope in scopes if scope.strip()}


def _fail(reason: str) -> int:
    print(f"The connection to Slack does not work: {reason}")
    return 1


def make_png(side: int = 16) -> bytes:
    """Return a green square as a PNG of `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x2e\xb6\x7d" * side) * side
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
