"""The methods of Slack's Web API that the monitor and the tests call, with Slack's responses and errors.

https://docs.slack.dev/reference/methods
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from slack_simulator import block_kit
from slack_simulator.workspace import Channel, Message, Workspace

BOT_NAME, BOT_ID, USER_ID, TEAM_ID = "market-daily", "B0MARKETDAY", "U0MARKETDAY", "T0SIMULATOR"
# A channel whose name begins so does not exist; in one of the second kind the bot is not a member.
MISSING_CHANNEL, FOREIGN_CHANNEL = "no-such", "not-in"
CHANNEL_ID = re.compile(r"[CGDZ][A-Z0-9]{8,}")
CHANNEL_NAME = re.compile(r"(?:(?![A-Z])[\w-]){1,80}")
MAX_PAGE = 1_000  # items of one response

Response = dict[str, Any]


class ApiError(Exception):
    """An error that Slack responds with; `response` is the whole response."""

    def __init__(self, error: str, **fields: Any) -> None:
        super().__init__(error)
        self.response: Response = {"ok": False, "error": error} | fields


def invalid_arguments(message: str) -> ApiError:
    """Return the error for arguments of an invalid form."""
    return ApiError("invalid_arguments", response_metadata={"messages": [f"[ERROR] {message}"]})


@dataclass(frozen=True)
class Call:
    """A call of a method.

    Attributes:
        address: the simulator's URL as the client knows it, without a slash at the end.
        scopes: those of the token.
    """

    workspace: Workspace
    arguments: Mapping[str, Any]
    address: str
    scopes: Collection[str]

    def text(self, name: str) -> str:
        """Return an argument as text; empty if it is missing."""
        value = self.arguments.get(name)
        return "" if value is None else str(value)

    def flag(self, name: str) -> bool:
        """Return whether a boolean argument is set."""
        return self.text(name).lower() in ("1", "true")

    def parse(self, name: str) -> Any:
        """Return an argument that a form holds as JSON; None if it is missing. Raises ApiError if it is invalid."""
        value = self.arguments.get(name)
        try:
            return (json.loads(value) if value else None) if isinstance(value, str) else value
        except ValueError:
            raise ApiError(f"invalid_{name}_format") from None

    def channel(self, *, by_name: bool = False, members_only: bool = True) -> Channel:
        """Return the channel, by ID or, if the method accepts that, by name. Raises ApiError if the bot cannot use it.

        Without `members_only`, the scope PUBLIC_SCOPE replaces membership.
        """
        argument = self.text("channel")
        name = argument.removeprefix("#")
        channel = self.workspace.channels.get(argument)
        if not channel and by_name and CHANNEL_NAME.fullmatch(name) and not name.startswith(MISSING_CHANNEL):
            channel = self.workspace.open_channel(name)
        if not channel:
            raise ApiError("channel_not_found")
        if channel.name.startswith(FOREIGN_CHANNEL) and (members_only or PUBLIC_SCOPE not in self.scopes):
            raise ApiError("not_in_channel")
        return channel

    def content(self, max_text: int) -> dict[str, Any]:
        """Return the fields of a Message that the call sets. Raises ApiError if Slack would refuse them."""
        fields: dict[str, Any] = {}
        if self.arguments.get("text") is not None:
            fields["text"] = self.text("text")
            if len(fields["text"]) > max_text:
                raise ApiError("msg_too_long")
        if (blocks := self.parse("blocks")) is not None:
            error, problems = block_kit.validate_blocks(blocks, self.workspace.is_shared_picture)
            if error:
                lines = {"messages": [f"[ERROR] {problem}" for problem in problems]}
                raise ApiError(error, **({"errors": problems, "response_metadata": lines} if problems else {}))
            fields["blocks"] = blocks
        if metadata := self.parse("metadata"):
            if error := block_kit.validate_metadata(metadata):
                raise ApiError(error)
            fields["metadata"] = metadata
        return fields

    def paginate(self, items: list[Any], default_limit: int) -> tuple[list[Any], str]:
        """Return the items from `cursor` on, at most `limit`, and the cursor of the next page."""
        try:
            start = int(base64.b64decode(self.text("cursor"), validate=True) or 0)
            limit = int(self.text("limit") or default_limit)
        except ValueError:
            raise ApiError("invalid_cursor") from None
        if not 0 < limit <= MAX_PAGE:
            raise ApiError("invalid_limit")
        end = start + limit
        return items[start:end], base64.b64encode(str(end).encode()).decode() if end < len(items) else ""


def auth_test(call: Call) -> Response:
    """Return whom the token belongs to."""
    return {"team": "market-daily", "user": BOT_NAME, "team_id": TEAM_ID, "user_id": USER_ID, "bot_id": BOT_ID}


def post_message(call: Call) -> Response:
    """Add a message to a channel or a thread. Like Slack, accept a `thread_ts` of no message."""
    channel, thread_ts = call.channel(by_name=True, members_only=False), call.text("thread_ts")
    fields = call.content(block_kit.MAX_TEXT)
    if not fields.get("text") and not fields.get("blocks"):
        raise ApiError("no_text")
    broadcast = bool(thread_ts) and call.flag("reply_broadcast")
    message = call.workspace.add(channel, thread_ts=thread_ts, broadcast=broadcast, **fields)
    return {"channel": channel.id, "ts": message.ts, "message": describe(call, message, metadata=True)}


def update(call: Call) -> Response:
    """Change a message. Like Slack, mark it as edited only if it gets a text without blocks."""
    channel = call.channel(members_only=False)
    message = call.workspace.messages[channel.id].get(call.text("ts"))
    if not message:
        raise ApiError("message_not_found")
    fields = call.content(block_kit.MAX_UPDATED_TEXT)
    if not fields or not (fields.get("text", message.text) or fields.get("blocks", message.blocks)):
        raise ApiError("no_text")
    if fields.get("text") and "blocks" not in fields:
        fields |= {"blocks": [], "edited": f"{call.workspace.now():.6f}"}
    for name, value in fields.items():
        setattr(message, name, value)
    call.workspace.save()
    return {"channel": channel.id, "ts": message.ts, "message": describe(call, message, metadata=True)}


def list_channels(call: Call) -> Response:
    """Return all channels; the simulator has only public ones."""
    types = (call.text("types") or "public_channel").split(",")
    channels, cursor = call.paginate(list(call.workspace.channels.values()) if "public_channel" in types else [], 100)
    return {
        "channels": [{"id": channel.id, "name": channel.name, "is_private": False} for channel in channels],
        "response_metadata": {"next_cursor": cursor},
    }


def history(call: Call) -> Response:
    """Return the messages that a channel shows since `oldest`, newest first."""
    messages, oldest = call.workspace.in_channel(call.channel()), float(call.text("oldest") or 0)
    return _describe_page(call, [message for message in reversed(messages) if float(message.ts) > oldest], 100)


def replies(call: Call) -> Response:
    """Return a thread, oldest first: the message that `ts` identifies, then its replies."""
    message = call.workspace.messages[call.channel().id].get(call.text("ts"))
    if not message:
        raise ApiError("thread_not_found")
    return _describe_page(call, [message, *call.workspace.replies(message)], MAX_PAGE)


def upload_url(call: Call) -> Response:
    """Return the URL that accepts a file's bytes."""
    name, length = call.text("filename"), call.text("length")
    if not name or not length.isdecimal():
        raise invalid_arguments(f"missing required field: {'length' if name else 'filename'}")
    file = call.workspace.add_file(name, int(length))
    return {"upload_url": f"{call.address}/upload/{file.id}", "file_id": file.id}


