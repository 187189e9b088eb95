"""The methods that send and change messages, and how Slack shows one in its answers."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from slack_simulator import block_kit
from slack_simulator.call import APP, BOT, BOT_NAME, TEAM, USER, Answer, Call, Refused
from slack_simulator.workspace import File, Message

TS = re.compile(r"\d{10}\.\d{6}")


def post_message(call: Call) -> Answer:
    """Sends a message to a channel or into a thread.

    As with Slack a `thread_ts` that is no message's is taken, and the reply is then seen nowhere in Slack.
    """
    channel = call.channel(by_name=True)
    what = content(call, block_kit.TEXT)
    if not what.get("text") and not what.get("blocks"):
        raise Refused("no_text")
    thread_ts = call.text("thread_ts")
    if thread_ts and not TS.fullmatch(thread_ts):
        raise Refused("invalid_thread_ts")
    message = call.workspace.add(
        channel, thread_ts=thread_ts, broadcast=bool(thread_ts) and call.flag("reply_broadcast"), **what
    )
    return {"channel": channel.id, "ts": message.ts, "message": shown(call, message, metadata=True)}


def update(call: Call) -> Answer:
    """Changes a message. Only one that is changed by its text alone is marked as edited, as Slack does."""
    channel, ts = call.channel(), call.text("ts")
    message = call.workspace.messages[channel.id].get(ts)
    if not message:
        raise Refused("message_not_found")
    what = content(call, block_kit.UPDATED_TEXT)
    if not {"text", "blocks", "metadata"} & set(what) or (what.get("text") == "" and not what.get("blocks", message.blocks)):
        raise Refused("no_text")
    if what.get("text") and "blocks" not in what:
        what |= {"blocks": [], "edited": f"{call.workspace.now():.6f}"}
    for name, value in what.items():
        setattr(message, name, value)
    call.workspace.keep_message(message)
    return {"channel": channel.id, "ts": ts, "text": message.text, "message": shown(call, message, metadata=True)}


def content(call: Call, most_text: int) -> dict[str, Any]:
    """The fields of Message that the call sets; raises Refused where Slack would not take them."""
    what: dict[str, Any] = {}
    if call.arguments.get("text") is not None:
        what["text"] = call.text("text")
        if error := block_kit.refused_text(what["text"], most_text):
            raise Refused(error)
    blocks = call.parsed("blocks")
    if blocks is not None:
        error, problems = block_kit.refused_blocks(blocks)
        if problems:
            told = {"messages": [f"[ERROR] {problem}" for problem in problems]}
            raise Refused(error, errors=problems, response_metadata=told)
        if error:
            raise Refused(error)
        what["blocks"] = blocks
    metadata = call.parsed("metadata")
    if metadata is not None:
        if metadata and (error := block_kit.refused_metadata(metadata)):
            raise Refused(error)
        what["metadata"] = metadata
    return what


def permalink(call: Call) -> Answer:
    """The address at which people see a message."""
    channel = call.channel()
    message = call.workspace.messages[channel.id].get(call.text("message_ts"))
    if not message:
        raise Refused("message_not_found")
    link = f"{call.public}/archives/{channel.id}/p{message.ts.replace('.', '')}"
    thread = f"?thread_ts={message.thread_ts}&cid={channel.id}" if message.is_reply else ""
    return {"channel": channel.id, "permalink": link + thread}


def shown(call: Call, message: Message, *, metadata: bool = False) -> Answer:
    """The message as Slack's answers show it."""
    found: Answer = {"type": "message", "user": USER, "bot_id": BOT, "app_id": APP, "team": TEAM}
    found |= {"text": message.text, "ts": message.ts, "bot_profile": {"id": BOT, "app_id": APP, "name": BOT_NAME}}
    if message.blocks:
        found["blocks"] = message.blocks
    if message.files:
        found["files"] = [shown_file(call, call.workspace.files[one]) for one in message.files]
    if message.edited:
        found["edited"] = {"user": USER, "ts": message.edited}
    if message.metadata and metadata:
        found["metadata"] = message.metadata
    if message.is_reply:
        found |= {"thread_ts": message.thread_ts, "parent_user_id": USER}
        found |= {"subtype": "thread_broadcast"} if message.broadcast else {}
    elif inside := call.workspace.replies(message):
        facts = {"reply_count": len(inside), "reply_users": [USER], "reply_users_count": 1, "latest_reply": inside[-1].ts}
        found |= {"thread_ts": message.ts} | facts
    return found


def shown_file(call: Call, file: File) -> Answer:
    """The file as Slack's answers show it."""
    link = f"{call.public}/files/{file.id}/{quote(file.name, safe='')}"
    return {"id": file.id, "name": file.name, "title": file.title, "size": file.length, "url_private": link, "user": USER}
