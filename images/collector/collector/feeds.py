"""Which feeds there are, and the headlines in a feed's bytes."""

from __future__ import annotations

import calendar
import io
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from step_contract.exit_codes import ConfigurationWrong, DataWrong

from collector.feed_text import link_mark, plain, title_mark, utf8, web_link
from collector.sessions import SEOUL
from collector.time_limit import within

PARSE_LIMIT = 10  # seconds; what takes longer is made to


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
    """The feeds that the configuration file at `path` names; raises ConfigurationWrong when it is missing or wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        listed = [(str(feed["name"]), str(feed["url"])) for feed in content["feed"]]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ConfigurationWrong(f"the feeds' file {path} is wrong: {error!r}; it lists [[feed]] with name and url") from None
    if len({name for name, _ in listed}) != len(listed) or not listed:
        raise ConfigurationWrong(f"the feeds' file {path} must name at least one feed, and each by a name of its own")
    return [Feed(name, url if "://" in url else path.resolve().with_name(url).as_uri()) for name, url in listed]


@dataclass(frozen=True)
class Read:
    """What a feed holds: the session's headlines in order, and how many entries say not when they were published."""

    headlines: list[Headline]
    undated: int


def read_feed(data: bytes, feed: Feed, session: date) -> Read:
    """The headlines in a feed's `data` that were published on the session's day in Seoul.

    Entries without a title or a date are no headlines. Raises DataWrong when the bytes are no feed.
    """
    import feedparser

    from collector.feed_dates import published

    feedparser.registerDateHandler(published)
    with within(PARSE_LIMIT, DataWrong(f"the feed {feed.name} at {feed.url} takes more than {PARSE_LIMIT} s to parse")):
        try:
            # As a stream: bytes alone would be tried as the name of a file first.
            parsed = feedparser.parse(io.BytesIO(utf8(data)), resolve_relative_uris=False, sanitize_html=False)
        except (RecursionError, ValueError, LookupError, AssertionError) as error:
            raise DataWrong(f"the feed {feed.name} at {feed.url} cannot be parsed: {error!r}") from error
    if not parsed.get("version"):
        reason = plain(str(parsed.get("bozo_exception", "neither RSS nor Atom")))
        raise DataWrong(f"the feed {feed.name} at {feed.url} is none: {reason}")
    found, undated = set(), 0
    for entry in parsed.entries:
        when, title = _moment(entry), plain(entry.get("title", ""))
        if not title:
            continue
        if when is None:
            undated += 1
        elif when.astimezone(SEOUL).date() == session:
            found.add(Headline(when, feed.name, title, web_link(entry.get("link", ""))))
    return Read(sorted(found), undated)


def _moment(entry: Mapping[str, Any]) -> datetime | None:
    parts = entry.get("published_parsed") or entry.get("updated_parsed")
    try:
        return datetime.fromtimestamp(calendar.timegm(parts), UTC) if parts else None
    except (ValueError, OverflowError, OSError):
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