def complete_upload(call: Call) -> Response:
    """Share uploaded files in one message. Takes a channel's ID, not its name."""
    entries, channel_id = call.parse("files") or [], call.text("channel_id")
    files = {entry["id"]: str(entry.get("title") or "") for entry in entries}
    if [file for file in files if call.workspace.content(file) is None]:
        raise ApiError("file_not_found")
    if not CHANNEL_ID.fullmatch(channel_id):
        raise invalid_arguments("input must match regex pattern: ^[CGDZ][A-Z0-9]{8,}$ [json-pointer:/channel_id]")
    comment = Call(call.workspace, {"channel": channel_id, "text": call.text("initial_comment")}, call.address, call.scopes)
    channel, fields = comment.channel(), comment.content(block_kit.MAX_TEXT)
    for file, title in files.items():
        call.workspace.files[file].title = title or call.workspace.files[file].name
    call.workspace.add(channel, files=list(files), thread_ts=call.text("thread_ts"), **fields)
    return {"files": [{"id": file, "title": call.workspace.files[file].title} for file in files]}


def describe(call: Call, message: Message, *, metadata: bool) -> Response:
    """Return a message as the Web API represents it, with its metadata only if `metadata` is set."""
    fields: Response = {"type": "message", "user": USER_ID, "bot_id": BOT_ID, "text": message.text, "ts": message.ts}
    if message.blocks:
        fields["blocks"] = message.blocks
    if message.files:
        fields["files"] = [describe_file(call, file_id) for file_id in message.files]
    if message.edited:
        fields["edited"] = {"user": USER_ID, "ts": message.edited}
    if message.metadata and metadata:
        fields["metadata"] = message.metadata
    if message.is_reply:
        fields |= {"thread_ts": message.thread_ts} | ({"subtype": "thread_broadcast"} if message.broadcast else {})
    elif thread := call.workspace.replies(message):
        fields |= {"thread_ts": message.ts, "reply_count": len(thread)}
    return fields


