"""Parser of RSS and Atom feeds, whose encoding, markup, links and dates may be invalid or hostile."""

from __future__ import annotations

import calendar
import codecs
import html
import io
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pandas as pd
from step_contract.errors import DataError
from step_contract.schemas import HEADLINES, MARKET_TIME_ZONE
from step_contract.tables import make_table

from collector.feeds import Feed
from collector.time_limit import time_limit

PARSE_TIMEOUT = 10  # seconds; a feed that takes longer was crafted to be slow
MAX_TITLE_LENGTH = 500  # characters
MAX_LINK_LENGTH = 2000

_CLOSING_TAG = re.compile(rb"</([A-Za-z_][\w.-]*:)?(rss|feed|RDF|channel)\s*>", re.IGNORECASE)
_DECLARED_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["'][^>]*\?>""")
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")
# Korean feeds that declare EUC-KR, UTF-8 or nothing may be in cp949, Microsoft's superset of EUC-KR.
_KOREAN_ENCODING = "cp949"
_KOREAN_ENCODING_NAMES = ("euc-kr", "ks-c-5601-1987", "cp949", "uhc", "x-windows-949", "ms949")

_TAG = re.compile(r"<!\[CDATA\[|\]\]>|<[/!?a-zA-Z][^<>]*>")
_NOT_WORD = re.compile(r"[\W_]+")
_TRACKING_PARAMETER = re.compile(r"(utm_.*|fbclid|gclid)", re.IGNORECASE)

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


@dataclass(frozen=True)
class ParsedFeed:
    """A feed's content.

    Attributes:
        headlines: the session's, a table of the schema HEADLINES.
        published: when each dated entry was published, those of other days and without a title included, UTC.
        undated: the number of entries without a valid date.
    """

    headlines: pd.DataFrame
    published: list[datetime]
    undated: int


def parse_feed(data: bytes, feed: Feed, session: date) -> ParsedFeed:
    """Return the headlines in a feed that were published on the session's day in Seoul. Main thread only.

    Entries without a title or a valid date are skipped.

    Args:
        data: the feed, RSS or Atom.
        feed: its name and URL.
        session: the day.

    Raises:
        DataError: the data is not a feed, is truncated, or takes more than PARSE_TIMEOUT to parse.
    """
    import feedparser

    data, location = to_utf8(data), f"feed {feed.name} at {feed.url}"
    with time_limit(PARSE_TIMEOUT, DataError(f"{location}: not parsed within {PARSE_TIMEOUT} s; check the feed")):
        try:
            # feedparser first tries bytes as a file name or URL; a stream is only read.
            parsed = feedparser.parse(io.BytesIO(data), resolve_relative_uris=False, sanitize_html=False)
        except (RecursionError, ValueError, LookupError, AssertionError) as error:
            raise DataError(f"{location}: cannot be parsed: {error!r}; check the feed") from error
    if not parsed.get("version"):
        reason = to_plain_text(str(parsed.get("bozo_exception", "unknown root element")))
        raise DataError(f"{location}: not RSS or Atom: {reason}; check the feed's URL")
    if not _CLOSING_TAG.search(data[-1000:]):
        raise DataError(f"{location}: truncated, the closing tag is missing; check the feed")
    headlines: list[tuple[datetime, str, str, str]] = []
    times: list[datetime] = []
    undated = 0
    for entry in parsed.entries:
        published, title = _published_at(entry), to_plain_text(str(entry.get("title") or ""))
        times += [published] if published else []
        if not title:
            continue
        if published is None:
            undated += 1
        elif published.astimezone(MARKET_TIME_ZONE).date() == session:
            headlines.append((published, feed.name, title, sanitize_link(str(entry.get("link") or ""))))
    return ParsedFeed(make_headlines(headlines), times, undated)


def _published_at(entry: Mapping[str, Any]) -> datetime | None:
    """Return the time at which the entry was published, or else updated, in UTC; None if it is missing or invalid."""
    for name in ("published", "updated"):
        if text := str(entry.get(name) or ""):
            return parse_timestamp(text, entry.get(f"{name}_parsed"))
    return None


def make_headlines(rows: Iterable[tuple[datetime, str, str, str]]) -> pd.DataFrame:
    """Return the table of `rows`: the time of publication in UTC, feed, title and link; ordered, and each row once."""
    columns = dict(zip(HEADLINES.names, zip(*sorted(set(rows)), strict=True), strict=False))
    return make_table(HEADLINES, {name: columns.get(name, ()) for name in HEADLINES.names})


def deduplicate(headlines: pd.DataFrame) -> pd.DataFrame:
    """Return the headlines in order, keeping only the first of those with the same normalized title or link."""
    headlines = headlines.sort_values(list(HEADLINES.names), ignore_index=True)
    links = headlines["link"].map(lambda link: normalize_link(link) if link else "")
    repeated = headlines["title"].map(normalize_title).duplicated() | (links.duplicated() & (links != ""))
    return headlines[~repeated].reset_index(drop=True)


