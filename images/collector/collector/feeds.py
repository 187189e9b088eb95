"""Which feeds there are, and the headlines in a feed's bytes."""

from __future__ import annotations

import calendar
import html
import io
import re
import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from step_contract.exit_codes import ConfigurationWrong, DataWrong

SEOUL = ZoneInfo("Asia/Seoul")

_TAG = re.compile(r"<[^>]*>")
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\s]+")
_NOT_WORD = re.compile(r"\W+")


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


def plain(text: str) -> str:
    """`text` without markup and control characters, white space folded."""
    return _NOT_TEXT.sub(" ", html.unescape(_TAG.sub(" ", text))).strip()


def headlines(data: bytes, feed: Feed, session: date) -> list[Headline]:
    """The headlines in a feed's `data` that were published on the session's day in Seoul, in order.

    Entries without a title or a date are no headlines. Raises DataWrong when the bytes are no feed.
    """
    import feedparser

    # As a stream: bytes alone would be tried as the name of a file first.
    parsed = feedparser.parse(io.BytesIO(data), resolve_relative_uris=False, sanitize_html=False)
    if not parsed.get("version"):
        reason = parsed.get("bozo_exception", "neither RSS nor Atom")
        raise DataWrong(f"the feed {feed.name} at {feed.url} is none: {reason}")
    found = set()
    for entry in parsed.entries:
        when, title = entry.get("published_parsed") or entry.get("updated_parsed"), plain(entry.get("title", ""))
        if when is None or not title:
            continue
        published = datetime.fromtimestamp(calendar.timegm(when), UTC)
        if published.astimezone(SEOUL).date() == session:
            found.add(Headline(published, feed.name, title, entry.get("link", "")))
    return sorted(found)


def without_doubles(found: list[Headline]) -> list[Headline]:
    """`found` in order, of headlines with the same title or the same link only the first."""
    seen: set[str] = set()
    kept = []
    for headline in sorted(found):
        marks = {_NOT_WORD.sub(" ", headline.title).strip().casefold()} | ({headline.link} if headline.link else set())
        if not marks & seen:
            kept.append(headline)
        seen |= marks
    return kept
