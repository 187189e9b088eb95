"""The page on which a person reads a channel: HTML without scripts."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta, timezone
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from slack_simulator import mrkdwn
from slack_simulator.web_api import BOT_NAME
from slack_simulator.workspace import PNG, Channel, Message, Workspace

SEOUL = timezone(timedelta(hours=9))
REFRESH_SECONDS = 15
STYLE = Path(__file__).with_name("style.css")


def render_page(workspace: Workspace, name: str = "", *, live: bool = False) -> str:
    """Return the page of the channel with this name, or of the one with the latest message.

    Args:
        workspace: what to show.
        name: a channel's name.
        live: render for the server, with a list of channels, links to files and a refresh. Otherwise the page contains
            its pictures and needs nothing else.
    """
    channel = workspace.find_channel(name) or _latest_channel(workspace)
    if not channel:
        return _render_document("No channel", "", '<p class="empty">There are no channels.</p>', refresh=live)
    title = f"#{escape(channel.name)}"
    channels = _render_channels(workspace, channel) if live else ""
    return _render_document(title, channels, _Renderer(workspace, live=live).render_channel(channel), refresh=live)


def render_thread(workspace: Workspace, ts: str) -> str:
    """Return the page of the thread that the message `ts` started; empty if there is no such message."""
    root = next((messages[ts] for messages in workspace.messages.values() if ts in messages), None)
    if not root:
        return ""
    renderer, name = _Renderer(workspace, live=True), workspace.channels[root.channel].name
    content = "".join(renderer.render_message(message, in_thread=True) for message in [root, *workspace.replies(root)])
    title = f'Thread in <a href="/?channel={quote(name)}">#{escape(name)}</a>'
    return _render_document(title, "", content, refresh=True)


def picture_type(content: bytes) -> str:
    """Return the media type of a picture that a browser may show; empty if the content is not a picture."""
    return "image/png" if content.startswith(PNG) else ""


def _latest_channel(workspace: Workspace) -> Channel | None:
    latest = [(max(messages, default=""), channel) for channel, messages in workspace.messages.items()]
    return workspace.channels[max(latest)[1]] if latest else None


def _anchor(message: Message) -> str:
    return f"p{message.ts.replace('.', '')}"


def _date(ts: str) -> str:
    return f"{datetime.fromtimestamp(float(ts), SEOUL):%A, %d %B %Y}"


def _time(ts: str) -> str:
    return f"{datetime.fromtimestamp(float(ts), SEOUL):%H:%M}"


class _Renderer:
    """Renders the messages of a workspace, for the server or for a page that stands alone."""

    def __init__(self, workspace: Workspace, *, live: bool) -> None:
        self.workspace, self.live = workspace, live

    def render_channel(self, channel: Channel) -> str:
        """Return what the channel shows, by date."""
        parts, date = [], ""
        for message in self.workspace.in_channel(channel):
            if _date(message.ts) != date:
                date = _date(message.ts)
                parts.append(f'<div class="date"><span>{date}</span></div>')
            parts.append(self.render_message(message))
        return "".join(parts) or '<p class="empty">There are no messages in this channel.</p>'

    def render_message(self, message: Message, *, in_thread: bool = False) -> str:
        """Return a message; one that is not in a thread comes with its own thread."""
        # A broadcast is on the page twice, so its copy in the thread has no anchor.
        anchor = "" if in_thread and message.is_reply else f' id="{_anchor(message)}"'
        time = f'<a class="time" href="#{_anchor(message)}">{_time(message.ts)}</a>'
        text = f'<div class="text">{mrkdwn.to_html(message.text)}</div>'
        parts = [f'<div class="author"><b>{BOT_NAME}</b> <span class="app">APP</span> {time}</div>']
        parts += [self._render_reply_note(message)] if message.is_reply and not in_thread else []
        parts += [self._render_block(block) for block in message.blocks] or [text]
        parts += ['<span class="edited">(edited)</span>'] if message.edited else []
        parts += [self._render_file(file_id) for file_id in message.files]
        parts += [] if in_thread or message.is_reply else [self._render_thread(message)]
        return f'<article class="message"{anchor}>{"".join(parts)}</article>'

    def _render_reply_note(self, message: Message) -> str:
        root = self.workspace.messages[message.channel].get(message.thread_ts)
        first_line = root.text.partition("\n")[0].replace("*", "") if root else ""
        link = f'<a href="#{_anchor(root)}">{mrkdwn.plain_to_html(first_line)}</a>' if root else "a deleted message"
        return f'<div class="note">replied to a thread: {link}</div>'

    def _render_block(self, block: dict[str, Any]) -> str:
        if block["type"] == "image":
            return self._render_file(block["slack_file"]["id"])
        if block["type"] == "context":
            elements = "".join(f"<span>{_render_text(element)}</span>" for element in block["elements"])
            return f'<div class="context">{elements}</div>'
        text = f'<div class="text">{_render_text(block["text"])}</div>' if "text" in block else ""
        fields = "".join(f'<div class="text">{_render_text(field)}</div>' for field in block.get("fields", []))
        return f'{text}<div class="fields">{fields}</div>'

    def _render_file(self, file_id: str) -> str:
        file, content = self.workspace.files[file_id], self.workspace.content(file_id) or b""
        media_type, title = picture_type(content), escape(file.title)
        data = f"data:{media_type or 'application/octet-stream'};base64,{base64.b64encode(content).decode()}"
        url = f"/files/{file.id}/{quote(file.name, safe='')}" if self.live else data
        if not media_type:
            return f'<div class="file"><a href="{url}" download="{escape(file.name)}">{title}</a> {file.length:,} bytes</div>'
        return f'<figure class="image"><figcaption>{title}</figcaption><img src="{url}" alt="{title}"></figure>'

    def _render_thread(self, message: Message) -> str:
        replies = self.workspace.replies(message)
        if not replies:
            return ""
        count = "1 reply" if len(replies) == 1 else f"{len(replies)} replies"
        # The refresh closes the thread again; its own page keeps it open.
        link = f' <a href="/thread?ts={message.ts}">View thread</a>' if self.live else ""
        content = "".join(self.render_message(reply, in_thread=True) for reply in replies)
        return f'<details class="thread"><summary><b>{count}</b>{link}</summary>{content}</details>'


def _render_text(text: dict[str, Any]) -> str:
    return mrkdwn.to_html(text["text"]) if text["type"] == "mrkdwn" else escape(text["text"])


def _render_channels(workspace: Workspace, current: Channel) -> str:
    links = ""
    for channel in sorted(workspace.channels.values(), key=lambda channel: channel.name):
        style = ' class="current"' if channel == current else ""
        links += f'<a href="/?channel={quote(channel.name)}"{style}># {escape(channel.name)}</a>'
    return f"<nav>{links}</nav>"


def _render_document(title: str, channels: str, content: str, *, refresh: bool) -> str:
    meta = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if refresh else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{meta}
<title>{title if title.startswith("#") else "Thread"} · Slack simulator</title>
<style>
{STYLE.read_text()}</style>
</head>
<body>
{channels}
<main>
<header><h1>{title}</h1><span>Slack simulator: nothing was sent to Slack</span></header>
<div class="scroll"><div>{content}</div></div>
</main>
</body>
</html>
"""
