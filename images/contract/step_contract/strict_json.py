"""Parse JSON that another program wrote: bounded in size and depth, and without what readers would understand differently.

Python's parser accepts NaN, duplicate keys, UTF-16, integers and characters that a database or another language rejects, and
nesting that exhausts the stack.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 8
MAX_INTEGER = 2**53 - 1  # the largest that every JSON reader keeps exactly
MAX_SHOWN, MAX_MESSAGE = 100, 300  # characters of a value in a message, and of a message

# A string, also without its end, so that each character is visited once.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def parse_object(data: bytes | str, max_bytes: int) -> dict[str, Any]:
    """Parse a JSON object in UTF-8.

    Raises ValueError if it is invalid, has more than `max_bytes` bytes or MAX_DEPTH levels, or contains a duplicate key, a
    number that is not finite or above MAX_INTEGER, a null character or half of a surrogate pair.
    """
    size = len(data)
    if size > max_bytes:
        raise ValueError(f"it has more than {max_bytes} bytes")
    text = data.decode() if isinstance(data, bytes) else data
    _check_depth(text)
    content = json.loads(
        text,
        object_pairs_hook=_make_object,
        parse_int=_parse_integer,
        parse_float=_parse_float,
        parse_constant=_reject_constant,
    )
    if not isinstance(content, dict):
        raise ValueError(f"it is {shorten(content)}, not an object")
    _check_texts(content)
    return content


def shorten(value: object) -> str:
    """Return a value as it appears in a message: quoted, and truncated to MAX_SHOWN characters."""
    shown = ascii(value[:MAX_SHOWN]) if isinstance(value, str | bytes) else ascii(value)
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"


def shorten_message(error: ValueError) -> str:
    """Return an error's message, truncated: some of Python's quote the whole input."""
    return str(error)[:MAX_MESSAGE]


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if bracket.group() in "[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("it has a duplicate key")
    return content


def _parse_integer(text: str) -> int:
    if len(text) > len(str(-MAX_INTEGER)) or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"the number {shorten(text)} is too large")
    return int(text)


def _parse_float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"the number {shorten(text)} is too large")
    return number


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _check_texts(content: object) -> None:
    """Raise ValueError if a text cannot be stored: UnicodeEncodeError, which is one, for half of a surrogate pair."""
    if isinstance(content, dict):
        for key, value in content.items():
            _check_texts(key)
            _check_texts(value)
    elif isinstance(content, list):
        for value in content:
            _check_texts(value)
    elif isinstance(content, str):
        if "\0" in content:
            raise ValueError("it contains a null character")
        content.encode()
