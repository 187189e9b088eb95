"""What people see: a channel as Slack shows one, with its threads, as one HTML page without scripts."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote

from slack_simulator import layout, mrkdwn
from slack_simulator.call import BOT_NAME
from slack_simulator.workspace import Channel, Message, Workspace

SEOUL = timezone(timedelta(hours=9))
REFRESH_SECONDS = 15
TOGETHER_SECONDS = 300  # messages that follow each other so closely stand under one name
SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
STYLE = Path(__file__).with_name("style.css")


def render_page(workspace: Workspace, name: str = "", *, live: bool = False) -> str:
    """The channel of that name, or the one that was last written to, as a page.

    By itself it needs nothing else: pictures are within it, every thread opens. `live`: as the server shows it, with the other
    channels, pictures by their address, and read again every few seconds.
    """
    channel = workspace.find_channel(name) or _last(workspace)
    view = _View(workspace, live=live)
    if not channel:
        return _page("no channel", "", '<p class="empty">There is no channel yet.</p>', refresh=live)
    title = f"#{escape(channel.name)}"
    return _page(title, _channels(workspace, channel) if live else "", view.channel(channel), refresh=live)


def render_thread(workspace: Workspace, ts: str) -> str:
    """The thread of the message `ts` as a page; empty where there is no such message."""
    root = next((known[ts] for known in workspace.messages.values() if ts in known), None)
    if not root:
        return ""
    channel = workspace.channels[root.channel]
    view = _View(workspace, live=True)
    back = f'<a href="/?channel={quote(channel.name)}">#{escape(channel.name)}</a>'
    shown = [view.message(one, alone=True) for one in [root, *workspace.replies(root)]]
    return _page(f"Thread in {back}", "", f'<div class="thread-page">{"".join(shown)}</div>', refresh=True)


def address_of(workspace: Workspace, channel_id: str, permalink: str) -> str:
    """Where the page shows the message that a permalink ends in; empty where there is none."""
    channel, digits = workspace.channels.get(channel_id), permalink.removeprefix("p")
    message = workspace.messages[channel_id].get(f"{digits[:-6]}.{digits[-6:]}") if channel else None
    if not channel or not message:
        return ""
    if message.is_reply and message.thread_ts in workspace.messages[channel_id]:
        return f"/thread?ts={message.thread_ts}#{_anchor(message)}"
    return f"/?channel={quote(channel.name)}#{_anchor(message)}"


def picture_type(content: bytes) -> str:
    """The media type of a picture that a browser may show; empty where it is none."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in SIGNATURES.items() if content.startswith(signature)), "")


def _last(workspace: Workspace) -> Channel | None:
    written = [(max(known, default=""), channel) for channel, known in workspace.messages.items()]
    return workspace.channels[max(written)[1]] if written else None


def _anchor(message: Message) -> str:
    return f"p{message.ts.replace('.', '')}"


def _at(ts: str) -> datetime:
    return datetime.fromtimestamp(float(ts), SEOUL)


def _time(at: datetime) -> str:
    return f"{at:%I:%M %p}".lstrip("0")


def _day(at: datetime, now: datetime) -> str:
    ending = "th" if 11 <= at.day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(at.day % 10, "th")
    year = f", {at.year}" if at.year != now.year else ""
    return f"{at:%A, %B} {at.day}{ending}{year}"


