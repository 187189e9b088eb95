"""Text from strangers, made harmless: encodings, markup, control characters, links; and what makes two of them the same."""

from __future__ import annotations

import codecs
import html
import re
import unicodedata
from urllib.parse import parse_qsl, urlencode, urlsplit

LONGEST_TITLE = 500  # characters
LONGEST_LINK = 2000

_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_TAG = re.compile(r"<!\[CDATA\[|\]\]>|<[/!?a-zA-Z][^<>]*>")
_NOT_WORD = re.compile(r"[\W_]+")
_TRACKING = re.compile(r"(utm_.*|fbclid|gclid)", re.IGNORECASE)
# Korean pages say EUC-KR, or nothing, or UTF-8, and send Microsoft's superset of EUC-KR.
_KOREAN = "cp949"
_KOREAN_NAMES = ("euc-kr", "ks-c-5601-1987", "cp949", "uhc", "x-windows-949", "ms949")


def utf8(data: bytes) -> bytes:
    """The feed `data` in UTF-8, whatever it is in, if that can be found out; otherwise as it is."""
    declared = _DECLARED.match(data[:1024])
    name = declared.group(1).decode("ascii").lower() if declared else "utf-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = "utf-16"
    korean = name.replace("_", "-") in _KOREAN_NAMES
    for encoding in ("utf-8" if korean else name, _KOREAN):
        try:
            text = data.decode(encoding)
            break
        except (UnicodeDecodeError, LookupError):
            continue
    else:
        if not korean:
            return data
        text = data.decode(_KOREAN, errors="replace")
    return b'<?xml version="1.0" encoding="utf-8"?>' + _DECLARATION.sub("", text.lstrip("\ufeff"), count=1).encode(
        errors="replace"
    )


def plain(text: str) -> str:
    """`text` as one line without markup, control and invisible characters, cut to the length of a title."""
    bare = _TAG.sub(" ", html.unescape(_TAG.sub(" ", text[: 20 * LONGEST_TITLE])))
    seen = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in unicodedata.normalize("NFC", bare))
    return " ".join(seen.split())[:LONGEST_TITLE].strip()


def web_link(link: str) -> str:
    """`link` itself if a browser may open it, otherwise nothing."""
    bare = "".join(link.split())
    try:
        parts = urlsplit(bare)
    except ValueError:
        return ""
    usable = parts.scheme in ("http", "https") and parts.netloc and bare.isprintable() and len(bare) <= LONGEST_LINK
    return bare if usable else ""


def title_mark(title: str) -> str:
    """What two titles have in common that differ in case, width, punctuation or white space alone; never empty."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", title)).strip().casefold() or title


def link_mark(link: str) -> str:
    """What two links have in common that differ in scheme, fragment, tracking or a last slash alone."""
    parts = urlsplit(link)
    query = urlencode([(key, value) for key, value in parse_qsl(parts.query, True) if not _TRACKING.fullmatch(key)])
    return f"//{parts.netloc.lower()}{parts.path.rstrip('/')}?{query}"