def describe_file(call: Call, file_id: str) -> Response:
    """Return a file as the Web API represents it."""
    file = call.workspace.files[file_id]
    url = f"{call.address}/files/{file.id}/{quote(file.name, safe='')}"
    return {"id": file.id, "name": file.name, "title": file.title, "size": file.length, "url_private": url}


def _describe_page(call: Call, messages: list[Message], default_limit: int) -> Response:
    page, cursor = call.paginate(messages, default_limit)
    metadata = call.flag("include_all_metadata")
    next_page = {"response_metadata": {"next_cursor": cursor}} if cursor else {}
    return {"messages": [describe(call, message, metadata=metadata) for message in page], "has_more": bool(cursor)} | next_page


# Each method with the scope that it needs.
METHODS: dict[str, tuple[Callable[[Call], Response], str]] = {
    "auth.test": (auth_test, ""),
    "chat.postMessage": (post_message, "chat:write"),
    "chat.update": (update, "chat:write"),
    "conversations.list": (list_channels, "channels:read"),
    "conversations.history": (history, "channels:history"),
    "conversations.replies": (replies, "channels:history"),
    "files.getUploadURLExternal": (upload_url, "files:write"),
    "files.completeUploadExternal": (complete_upload, "files:write"),
}
PRIVATE_SCOPE = "groups:read"
PUBLIC_SCOPE = "chat:write.public"
SCOPES = ("chat:write", "files:write", "channels:read", "channels:history", PRIVATE_SCOPE)


def execute(call: Call, method: str, token: str) -> Response:
    """Return Slack's response to a call with `token`."""
    try:
        if method not in METHODS:
            raise ApiError("unknown_method", req_method=method)
        if not token:
            raise ApiError("not_authed")
        if not token.startswith("xoxb-"):
            raise ApiError("invalid_auth")
        function, scope = METHODS[method]
        needed = [scope] if scope else []
        if function is list_channels and "private_channel" in call.text("types"):
            needed.append(PRIVATE_SCOPE)
        if missing := [scope for scope in needed if scope not in call.scopes]:
            raise ApiError("missing_scope", needed=missing[0], provided=",".join(call.scopes))
        with call.workspace.lock:
            return {"ok": True} | function(call)
    except ApiError as error:
        return error.response
