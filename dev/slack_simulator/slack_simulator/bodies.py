"""What a request's body holds, by its content type."""

from __future__ import annotations

import json
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qs


def arguments(content_type: str, body: bytes) -> dict[str, Any] | None:
    """The arguments that a call's body brings; None where it is JSON and cannot be read as an object."""
    if content_type.startswith("application/json"):
        try:
            found = json.loads(body or b"{}")
        except ValueError:
            return None
        return found if isinstance(found, dict) else None
    if content_type.startswith("multipart/form-data"):
        return {name: data.decode(errors="replace") for name, _, data in parts(content_type, body)}
    return {name: values[-1] for name, values in parse_qs(body.decode(errors="replace"), keep_blank_values=True).items()}


def uploaded(content_type: str, body: bytes) -> bytes:
    """The bytes of an uploaded file: the body itself or, in a multipart form, its first file."""
    if not content_type.startswith("multipart/form-data"):
        return body
    found = parts(content_type, body)
    return next((data for _, filename, data in found if filename), found[0][2] if found else b"")


def parts(content_type: str, body: bytes) -> list[tuple[str, str, bytes]]:
    """A multipart form's parts: name, file name (empty where it is no file), content."""
    whole = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    found = [part for part in whole.iter_parts() if isinstance(part, Message)]
    named = [(part, str(part.get_param("name", "", header="content-disposition"))) for part in found]
    return [(name, part.get_filename() or "", _bytes(part)) for part, name in named]


def _bytes(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""
