"""Block Kit as HTML: each block as Slack lays it out, in markup of our own."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from slack_simulator import mrkdwn

# The address of a file of the workspace, by its ID; empty where there is none.
Picture = Callable[[str], str]


def blocks(found: list[dict[str, Any]], picture: Picture) -> str:
    """A message's blocks."""
    return "".join(_block(block, picture) for block in found)


def _block(block: dict[str, Any], picture: Picture) -> str:
    kind = block["type"]
    if kind == "divider":
        return "<hr>"
    if kind == "header":
        return f'<h3 class="header">{_text(block["text"])}</h3>'
    if kind == "image":
        title = f'<div class="caption">{_text(block["title"])}</div>' if block.get("title") else ""
        return f'<figure class="image">{title}{_image(block, picture)}</figure>'
    if kind == "context":
        return f'<div class="context">{"".join(_small(one, picture) for one in block["elements"])}</div>'
    if kind == "actions":
        return f'<div class="actions">{"".join(_element(one, picture) for one in block["elements"])}</div>'
    if kind == "rich_text":
        return "".join(_rich(one) for one in block["elements"])
    return _section(block, picture)


def _section(block: dict[str, Any], picture: Picture) -> str:
    text = f'<div class="text">{_text(block["text"])}</div>' if block.get("text") else ""
    cells = "".join(f'<div class="text">{_text(one)}</div>' for one in block.get("fields", []))
    fields = f'<div class="fields">{cells}</div>' if cells else ""
    beside = f'<div class="accessory">{_element(block["accessory"], picture)}</div>' if block.get("accessory") else ""
    return f'<div class="section"><div class="main">{text}{fields}</div>{beside}</div>'


def _text(text: dict[str, Any]) -> str:
    if text["type"] == "mrkdwn":
        return mrkdwn.html(text["text"])
    return mrkdwn.with_emoji(text["text"]) if text.get("emoji", True) else escape(text["text"])


def _small(element: dict[str, Any], picture: Picture) -> str:
    if element["type"] == "image":
        return _image(element, picture)
    return f"<span>{_text(element)}</span>"


def _element(element: dict[str, Any], picture: Picture) -> str:
    if element["type"] == "image":
        return _image(element, picture)
    shown, style = _text(element["text"]), element.get("style", "")
    url = str(element.get("url") or "")
    if url.lower().startswith(mrkdwn.SAFE):
        return f'<a class="button {style}" href="{escape(url)}" rel="noopener noreferrer" target="_blank">{shown}</a>'
    return f'<span class="button {style}">{shown}</span>'


def _image(image: dict[str, Any], picture: Picture) -> str:
    alt = escape(str(image.get("alt_text") or ""))
    file = image.get("slack_file") or {}
    url = picture(str(file.get("id") or "")) if file else str(image.get("image_url") or "")
    if not url.lower().startswith(("http://", "https://", "data:image/", "/files/")):
        return f'<span class="gone">{alt}</span>'
    return f'<img src="{escape(url)}" alt="{alt}">'


def _rich(part: dict[str, Any]) -> str:
    inside = part.get("elements") or []
    kind = part.get("type")
    if kind == "rich_text_list":
        tag = "ol" if part.get("style") == "ordered" else "ul"
        return f"<{tag}>{''.join(f'<li>{_rich(one)}</li>' for one in inside)}</{tag}>"
    text = "".join(_piece(one) for one in inside)
    if kind == "rich_text_preformatted":
        return f"<pre>{text}</pre>"
    return f"<blockquote>{text}</blockquote>" if kind == "rich_text_quote" else f'<div class="text rich">{text}</div>'


def _piece(piece: dict[str, Any]) -> str:
    kind, style = piece.get("type"), piece.get("style") or {}
    text = escape(str(piece.get("text") or ""))
    if kind == "link":
        url = str(piece.get("url") or "")
        text = mrkdwn.link(url, text or escape(url))
    elif kind == "emoji":
        text = mrkdwn.with_emoji(f":{piece.get('name')}:")
    elif kind in ("user", "channel", "broadcast"):
        name = piece.get("user_id") or piece.get("channel_id") or piece.get("range")
        text = f'<span class="mention">@{escape(str(name))}</span>'
    for name, tag in (("code", "code"), ("strike", "s"), ("italic", "i"), ("bold", "b")):
        text = f"<{tag}>{text}</{tag}>" if style.get(name) else text
    return text
