"""What Slack takes of a message and what it refuses: its documented limits, in the words that it refuses with.

The sum of a message's blocks is the one limit that is not in the reference: Slack's maintainers name 12,000 characters
(slackapi/bolt-js, issue 2509). Of the block types, those are known here that the page can show.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

TEXT = 40_000
UPDATED_TEXT = 4_000
BLOCKS = 50
ALL_BLOCKS = 12_000
BLOCK_ID = ACTION_ID = 255
HEADER = 150
SECTION = 3_000
FIELDS, FIELD = 10, 2_000
CONTEXT = 10
ACTIONS = 25
BUTTON, BUTTON_URL, BUTTON_VALUE = 75, 3_000, 2_000
ALT_TEXT, IMAGE_URL, IMAGE_TITLE = 2_000, 3_000, 2_000
RICH_TEXT = 1_000
METADATA = 8_000  # bytes; Slack names no figure

Problems = Iterator[str]


def refused_text(text: str, limit: int = TEXT) -> str:
    """Slack's error for a text that is too long; empty where it is not."""
    return "msg_too_long" if len(text) > limit else ""


def refused_metadata(metadata: Any) -> str:
    """Slack's error for a message's metadata; empty where it takes it."""
    if not isinstance(metadata, dict) or set(metadata) - {"event_type", "event_payload"}:
        return "invalid_metadata_format"
    kind, payload = metadata.get("event_type"), metadata.get("event_payload")
    if not isinstance(kind, str) or not kind or not isinstance(payload, dict):
        return "invalid_metadata_schema"
    if not _is_value(payload):
        return "invalid_metadata_schema"
    return "metadata_too_large" if len(json.dumps(payload).encode()) > METADATA else ""


def _is_value(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_value(one) for one in value)
    if isinstance(value, dict):
        return all(_is_value(one) for one in value.values())
    return isinstance(value, str | int | float)


def refused_blocks(blocks: Any) -> tuple[str, list[str]]:
    """Slack's error for a message's blocks, with what is wrong with which; two empty ones where it takes them."""
    if not isinstance(blocks, list):
        return "invalid_blocks_format", []
    problems = list(_all(blocks))
    if problems:
        return "invalid_blocks", problems
    return ("msg_blocks_too_long" if sum(map(len, _texts(blocks))) > ALL_BLOCKS else ""), []


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            yield from [value] if key == "text" and isinstance(value, str) else _texts(value)
    elif isinstance(part, list):
        for value in part:
            yield from _texts(value)


def _all(blocks: list[Any]) -> Problems:
    if len(blocks) > BLOCKS:
        yield f"no more than {BLOCKS} items allowed [json-pointer:/blocks]"
    seen = set()
    for number, block in enumerate(blocks):
        at = f"/blocks/{number}"
        kind = _kind(block)
        if kind not in CHECKS:
            yield f"unsupported type: {kind} [json-pointer:{at}/type]"
            continue
        yield from _string(block, "block_id", BLOCK_ID, at)
        if name := str(block.get("block_id") or ""):
            if name in seen:
                yield f"block_id must be unique: {name[:60]} [json-pointer:{at}/block_id]"
            seen.add(name)
        yield from CHECKS[kind](block, at)


def _kind(part: Any) -> str:
    return str(part.get("type"))[:60] if isinstance(part, dict) else ""


def _missing(name: str, at: str) -> str:
    return f"missing required field: {name} [json-pointer:{at}]"


def _string(part: dict[str, Any], name: str, limit: int, at: str, *, required: bool = False) -> Problems:
    value = part.get(name)
    if value is None:
        if required:
            yield _missing(name, at)
    elif not isinstance(value, str):
        yield f"expected a string [json-pointer:{at}/{name}]"
    elif not value:
        yield f"must be more than 0 characters [json-pointer:{at}/{name}]"
    elif len(value) > limit:
        yield f"must be less than {limit + 1} characters [json-pointer:{at}/{name}]"


