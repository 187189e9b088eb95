"""Which feeds there are, and the headlines in a feed's bytes."""

from __future__ import annotations

import io
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from step_contract.errors import ConfigurationError, DataError

from collector.feed_dates import moment
from collector.feed_text import link_mark, plain, title_mark, utf8, web_link
from collector.sessions import SEOUL
from collector.time_limit import within

SCHEMES = ("http", "https", "file", "s3")
PARSE_LIMIT = 10  # seconds; what takes longer is made to
_END = re.compile(rb"</([A-Za-z_][\w.-]*:)?(rss|feed|RDF|channel)\s*>", re.IGNORECASE)


@dataclass(frozen=True)
class Feed:
    """A feed's name and its URL."""

    name: str
    url: str


@dataclass(frozen=True, order=True)
class Headline:
    """A headline: when it was published (UTC), the feed's name, its title in plain text and its link."""

    published: datetime
    feed: str
    title: str
    link: str


def read_feeds(path: Path) -> list[Feed]:
    """The feeds that the configuration file at `path` names; raises ConfigurationError when it is missing or wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        listed = [(feed["name"], feed["url"]) for feed in content["feed"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"the feeds' file {path} is wrong: {error!r}; it lists [[feed]] with name and url") from None
    for name, url in listed:
        if not (isinstance(name, str) and isinstance(url, str) and name.strip() and url.strip()):
            raise ConfigurationError(f"the feeds' file {path} has a feed {name!r} at {url!r}: both must be text")
        if "://" in url and url.partition("://")[0] not in SCHEMES:
            raise ConfigurationError(f"the feeds' file {path} has a feed at {url}: it must begin with one of {SCHEMES}")
    if len({name for name, _ in listed}) != len(listed) or not listed:
        raise ConfigurationError(f"the feeds' file {path} must name at least one feed, and each by a name of its own")
    return [Feed(name, url if "://" in url else f"file://{path.resolve().parent / url}") for name, url in listed]


@dataclass(frozen=True)
class Read:
    """What a feed holds: the session's headlines in order, and how many entries say not when they were published."""

    headlines: list[Headline]
    undated: int


def read_feed(data: bytes, feed: Feed, session: date) -> Read:
    """The headlines in a feed's `data` that were published on the session's day in Seoul.

    Entries without a title or a date are no headlines. Raises DataError when the bytes are no feed.
    """
    import feedparser

    data = utf8(data)
    with within(PARSE_LIMIT, DataError(f"the feed {feed.name} at {feed.url} takes more than {PARSE_LIMIT} s to parse")):
        try:
            # As a stream: bytes alone would be tried as the name of a file first.
            parsed = feedparser.parse(io.BytesIO(data), resolve_relative_uris=False, sanitize_html=False)
        except (RecursionError, ValueError, LookupError, AssertionError) as error:
            raise DataError(f"the feed {feed.name} at {feed.url} cannot be parsed: {error!r}") from error
    if not parsed.get("version"):
        reason = plain(str(parsed.get("bozo_exception", "neither RSS nor Atom")))
        raise DataError(f"the feed {feed.name} at {feed.url} is none: {reason}")
    if not _END.search(data[-1000:]):
        raise DataError(f"the feed {feed.name} at {feed.url} has no end: it was cut")
    found, undated = set(), 0
    for entry in parsed.entries:
        when, title = _moment(entry), plain(str(entry.get("title") or ""))
        if not title:
            continue
        if when is None:
            undated += 1
        elif when.astimezone(SEOUL).date() == session:
            found.add(Headline(when, feed.name, title, web_link(str(entry.get("link") or ""))))
    return Read(sorted(found), undated)


def _moment(entry: Mapping[str, Any]) -> datetime | None:
    """When the entry was published, else updated; None where it does not say, or not so that it can be understood."""
    for name in ("published", "updated"):
        if written := str(entry.get(name) or ""):
            return moment(written, entry.get(f"{name}_parsed"))
    return None


def without_doubles(found: list[Headline]) -> list[Headline]:
    """`found` in order, of headlines with the same title or the same link only the first."""
    seen: set[str] = set()
    kept = []
    for headline in sorted(found):
        marks = {title_mark(headline.title)} | ({link_mark(headline.link)} if headline.link else set())
        if not marks & seen:
            kept.append(headline)
        seen |= marks
    return kept
