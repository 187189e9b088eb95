"""The methods that share files: an address for the bytes, then the message with the files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from slack_simulator.block_kit import TEXT
from slack_simulator.call import CHANNEL_ID, NOT_IN, Answer, Call, Refused, invalid
from slack_simulator.sending import content
from slack_simulator.workspace import File


def upload_url(call: Call) -> Answer:
    """The address that takes a file's bytes."""
    call.required("filename", "length")
    length = call.text("length")
    if not length.isascii() or not length.isdigit():
        raise invalid("expected an integer [json-pointer:/length]")
    if not int(length):
        raise Refused("missing_argument")
    file = call.workspace.add_file(call.text("filename"), int(length), call.text("alt_txt"))
    return {"upload_url": f"{call.address}/upload/v1/{file.id}", "file_id": file.id}


def complete_upload(call: Call) -> Answer:
    """Shares uploaded files in a channel or a thread, in one message. It takes a channel's ID, not its name."""
    listed = call.parsed("files")
    if not isinstance(listed, list) or not listed:
        raise invalid("missing required field: files")
    files = [_uploaded(call, one) for one in listed]
    names = [call.text("channel_id"), *call.text("channels").split(",")]
    for name in filter(None, names):
        if not CHANNEL_ID.fullmatch(name):
            raise invalid(f"input must match regex pattern: ^[CGDZ][A-Z0-9]{{8,}}$ [json-pointer:/channel_id] {name[:60]}")
        channel = call.workspace.channels.get(name)
        if not channel:
            raise Refused("channel_not_found")
        if channel.name.startswith(NOT_IN):
            raise Refused("not_in_channel")
        what = content(replace(call, arguments=_comment(call)), TEXT)
        call.workspace.add(channel, files=[one.id for one in files], thread_ts=call.text("thread_ts"), **what)
    for file, one in zip(files, listed, strict=True):
        file.title, file.shared = str(one.get("title") or file.name), True
        call.workspace.keep_file(file)
    return {"files": [{"id": file.id, "title": file.title} for file in files]}


def _comment(call: Call) -> dict[str, Any]:
    comment = call.arguments.get("initial_comment")
    return {"text": comment} if comment else {"blocks": call.arguments.get("blocks")}


def _uploaded(call: Call, one: Any) -> File:
    file = call.workspace.files.get(str(one.get("id"))) if isinstance(one, dict) else None
    if not file or not file.uploaded or file.shared:
        raise Refused("file_not_found")
    return file