def _text(text: Any, limit: int, at: str, kinds: tuple[str, ...] = ("plain_text", "mrkdwn")) -> Problems:
    if not isinstance(text, dict):
        yield f"expected an object [json-pointer:{at}]"
    elif text.get("type") not in kinds:
        yield f"unsupported type: {text.get('type')} [json-pointer:{at}/type]"
    else:
        yield from _string(text, "text", limit, at, required=True)


def _items(block: dict[str, Any], name: str, at: str) -> Iterator[tuple[Any, str]]:
    items = block.get(name)
    for number, item in enumerate(items if isinstance(items, list) else []):
        yield item, f"{at}/{name}/{number}"


def _count(block: dict[str, Any], name: str, limit: int, at: str) -> Problems:
    items = block.get(name)
    if not isinstance(items, list):
        yield _missing(name, at)
    elif not items:
        yield f"no less than 1 items required [json-pointer:{at}/{name}]"
    elif len(items) > limit:
        yield f"no more than {limit} items allowed [json-pointer:{at}/{name}]"


def _header(block: dict[str, Any], at: str) -> Problems:
    yield from _text(block.get("text"), HEADER, f"{at}/text", ("plain_text",))


def _section(block: dict[str, Any], at: str) -> Problems:
    if "text" not in block and "fields" not in block:
        yield _missing("text", at)
    if "text" in block:
        yield from _text(block["text"], SECTION, f"{at}/text")
    if "fields" in block:
        yield from _count(block, "fields", FIELDS, at)
        for item, where in _items(block, "fields", at):
            yield from _text(item, FIELD, where)
    if "accessory" in block:
        yield from _element(block["accessory"], f"{at}/accessory")


def _context(block: dict[str, Any], at: str) -> Problems:
    yield from _count(block, "elements", CONTEXT, at)
    for item, where in _items(block, "elements", at):
        if _kind(item) == "image":
            yield from _image(item, where)
        else:
            yield from _text(item, SECTION, where)


def _actions(block: dict[str, Any], at: str) -> Problems:
    yield from _count(block, "elements", ACTIONS, at)
    seen = set()
    for item, where in _items(block, "elements", at):
        yield from _element(item, where)
        if isinstance(item, dict) and (name := str(item.get("action_id") or "")):
            if name in seen:
                yield f"action_id must be unique: {name[:60]} [json-pointer:{where}/action_id]"
            seen.add(name)


def _element(element: Any, at: str) -> Problems:
    kind = _kind(element)
    if kind == "image":
        yield from _image(element, at)
    elif kind == "button":
        yield from _text(element.get("text"), BUTTON, f"{at}/text", ("plain_text",))
        yield from _string(element, "url", BUTTON_URL, at)
        yield from _string(element, "value", BUTTON_VALUE, at)
        yield from _string(element, "action_id", ACTION_ID, at)
        if element.get("style") not in (None, "primary", "danger"):
            yield f"must be a valid enum value [json-pointer:{at}/style]"
    else:
        yield f"unsupported type: {kind} [json-pointer:{at}/type]"


def _image(image: dict[str, Any], at: str) -> Problems:
    yield from _string(image, "alt_text", ALT_TEXT, at, required=True)
    if "slack_file" in image:
        if not isinstance(image["slack_file"], dict):
            yield f"expected an object [json-pointer:{at}/slack_file]"
    else:
        yield from _string(image, "image_url", IMAGE_URL, at, required=True)
    if "title" in image:
        yield from _text(image["title"], IMAGE_TITLE, f"{at}/title", ("plain_text",))


def _rich_text(block: dict[str, Any], at: str) -> Problems:
    yield from _count(block, "elements", RICH_TEXT, at)
    for item, where in _items(block, "elements", at):
        if not isinstance(item, dict):
            yield f"expected an object [json-pointer:{where}]"
        elif "elements" in item:
            yield from _rich_text(item, where)
        elif not isinstance(item.get("style", {}), dict):
            yield f"expected an object [json-pointer:{where}/style]"


def _divider(block: dict[str, Any], at: str) -> Problems:
    yield from ()


CHECKS = {
    "header": _header,
    "section": _section,
    "context": _context,
    "actions": _actions,
    "divider": _divider,
    "image": _image,
    "rich_text": _rich_text,
}