def to_utf8(data: bytes) -> bytes:
    """Return the feed `data` converted to UTF-8, or unchanged if its encoding cannot be determined."""
    declared = _DECLARED_ENCODING.match(data[:1024])
    name = declared.group(1).decode("ascii").lower() if declared else "utf-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = "utf-16"
    korean = name.replace("_", "-") in _KOREAN_ENCODING_NAMES
    for encoding in ("utf-8" if korean else name, _KOREAN_ENCODING):
        try:
            text = data.decode(encoding)
            break
        except (UnicodeDecodeError, LookupError):
            continue
    else:
        if not korean:
            return data
        text = data.decode(_KOREAN_ENCODING, errors="replace")
    return b'<?xml version="1.0" encoding="utf-8"?>' + _DECLARATION.sub("", text.lstrip("\ufeff"), count=1).encode(
        errors="replace"
    )


def to_plain_text(text: str) -> str:
    """Return `text` as one line without markup, control and invisible characters, truncated to MAX_TITLE_LENGTH."""
    untagged = _TAG.sub(" ", html.unescape(_TAG.sub(" ", text[: 20 * MAX_TITLE_LENGTH])))
    normalized = unicodedata.normalize("NFC", untagged)
    printable = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in normalized)
    return " ".join(printable.split())[:MAX_TITLE_LENGTH].strip()


def sanitize_link(link: str) -> str:
    """Return `link` without white space if it is a valid http or https URL of at most MAX_LINK_LENGTH, otherwise ''."""
    compact = "".join(link.split())
    try:
        parts = urlsplit(compact)
    except ValueError:
        return ""
    usable = parts.scheme in ("http", "https") and parts.netloc and compact.isprintable() and len(compact) <= MAX_LINK_LENGTH
    return compact if usable else ""


def normalize_title(title: str) -> str:
    """Return a key that is equal for titles that differ only in case, width, punctuation or white space; never empty."""
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", title)).strip().casefold() or title


def normalize_link(link: str) -> str:
    """Return a key that is equal for links that differ only in scheme, fragment, tracking parameters or a trailing slash."""
    parts = urlsplit(link)
    query = urlencode([(key, value) for key, value in parse_qsl(parts.query, True) if not _TRACKING_PARAMETER.fullmatch(key)])
    return f"//{parts.netloc.lower()}{parts.path.rstrip('/')}?{query}"


def parse_timestamp(text: str, parsed: time.struct_time | None = None) -> datetime | None:
    """Return the time that `text` states, in UTC; None if it is invalid. Without a time zone it is Seoul's.

    Args:
        text: the timestamp as the feed has it.
        parsed: the same as parsed by feedparser, which assumes UTC: used only if `text` names a time zone.
    """
    text = " ".join(text.split())[:100]
    try:
        timestamp = _parse_text(text)
        if timestamp is None and parsed and _NAMES_ZONE.search(text):
            timestamp = datetime.fromtimestamp(calendar.timegm(parsed), UTC)
        # The conversion to Seoul rejects a time whose day there is outside the range of datetime.
        return timestamp.astimezone(MARKET_TIME_ZONE).astimezone(UTC) if timestamp else None
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def _parse_text(text: str) -> datetime | None:
    if _EPOCH.fullmatch(text):
        return datetime.fromtimestamp(int(text), UTC)
    if digit_format := _DIGIT_FORMATS.get(len(text)) if text.isdecimal() else None:
        return datetime.strptime(text, digit_format).replace(tzinfo=MARKET_TIME_ZONE)
    text = _ZONE_NAME.sub("", text.replace("오전", "AM ").replace("오후", "PM "))
    text = _KST_SUFFIX.sub("+09:00", text)
    text = " ".join(_DATE.sub(lambda day: f"{day[1]}-{int(day[2]):02}-{int(day[3]):02} ", text).replace(" T", "T").split())
    for parse in (datetime.fromisoformat, *(_format_parser(text_format) for text_format in _FORMATS), _parse_rfc5322):
        try:
            timestamp = parse(text)
        except (ValueError, TypeError, IndexError):
            continue
        return timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=MARKET_TIME_ZONE)
    return None


def _format_parser(text_format: str) -> Callable[[str], datetime]:
    return lambda text: datetime.strptime(text, text_format)  # noqa: DTZ007 the formats name no zone


def _parse_rfc5322(text: str) -> datetime:
    """Parse the date format of e-mail (RFC 5322), in which the zone -0000 means UTC."""
    timestamp = parsedate_to_datetime(text)
    return timestamp.replace(tzinfo=UTC) if text.endswith("-0000") else timestamp
