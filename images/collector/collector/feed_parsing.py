"""The headlines in a feed's bytes: encodings, markup, links and dates as strangers write them."""

from __future__ import annotations

import calendar
import codecs
import html
import io
import re
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from step_contract.errors import DataError

from collector.calendar_cache import SEOUL
from collector.feeds import Feed
from collector.time_limit import time_limit

PARSE_TIMEOUT = 10  # seconds; what takes longer is made to
_CLOSING_TAG = re.compile(rb"</([A-Za-z_][\w.-]*:)?(rss|feed|RDF|channel)\s*>", re.IGNORECASE)
MAX_TITLE_LENGTH = 500  # characters
MAX_LINK_LENGTH = 2000

_DECLARED_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
_TAG = re.compile(r"<!\[CDATA\[|\]\]>|<[/!?a-zA-Z][^<>]*>")
_NOT_WORD = re.compile(r"[\W_]+")
_TRACKING = re.compile(r"(utm_.*|fbclid|gclid)", re.IGNORECASE)
# Korean pages say EUC-KR, or nothing, or UTF-8, and send Microsoft's superset of EUC-KR.
_KOREAN = "cp949"
_KOREAN_NAMES = ("euc-kr", "ks-c-5601-1987", "cp949", "uhc", "x-windows-949", "ms949")
_KST_SUFFIX = re.compile(r"\s*\(?(KST|JST)\)?$", re.IGNORECASE)
_ZONE_NAME = re.compile(r"\[[A-Za-z_]+/[A-Za-z_/]+\]$")
_DATE = re.compile(r"^(\d{4})\s*[./년-]\s*(\d{1,2})\s*[./월-]\s*(\d{1,2})\s*[.일]?(?=\D|$)")
_EPOCH = re.compile(r"\d{10}")
_DIGIT_FORMATS = {14: "%Y%m%d%H%M%S", 12: "%Y%m%d%H%M", 8: "%Y%m%d"}
_NAMES_ZONE = re.compile(r"([+-]\d\d:?\d\d|\b(Z|GMT|UTC?|[ECMP][SD]T))$|\dZ$", re.IGNORECASE)
_FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y-%m-%d %I:%M:%S %p",
    "%Y-%m-%d %I:%M %p",
    "%Y-%m-%d %p %I:%M:%S",
    "%Y-%m-%d %p %I:%M",
    "%a, %d %b %Y %I:%M:%S %p",
    "%a %b %d %H:%M:%S %Y",
)


@dataclass(frozen=True, order=True)
class Headline:
    """A headline: when it was published (UTC), the feed's name, its title in plain text and its link."""

    published: datetime
    feed: str
    title: str
    link: str


@dataclass(frozen=True)
class ParsedFeed:
    """What a feed holds: the session's headlines in order, and how many entries say not when they were published."""

    headlines: list[Headline]
    undated: int


def parse_feed(data: bytes, feed: Feed, session: date) -> ParsedFeed:
    """The headlines in a feed's `data` that were published on the session's day in Seoul.

    Entries without a title or a date are no headlines. Raises DataError when the bytes are no feed.
    """
    import feedparser

    data = to_utf8(data)
    with time_limit(PARSE_TIMEOUT, DataError(f"the feed {feed.name} at {feed.url} takes more than {PARSE_TIMEOUT} s to parse")):
        try:
            # As a stream: bytes alone would be tried as the name of a file first.
            parsed = feedparser.parse(io.BytesIO(data), resolve_relative_uris=False, sanitize_html=False)
        except (RecursionError, ValueError, LookupError, AssertionError) as error:
            raise DataError(f"the feed {feed.name} at {feed.url} cannot be parsed: {error!r}") from error
    if not parsed.get("version"):
        reason = to_plain_text(str(parsed.get("bozo_exception", "neither RSS nor Atom")))
        raise DataError(f"the feed {feed.name} at {feed.url} is none: {reason}")
    if not _CLOSING_TAG.search(data[-1000:]):
        raise DataError(f"the feed {feed.name} at {feed.url} has no end: it was cut")
    found, undated = set(), 0
    for entry in parsed.entries:
        when, title = _published_at(entry), to_plain_text(str(entry.get("title") or ""))
        if not title:
            continue
        if when is None:
            undated += 1
        elif when.astimezone(SEOUL).date() == session:
            found.add(Headline(when, feed.name, title, validate_link(str(entry.get("link") or ""))))
    return ParsedFeed(sorted(found), undated)


