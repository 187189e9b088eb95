"""The step `fetch-headlines`: the headlines of the session's day from every feed, to one Parquet partition."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import arro3.core as arrow
from arro3.io import write_parquet
from step_contract import paths
from step_contract.commit import Committed, Content, commit, find
from step_contract.errors import SourceUnavailableError, StepError
from step_contract.manifest import Fact, canonical, digest
from step_contract.schemas import HEADLINES_COLUMNS, HEADLINES_FILE, HEADLINES_VERSION
from step_contract.store import Store

from collector.calendar_cache import SEOUL
from collector.feed_parsing import Headline, deduplicate, parse_feed
from collector.feeds import Feed
from collector.source import read_url

STEP = "fetch-headlines"
MAX_REPORTED_FEEDS, MAX_NAME_LENGTH, MAX_REASON_LENGTH = (
    5,
    40,
    120,
)  # of the feeds that could not be read, in the manifest; the log has all
log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def headlines_to_parquet(found: Sequence[Headline]) -> bytes:
    """The Parquet file of headlines, with the columns of `HEADLINES_COLUMNS`; the same bytes for the same headlines."""
    microseconds = [(headline.published - _EPOCH) // timedelta(microseconds=1) for headline in found]
    published = arrow.Array(microseconds, arrow.DataType.int64()).cast(arrow.DataType.timestamp("us", tz="UTC"))
    texts = [[getattr(headline, name) for headline in found] for name in HEADLINES_COLUMNS[1:]]
    columns = [published, *(arrow.Array(text, arrow.DataType.string()) for text in texts)]
    buffer = io.BytesIO()
    write_parquet(arrow.Table.from_arrays(columns, names=list(HEADLINES_COLUMNS)), buffer)
    return buffer.getvalue()


@dataclass(frozen=True)
class Collected:
    """The session's headlines of all feeds, why a feed could not be read by its name, and how many entries have no date."""

    headlines: list[Headline]
    broken: dict[str, str]
    undated: int


def collect_headlines(feeds: Sequence[Feed], session: date) -> Collected:
    """The session's headlines of all feeds that can be read."""
    found: list[Headline] = []
    broken: dict[str, str] = {}
    undated = 0
    for feed in feeds:
        try:
            data = read_url(feed.url)
            if data is None:
                raise SourceUnavailableError(f"{feed.url} is not there")
            held = parse_feed(data, feed, session)
        except StepError as error:
            log.warning("the feed %s is left out: %s", feed.name, error)
            broken[feed.name] = str(error)
            continue
        found += held.headlines
        undated += held.undated
    return Collected(deduplicate(found), broken, undated)


def commit_headlines(store: Store, feeds: Sequence[Feed], session: date) -> Committed:
    """Commits the session's headlines, or returns those that were committed before, as a feed forgets within days.

    Raises SourceUnavailableError when no feed can be read.
    """
    configuration = [[feed.name, feed.url.rpartition("/")[2] if feed.url.startswith("file:") else feed.url] for feed in feeds]
    read_from = digest(canonical(configuration))[:12]
    directory = paths.headlines(session, read_from)
    inputs = {"session": session.isoformat(), "feeds": read_from}
    if before := find(store, directory, inputs):
        return before
    if session > datetime.now(SEOUL).date():
        raise SourceUnavailableError(f"{session} has not begun in Seoul: there are no headlines of it")
    held = collect_headlines(feeds, session)
    if len(held.broken) == len(feeds):
        raise SourceUnavailableError(
            f"none of the {len(feeds)} feeds can be read; the first: {next(iter(held.broken.values()))}"
        )
    facts: dict[str, Fact] = {"session": session.isoformat(), "headlines": len(held.headlines), "feeds": len(feeds)}
    facts |= {"undated": held.undated} if held.undated else {}
    facts |= {"broken": len(held.broken)} if held.broken else {}
    # Facts are also the step's result, of 4 KiB at most.
    shown = list(held.broken.items())[:MAX_REPORTED_FEEDS]
    facts |= {f"broken {name[:MAX_NAME_LENGTH]}": reason[:MAX_REASON_LENGTH] for name, reason in shown}
    content = Content({HEADLINES_FILE: headlines_to_parquet(held.headlines)}, len(held.headlines), HEADLINES_VERSION, facts)
    return commit(store, directory, step=STEP, session=session, inputs=inputs, content=content)