class _View:
    """Shows messages of one workspace, live or within a page that stands alone."""

    def __init__(self, workspace: Workspace, *, live: bool) -> None:
        self.workspace, self.live = workspace, live

    def channel(self, channel: Channel) -> str:
        """All that the channel shows, by days."""
        known = self.workspace.messages[channel.id]
        lost = [one for one in known.values() if one.is_reply and not one.broadcast and one.thread_ts not in known]
        messages = sorted([*self.workspace.in_channel(channel), *lost], key=lambda one: one.ts)
        now, day, last = datetime.fromtimestamp(self.workspace.now(), SEOUL), "", 0.0
        shown = []
        for message in messages:
            at = _at(message.ts)
            if (this := _day(at, now)) != day:
                shown.append(f'<div class="day"><span>{this}</span></div>')
                day, last = this, 0.0
            follows = not message.is_reply and float(message.ts) - last < TOGETHER_SECONDS
            shown.append(self.message(message, follows=follows))
            last = 0.0 if message.is_reply else float(message.ts)
        return "".join(shown) or f'<p class="empty">Nothing was sent to #{escape(channel.name)} yet.</p>'

    def message(self, message: Message, *, follows: bool = False, alone: bool = False) -> str:
        """A message; `follows`: under the name of the one before; `alone`: in a thread, so without its own thread."""
        time = f'<a class="time" href="#{_anchor(message)}">{_time(_at(message.ts))}</a>'
        who = f'<div class="who"><b>{BOT_NAME}</b> <span class="app">APP</span> {time}</div>'
        face = time.replace(" AM<", "<").replace(" PM<", "<") if follows else '<span class="face" aria-hidden="true">md</span>'
        edited = '<span class="edited">(edited)</span>' if message.edited else ""
        if message.blocks:
            content = layout.blocks(message.blocks, self.picture) + edited
        else:
            content = f'<div class="text">{mrkdwn.html(message.text)}{edited}</div>' if message.text else edited
        parts = ["" if follows else who, self._reply_to(message, alone), content, *map(self._file, message.files)]
        kind = "message follows" if follows else "message"
        inside = "".join([*parts, "" if alone else self._thread(message)])
        return f'<article class="{kind}" id="{_anchor(message)}">{face}<div class="body">{inside}</div></article>'

    def picture(self, file_id: str) -> str:
        """The address of a file of the workspace: within the page or, live, the server's. Empty where there is none."""
        file = self.workspace.files.get(file_id)
        if not file or not file.uploaded:
            return ""
        if self.live:
            return f"/files/{file.id}/{quote(file.name, safe='')}"
        content = self.workspace.content(file.id)
        kind = picture_type(content) or "application/octet-stream"
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"

    def _file(self, file_id: str) -> str:
        file = self.workspace.files[file_id]
        url, title = escape(self.picture(file_id)), escape(file.title or file.name)
        if not picture_type(self.workspace.content(file_id)):
            return f'<div class="file"><a href="{url}" download="{escape(file.name)}">{title}</a> {file.length:,} bytes</div>'
        shown = f'<img src="{url}" alt="{escape(file.alt_text or file.title)}">'
        picture = f'<a href="{url}">{shown}</a>' if self.live else shown
        return f'<figure class="image"><div class="caption">{title}</div>{picture}</figure>'

    def _reply_to(self, message: Message, alone: bool) -> str:
        if not message.is_reply:
            return ""
        if alone:
            return '<div class="note">Also sent to the channel</div>' if message.broadcast else ""
        root = self.workspace.messages[message.channel].get(message.thread_ts)
        if not root:
            return '<div class="note lost">A reply to a message that is not there: Slack shows it nowhere.</div>'
        words = (root.text.splitlines() or ["…"])[0].replace("*", "").replace("`", "")
        shown = mrkdwn.with_emoji(unescape(words[:80]))
        return f'<div class="note">replied to a thread: <a href="#{_anchor(root)}">{shown}</a></div>'

    def _thread(self, message: Message) -> str:
        replies = [] if message.is_reply else self.workspace.replies(message)
        if not replies:
            return ""
        count = "1 reply" if len(replies) == 1 else f"{len(replies)} replies"
        at = _at(replies[-1].ts)
        last = f'<span class="last">Last reply {at:%b} {at.day} at {_time(at)}</span>'
        page = f'<a class="open" href="/thread?ts={message.ts}">View thread</a>' if self.live else ""
        shown = "".join(self.message(one, alone=True).replace(' id="', ' data-reply="', 1) for one in replies)
        return f'<details class="thread"><summary><b>{count}</b> {last} {page}</summary>{shown}</details>'


def _channels(workspace: Workspace, shown: Channel) -> str:
    found: Iterable[Channel] = sorted(workspace.channels.values(), key=lambda one: one.name)
    links = [
        f'<a href="/?channel={quote(one.name)}"{" class=current" if one == shown else ""}># {escape(one.name)}</a>'
        for one in found
    ]
    return f"<nav><h1>market-daily</h1><h2>Channels</h2>{''.join(links)}</nav>"


def _page(title: str, channels: str, content: str, *, refresh: bool) -> str:
    again = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if refresh else ""
    name = title if title.startswith("#") else "Thread"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{again}
<title>{name} · stand-in for Slack</title>
<style>
{STYLE.read_text()}</style>
</head>
<body>
{channels}
<main>
<header><h1>{title}</h1><span>a stand-in for Slack: nothing was sent to Slack itself</span></header>
<div class="scroll"><div class="messages">{content}</div></div>
</main>
</body>
</html>
"""