def _published_at(entry: Mapping[str, Any]) -> datetime | None:
    """When the entry was published, else updated; None where it does not say, or not so that it can be understood."""
    for name in ("published", "updated"):
        if written := str(entry.get(name) or ""):
            return parse_timestamp(written, entry.get(f"{name}_parsed"))
    return None


def deduplicate(found: list[Headline]) -> list[Headline]:
    """`found` in order, of headlines with the same title or the same link only the first."""
    seen: set[str] = set()
    kept = []
    for headline in sorted(found):
        marks = {normalize_title(headline.title)} | ({normalize_link(headline.link)} if headline.link else set())
        if not marks & seen:
            kept.append(headline)
        seen |= marks
    return kept


def to_utf8(data: bytes) -> bytes:
    """The feed `data` in UTF-8, whatever it is in, if that can be found out; otherwise as it is."""
    declared = _DECLARED_ENCODING.match(data[:1024])
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


def to_plain_text(text: str) -> str:
    """`text` as one line without markup, control and invisible characters, cut to the length of a title."""
    bare = _TAG.sub(" ", html.unescape(_TAG.sub(" ", text[: 20 * MAX_TITLE_LENGTH])))
    seen = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in unicodedata.normalize("NFC", bare))
    return " ".join(seen.split())[:MAX_TITLE_LENGTH].strip()


def validate_link(link: str) -> str:
    """`link` itself if a browser may open it, otherwise nothing."""
    bare = "".join(link.split())
    try:
        parts = urlsplit(bare)
    except ValueError:
        return ""
    usable = parts.scheme in ("http", "https") and parts.netloc and bare.isprintable() and len(bare) <= MAX_LINK_LENGTH
    return bare if usable else ""


def normalize_title(title: str) -> str:
    """What two titles have in common that differ in case, width, punctuation or white space alone; never empty."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", title)).strip().casefold() or title


def normalize_link(link: str) -> str:
    """What two links have in common that differ in scheme, fragment, tracking or a last slash alone."""
    parts = urlsplit(link)
    query = urlencode([(key, value) for key, value in parse_qsl(parts.query, True) if not _TRACKING.fullmatch(key)])
    return f"//{parts.netloc.lower()}{parts.path.rstrip('/')}?{query}"


def parse_timestamp(text: str, parsed: time.struct_time | None = None) -> datetime | None:
    """The moment in UTC that `text` names; None where it cannot be understood.

    `parsed` is what feedparser, which takes all without a zone for UTC, made of it: used where `text` names a zone.
    """
    bare = " ".join(text.split())[:100]
    try:
        found = _parse_text(bare)
        if found is None and parsed and _NAMES_ZONE.search(bare):
            found = datetime.fromtimestamp(calendar.timegm(parsed), UTC)
        # Where no zone of the world can put it on a day of the calendar, it is no moment.
        return found.astimezone(SEOUL).astimezone(UTC) if found else None
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def _parse_text(text: str) -> datetime | None:
    if _EPOCH.fullmatch(text):
        return datetime.fromtimestamp(int(text), UTC)
    if form := _DIGIT_FORMATS.get(len(text)) if text.isdecimal() else None:
        return datetime.strptime(text, form).replace(tzinfo=SEOUL)
    text = _ZONE_NAME.sub("", text.replace("오전", "AM ").replace("오후", "PM "))
    text = _KST_SUFFIX.sub("+09:00", text)
    text = " ".join(_DATE.sub(lambda day: f"{day[1]}-{int(day[2]):02}-{int(day[3]):02} ", text).replace(" T", "T").split())
    for read in (datetime.fromisoformat, *(_strptime(form) for form in _FORMATS), _parse_rfc5322):
        try:
            found = read(text)
        except (ValueError, TypeError, IndexError):
            continue
        return found if found.tzinfo else found.replace(tzinfo=SEOUL)
    return None


def _strptime(form: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, form)  # noqa: DTZ007 it names no zone


def _parse_rfc5322(text: str) -> datetime:
    """As in letters (RFC 5322): `-0000` there means UTC."""
    found = parsedate_to_datetime(text)
    return found.replace(tzinfo=UTC) if text.endswith("-0000") else found
