"""The step `fetch-headlines`: commit the headlines of the session's day from all feeds as one Parquet partition."""

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
from step_contract.facts import HeadlinesFacts
from step_contract.manifest import canonical, digest
from step_contract.schemas import HEADLINES_COLUMNS, HEADLINES_FILE, HEADLINES_VERSION, MARKET_TIME_ZONE
from step_contract.store import Store

from collector.feed_parsing import Headline, deduplicate, parse_feed
from collector.feeds import Feed, get_authorization
from collector.source import read_url

STEP = "fetch-headlines"
# The manifest's facts are also the step's result, which is limited to 4 KiB. The log has every broken feed in full.
MAX_REPORTED_FEEDS, MAX_NAME_LENGTH, MAX_REASON_LENGTH = 5, 40, 120
log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def headlines_to_parquet(headlines: Sequence[Headline]) -> bytes:
    """Return a Parquet file with the columns HEADLINES_COLUMNS; equal headlines give equal bytes."""
    microseconds = [(headline.published - _EPOCH) // timedelta(microseconds=1) for headline in headlines]
    published = arrow.Array(microseconds, arrow.DataType.int64()).cast(arrow.DataType.timestamp("us", tz="UTC"))
    texts = [[getattr(headline, name) for headline in headlines] for name in HEADLINES_COLUMNS[1:]]
    columns = [published, *(arrow.Array(text, arrow.DataType.string()) for text in texts)]
    buffer = io.BytesIO()
    write_parquet(arrow.Table.from_arrays(columns, names=list(HEADLINES_COLUMNS)), buffer)
    return buffer.getvalue()


@dataclass(frozen=True)
class CollectedHeadlines:
    """The session's headlines of all feeds.

    Attributes:
        headlines: without duplicates, ordered by time of publication.
        broken: the error of each feed that could not be read, by its name.
        undated: the number of entries without a valid date.
    """

    headlines: list[Headline]
    broken: dict[str, str]
    undated: int


def collect_headlines(feeds: Sequence[Feed], session: date) -> CollectedHeadlines:
    """Read all feeds; log and skip those that cannot be read.

    Raises ConfigurationError if a feed's Authorization is not set: a skipped feed could stay unnoticed.
    """
    authorizations = [get_authorization(feed) for feed in feeds]
    headlines: list[Headline] = []
    broken: dict[str, str] = {}
    undated = 0
    for feed, authorization in zip(feeds, authorizations, strict=True):
        try:
            data = read_url(feed.url, authorization)
            if data is None:
                raise SourceUnavailableError(f"{feed.url} does not exist; correct the feed's URL")
            parsed = parse_feed(data, feed, session)
        except StepError as error:
            # A server may repeat the header in its response.
            reason = str(error).replace(authorization, "***") if authorization else str(error)
            log.warning("skipped feed %s: %s", feed.name, reason)
            broken[feed.name] = reason
            continue
        headlines += parsed.headlines
        undated += parsed.undated
    return CollectedHeadlines(deduplicate(headlines), broken, undated)


def commit_headlines(store: Store, feeds: Sequence[Feed], session: date) -> Committed:
    """Collect and commit the session's headlines, or return the partition that exists: feeds drop entries within days.

    Raises:
        SourceUnavailableError: the session's day has not begun in Seoul, or no feed can be read.
    """
    configuration = [[feed.name, feed.url.rpartition("/")[2] if feed.url.startswith("file:") else feed.url] for feed in feeds]
    feeds_digest = digest(canonical(configuration))[:12]
    directory = paths.headlines(session, feeds_digest)
    inputs = {"session": session.isoformat(), "feeds": feeds_digest}
    if committed := find(store, directory, inputs):
        return committed
    if session > datetime.now(MARKET_TIME_ZONE).date():
        raise SourceUnavailableError(f"{session} has not begun in Seoul: there are no headlines yet")
    collected = collect_headlines(feeds, session)
    headlines, broken = collected.headlines, collected.broken
    if len(broken) == len(feeds):
        first_error = next(iter(broken.values()))
        raise SourceUnavailableError(f"none of the {len(feeds)} feeds can be read; the first error: {first_error}")
    reported = list(broken.items())[:MAX_REPORTED_FEEDS]
    errors = [f"{name[:MAX_NAME_LENGTH]}: {error[:MAX_REASON_LENGTH]}" for name, error in reported]
    errors += [f"and {len(broken) - len(reported)} more"] if len(broken) > len(reported) else []
    facts = HeadlinesFacts(
        session.isoformat(), len(headlines), len(feeds), len(broken), "; ".join(errors), collected.undated
    ).to_facts()
    content = Content({HEADLINES_FILE: headlines_to_parquet(headlines)}, len(headlines), HEADLINES_VERSION, facts)
    return commit(store, directory, step=STEP, session=session, inputs=inputs, content=content)
