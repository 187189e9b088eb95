"""Slack's limits of a message, with the errors that Slack responds with.

Only the blocks that the monitor sends are valid here: section, context, and image with a Slack file's ID. Another type needs
a check in `VALIDATORS` and its markup in `page`. `slack_sdk.models` is no substitute: it accepts empty texts and fields of any
length, and reports no place.

https://docs.slack.dev/reference/block-kit/blocks
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

MAX_TEXT = 40_000  # characters
MAX_UPDATED_TEXT = 4_000
MAX_BLOCKS = 50
MAX_BLOCKS_TEXT = 12_000  # characters in all blocks; not in the reference, see slackapi/bolt-js issue 2509
MAX_SECTION_TEXT = 3_000
MAX_FIELDS, MAX_FIELD_TEXT = 10, 2_000
MAX_ELEMENTS = 10
MAX_ALT_TEXT = 2_000
FILE_ID = "^[F][A-Z0-9]{8,}$"
MAX_METADATA = 8_000  # bytes; Slack documents no number


def validate_metadata(metadata: Any) -> str:
    """Return Slack's error for a message's metadata, or an empty string if it is valid."""
    if not isinstance(metadata, dict) or set(metadata) - {"event_type", "event_payload"}:
        return "invalid_metadata_format"
    event_type, payload = metadata.get("event_type"), metadata.get("event_payload")
    if not event_type or not isinstance(event_type, str) or not isinstance(payload, dict) or None in payload.values():
        return "invalid_metadata_schema"
    return "metadata_too_large" if len(json.dumps(payload).encode()) > MAX_METADATA else ""


def validate_blocks(blocks: Any, is_picture: Callable[[str], bool]) -> tuple[str, list[str]]:
    """Return Slack's error for a message's blocks, with one line for each invalid place; both are empty if they are valid.

    `is_picture` returns whether an ID is that of a picture that everybody in the channel may see.
    """
    if not isinstance(blocks, list):
        return "invalid_blocks_format", []
    problems = [*_count(blocks, MAX_BLOCKS, "/blocks", required=False)]
    for number, block in enumerate(blocks):
        block_type = str(block.get("type")) if isinstance(block, dict) else ""
        place = f"/blocks/{number}"
        if validate := VALIDATORS.get(block_type):
            problems += validate(block, place)
            file_id = block.get("slack_file", {}).get("id") if block_type == "image" and not problems else None
            problems += [f"invalid slack file [json-pointer:{place}/slack_file]"] if file_id and not is_picture(file_id) else []
        else:
            problems.append(f"unsupported type: {block_type} [json-pointer:{place}/type]")
    if problems:
        return "invalid_blocks", problems
    return ("msg_blocks_too_long" if sum(map(len, _texts(blocks))) > MAX_BLOCKS_TEXT else ""), []


def _texts(part: Any) -> Iterator[str]:
    """Yield every text in a part of a message."""
    if isinstance(part, list):
        for item in part:
            yield from _texts(item)
    elif isinstance(part, dict):
        for name, value in part.items():
            yield from [value] if name == "text" and isinstance(value, str) else _texts(value)


def _section(block: dict[str, Any], place: str) -> Iterator[str]:
    if "text" not in block and "fields" not in block:
        yield f"missing required field: text [json-pointer:{place}]"
    if "text" in block:
        yield from _text(block["text"], MAX_SECTION_TEXT, f"{place}/text")
    if "fields" in block:
        yield from _text_list(block["fields"], MAX_FIELDS, MAX_FIELD_TEXT, f"{place}/fields")


def _context(block: dict[str, Any], place: str) -> Iterator[str]:
    yield from _text_list(block.get("elements"), MAX_ELEMENTS, MAX_SECTION_TEXT, f"{place}/elements")


def _image(block: dict[str, Any], place: str) -> Iterator[str]:
    alt_text, file = block.get("alt_text"), block.get("slack_file")
    if not isinstance(alt_text, str):
        yield f"missing required field: alt_text [json-pointer:{place}]"
    elif len(alt_text) > MAX_ALT_TEXT:
        yield f"must be less than {MAX_ALT_TEXT + 1} characters [json-pointer:{place}/alt_text]"
    if not isinstance(file, dict) or not isinstance(file.get("id"), str):
        yield f"missing required field: id [json-pointer:{place}/slack_file]"
    elif not re.fullmatch(FILE_ID, file["id"]):
        yield f"input must match regex pattern: {FILE_ID} [json-pointer:{place}/slack_file/id]"


VALIDATORS = {"section": _section, "context": _context, "image": _image}


def _text_list(items: Any, max_items: int, max_length: int, place: str) -> Iterator[str]:
    yield from _count(items, max_items, place)
    for number, item in enumerate(items if isinstance(items, list) else []):
        yield from _text(item, max_length, f"{place}/{number}")


def _count(items: Any, max_items: int, place: str, *, required: bool = True) -> Iterator[str]:
    if not isinstance(items, list) or (required and not items):
        yield f"no less than 1 items required [json-pointer:{place}]"
    elif len(items) > max_items:
        yield f"no more than {max_items} items allowed [json-pointer:{place}]"


def _text(text: Any, max_length: int, place: str) -> Iterator[str]:
    if not isinstance(text, dict) or text.get("type") not in ("plain_text", "mrkdwn"):
        yield f"unsupported type [json-pointer:{place}/type]"
    elif not isinstance(text.get("text"), str):
        yield f"expected a string [json-pointer:{place}/text]"
    elif not text["text"]:
        yield f"must be more than 0 characters [json-pointer:{place}/text]"
    elif len(text["text"]) > max_length:
        yield f"must be less than {max_length + 1} characters [json-pointer:{place}/text]"
