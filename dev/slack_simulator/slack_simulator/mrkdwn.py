"""Slack's mrkdwn as HTML. Whatever is not a mark is escaped."""

from __future__ import annotations

import re
from html import escape

from slack_simulator.emoji import EMOJI

SAFE = ("http://", "https://", "mailto:")
PRE = re.compile(r"```\n?(.+?)\n?```", re.DOTALL)
# A mark counts where it does not stand within a word: 2_000_000 is no italics.
INLINE = re.compile(
    r"`(?P<code>[^`\n]+)`"
    r"|<(?P<link>[^<>\n]+)>"
    r"|(?<![\w*])\*(?P<bold>[^\s*](?:[^*\n]*[^\s*])?)\*(?![\w*])"
    r"|(?<![\w_])_(?P<italic>[^\s_](?:[^_\n]*[^\s_])?)_(?![\w_])"
    r"|(?<![\w~])~(?P<strike>[^\s~](?:[^~\n]*[^\s~])?)~(?![\w~])"
    r"|:(?P<emoji>[a-z0-9_+-]{1,60}):"
    r"|(?P<bare>https?://[^\s<>|]+)"
)
ITEM = re.compile(r"^(\s*)([•◦▪*-]|\d{1,3}[.)])\s+(?=\S)")
TAGS = {"bold": "b", "italic": "i", "strike": "s"}


def plain(text: str) -> str:
    """Text with no marks, in which Slack's three entities stand for their characters."""
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(entity, character)
    return escape(text)


def with_emoji(text: str) -> str:
    """A plain_text object's text: its :shortcodes: are shown, everything else is as it was sent."""
    return re.sub(r":([a-z0-9_+-]{1,60}):", lambda found: EMOJI.get(found[1], found[0]), escape(text))


def link(url: str, shown: str) -> str:
    """A link, `shown` being HTML; only the text where the address is no web or mail address."""
    address = url.replace("&amp;", "&")
    if not address.lower().startswith(SAFE):
        return shown
    return f'<a href="{escape(address)}" rel="noopener noreferrer" target="_blank">{shown}</a>'


def inline(text: str) -> str:
    """One line's marks."""
    found, at = [], 0
    for mark in INLINE.finditer(text):
        found += [plain(text[at : mark.start()]), _mark(mark)]
        at = mark.end()
    return "".join([*found, plain(text[at:])])


def _mark(mark: re.Match[str]) -> str:
    kind, inside = str(mark.lastgroup), mark[str(mark.lastgroup)]
    if kind == "code":
        return f"<code>{plain(inside)}</code>"
    if kind == "link":
        return _control(inside)
    if kind == "emoji":
        return EMOJI.get(inside, plain(mark[0]))
    if kind == "bare":
        return link(inside, plain(inside))
    return f"<{TAGS[kind]}>{inline(inside)}</{TAGS[kind]}>"


def _control(inside: str) -> str:
    target, _, label = inside.partition("|")
    if target.startswith(("@", "#", "!")):
        name = label or target.removeprefix("!").removeprefix("#").removeprefix("@").partition("^")[0]
        if target.startswith("!date^"):
            return plain(label)
        return f'<span class="mention">{"#" if target.startswith("#") else "@"}{plain(name)}</span>'
    return link(target, inline(label) if label else plain(target))


def html(text: str) -> str:
    """A mrkdwn text as HTML."""
    found = []
    for number, part in enumerate(PRE.split(text)):
        if number % 2:
            found.append(f"<pre>{plain(part)}</pre>")
        elif lines := part.strip("\n") if found else part.rstrip("\n"):
            found.append(_lines(lines))
    return "".join(found)


def _lines(text: str) -> str:
    found: list[str] = []
    quoted: list[str] = []
    for line in [*text.split("\n"), None]:
        if line is not None and line.startswith(("&gt;", ">")):
            quoted.append(inline(line.removeprefix("&gt;").removeprefix(">").strip()))
            continue
        if quoted:
            found.append(f"<blockquote>{'<br>'.join(quoted)}</blockquote>")
            quoted = []
        if line is None:
            break
        if item := ITEM.match(line):
            depth = 1 + len(item[1]) // 2
            rest = inline(line[item.end() :])
            found.append(f'<div class="item" style="--depth:{min(depth, 5)}"><span>{plain(item[2])}</span> {rest}</div>')
        else:
            found.append(f"<div>{inline(line) or '<br>'}</div>")
    return "".join(found)
