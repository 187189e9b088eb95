"""The step `fetch-headlines`: commit the headlines of the session's day from all feeds as one Parquet partition.

A feed drops its entries within days. So the artifact also states which feeds covered the day, and a later run that finds more
extends an incomplete one in a revision beside it (decision 28).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import pandas as pd
from step_contract import paths
from step_contract.commit import Committed, Content, make_manifest, read, try_commit
from step_contract.errors import DataError, SourceUnavailableError, StepError, TransientError
from step_contract.facts import Availability, HeadlinesFacts
from step_contract.lineage.sources import Source, redact_url, source_of_file
from step_contract.manifest import canonical, digest
from step_contract.revisions import Artifact, Logic, list_revisions, load_revision, verify_revision
from step_contract.schemas import FEEDS_FILE, HEADLINES, MARKET_TIME_ZONE
from step_contract.store import Store
from step_contract.tables import read_rows, to_parquet

from collector.feed_coverage import (
    Coverage,
    FeedCoverage,
    assess_feed,
    coverage_from_json,
    coverage_to_json,
    day_bounds,
    determine_availability,
    is_recent,
    merge_coverage,
)
from collector.feed_parsing import deduplicate, make_headlines, parse_feed
from collector.feeds import Feed, get_authorization
from collector.source import read_url

LOGIC = Logic("collector", "fetch-headlines", code_version=1, schema_version=HEADLINES.version)
EXTENDED = "the feeds held more of the day"  # the reason of a revision that extends an incomplete one
# The manifest's facts are also the step's result, which is limited to 4 KiB of JSON. The log has every broken feed in full.
MAX_REPORTED_FEEDS, MAX_NAME_BYTES, MAX_REASON_BYTES = 5, 60, 160
# How often other runs of the same session may commit first. Each of them has found more, so that there cannot be many.
MAX_COMMITS = 5
# A URL's query, without the punctuation that follows the URL in a message.
_QUERY = re.compile(r"(://[^\s?]*)\?\S*?(?=[:;,]?(?:\s|$))")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectedHeadlines:
    """The session's headlines of all feeds.

    Attributes:
        headlines: a table of the schema HEADLINES, without duplicates, ordered by time of publication.
        feeds: what each feed's entries show about the session's day, in the feeds' order.
        undated: the number of entries without a valid date.
        sources: the feeds as they were read, and the earlier revision that this extends.
    """

    headlines: pd.DataFrame
    feeds: list[FeedCoverage]
    undated: int = 0
    sources: tuple[Source, ...] = ()


def collect_headlines(feeds: Sequence[Feed], session: date, now: datetime) -> CollectedHeadlines:
    """Read all feeds at `now`; log those that cannot be read or do not hold the whole day.

    Raises ConfigurationError if a feed's Authorization is not set: a skipped feed could stay unnoticed.
    """
    authorizations = [get_authorization(feed) for feed in feeds]
    headlines = [make_headlines([])]
    coverage: list[FeedCoverage] = []
    sources: list[Source] = []
    undated = 0
    for feed, authorization in zip(feeds, authorizations, strict=True):
        try:
            data = read_url(feed.url, authorization)
            if data is None:
                raise SourceUnavailableError(f"{feed.url} does not exist; correct the feed's URL")
            parsed = parse_feed(data, feed, session)
        except StepError as error:
            reason = redact(str(error), feed, authorization)
            log.warning("skipped feed %s: %s", feed.name, reason)
            coverage.append(FeedCoverage(feed.name, Coverage.BROKEN, reason))
            continue
        sources.append(source_of_file("feed", feed.url, data))
        headlines.append(parsed.headlines)
        undated += parsed.undated
        coverage.append(assess_feed(feed.name, parsed.published, parsed.undated, session, now))
        if coverage[-1].reason:
            log.warning("incomplete feed %s (%s): %s", feed.name, coverage[-1].coverage, coverage[-1].reason)
    return CollectedHeadlines(deduplicate(pd.concat(headlines)), coverage, undated, tuple(sources))


def redact(message: str, feed: Feed, authorization: str | None) -> str:
    """Return the message without the header's value, which a server may repeat, and URLs' queries, which may have a key."""
    if authorization:
        message = message.replace(authorization, "***")
    message = message.replace(feed.url, redact_url(feed.url))
    if query := feed.url.partition("?")[2]:
        message = message.replace(f"?{query}", "")
    return _QUERY.sub(r"\1", message)


@dataclass(frozen=True)
class Partition:
    """The latest revision of a session's committed headlines; `source` names it as what a later one was made from."""

    store: Store
    directory: str
    committed: Committed
    source: Source

    @property
    def is_final(self) -> bool:
        """Whether no run may add to it: every feed covered the day, and there are headlines or the day was over."""
        manifest = self.committed.manifest
        facts = HeadlinesFacts.parse(manifest.facts)
        if not facts.availability:  # a version that did not check the feeds
            return facts.headlines > 0 and not facts.broken
        return facts.availability == Availability.COMPLETE and (facts.headlines > 0 or self.day_was_over)

    @property
    def day_was_over(self) -> bool:
        """Whether it was committed after the session's day."""
        manifest = self.committed.manifest
        return manifest.created >= day_bounds(manifest.session)[1]

    def is_remade(self, reason: str) -> bool:
        """Return whether this version of the step committed it for a person's reason."""
        return self.committed.manifest.reason == reason and LOGIC.made(self.committed.manifest)

    def read_content(self) -> CollectedHeadlines:
        """Return its headlines and feeds; without feeds of which an earlier version recorded nothing."""
        files = read(self.store, self.directory, self.committed.manifest)
        tables = {self.committed.uri: files[HEADLINES.file]} if HEADLINES.file in files else {}
        headlines = read_rows(tables, HEADLINES, dict.fromkeys(tables, self.committed.manifest.schema_version)).table
        if FEEDS_FILE in files:
            return CollectedHeadlines(headlines, coverage_from_json(files[FEEDS_FILE], self.committed.uri))
        names = headlines["feed"].unique()
        reason = "collected by a version that did not check how far feeds reach back"
        return CollectedHeadlines(headlines, [FeedCoverage(name, Coverage.PARTIAL, reason) for name in names])

    def merge(self, collected: CollectedHeadlines) -> tuple[CollectedHeadlines, bool]:
        """Return what this and `collected` have together, and whether it is worth another revision.

        A headline that both have, by feed, time and link, is as it was collected now: another version may parse it otherwise.
        """
        previous = self.read_content()
        read_until = None if self.day_was_over else self.committed.manifest.created
        merged, improved = merge_coverage(previous.feeds, collected.feeds, read_until)
        # An earlier version recorded nothing but "0 headlines", also of a session that no feed held.
        unrecorded = not previous.feeds and any(feed.coverage != Coverage.BROKEN for feed in collected.feeds)
        first_headlines = len(previous.headlines) == 0 < len(collected.headlines)
        keys = ["published", "feed", "link"]
        again = collected.headlines.loc[collected.headlines["link"] != "", keys]
        kept = previous.headlines[~pd.MultiIndex.from_frame(previous.headlines[keys]).isin(pd.MultiIndex.from_frame(again))]
        headlines = deduplicate(pd.concat([kept, collected.headlines]))
        sources = (self.source, *collected.sources)
        return CollectedHeadlines(headlines, merged, collected.undated, sources), improved or unrecorded or first_headlines


def find_partition(store: Store, session: date, feeds_digest: str, *, skip_damaged: bool = False) -> Partition | None:
    """Return the latest revision of the session's committed headlines of these feeds, verified; None if there is none.

    Raises DataError if it is damaged; with `skip_damaged`, the latest one that is not is returned.
    """
    command = LOGIC.command({"session": session.isoformat()})
    for path in reversed(list_revisions(store, paths.headlines(session, feeds_digest)).values()):
        try:
            revision = load_revision(store, path)
            committed = verify_revision(store, path, revision.manifest, LOGIC, command)
            return Partition(store, revision.directory, committed, revision.source(store, "headlines"))
        except DataError as error:
            if not skip_damaged:
                raise
            log.warning("a damaged revision is not extended: %s", error)
    return None


def commit_headlines(store: Store, feeds: Sequence[Feed], session: date, now: datetime, remake: str = "") -> Committed:
    """Collect and commit the session's headlines, or return the partition that exists.

    A partition that exists and is not final is returned unless a feed holds more of the day than it did then, or the first
    headlines: what both have is committed as the next revision. If another run commits that revision first, its headlines are
    added in the same way to those that this run has read. With `remake`, what both have is committed in any case.

    Args:
        store: where the artifacts are.
        feeds: the feeds to read.
        session: the session.
        now: the time; it determines whether a feed may still recover.
        remake: a person's reason to commit another revision; empty for none.

    Raises:
        SourceUnavailableError: the session's day has not begun in Seoul, no feed can be read (an existing partition is then
            returned unless it is to be remade), or there is no headline yet and a feed may recover.
        TransientError: other runs have committed MAX_COMMITS revisions meanwhile.
    """
    configuration = [[feed.name, feed.url.rpartition("/")[2] if feed.url.startswith("file:") else feed.url] for feed in feeds]
    feeds_digest = digest(canonical(configuration))[:12]
    directory, inputs = paths.headlines(session, feeds_digest), {"session": session.isoformat(), "feeds": feeds_digest}
    artifact = Artifact(store, directory, LOGIC, session=session, inputs=inputs, remake=remake)
    if remake and (committed := artifact.find()):
        return committed
    existing = find_partition(store, session, feeds_digest, skip_damaged=bool(remake))
    if existing and existing.is_final and not remake:
        return existing.committed
    if session > now.astimezone(MARKET_TIME_ZONE).date():
        raise SourceUnavailableError(f"{session} has not begun in {MARKET_TIME_ZONE.key}: there are no headlines yet")
    collected = collect_headlines(feeds, session, now)
    if remake:
        check_readable(collected.feeds)
    for _ in range(MAX_COMMITS):
        merged, improved = existing.merge(collected) if existing else (collected, True)
        # Once nothing can be waited for any more, what exists is the result, also if no feed can be read.
        if len(merged.headlines) == 0 and (existing is None or is_recent(session, now)):
            check_source(merged.feeds, session, now)
        if existing and not improved and (not remake or existing.is_remade(remake)):
            return existing.committed
        number = max(list_revisions(store, directory), default=0) + 1
        content, reason = make_content(merged, session), remake or (EXTENDED if existing else "")
        manifest = make_manifest(LOGIC.step, session, inputs, content, LOGIC.code_version, reason)
        if committed := try_commit(store, paths.revision(directory, number), manifest, content):
            return committed
        existing = find_partition(store, session, feeds_digest, skip_damaged=bool(remake))
        if existing and existing.is_final and not remake:
            return existing.committed
    raise TransientError(f"other runs have committed {MAX_COMMITS} revisions of {session} meanwhile: run the step again")


def check_readable(feeds: Sequence[FeedCoverage]) -> None:
    """Raise SourceUnavailableError if none of the feeds could be read."""
    broken = [feed for feed in feeds if feed.coverage == Coverage.BROKEN]
    if len(broken) == len(feeds):
        raise SourceUnavailableError(f"none of the {len(feeds)} feeds can be read; the first error: {broken[0].reason}")


def check_source(feeds: Sequence[FeedCoverage], session: date, now: datetime) -> None:
    """Raise SourceUnavailableError if the feeds, which have no headline of the session, may recover and have some."""
    check_readable(feeds)
    if is_recent(session, now) and (waiting := [feed for feed in feeds if feed.may_recover]):
        raise SourceUnavailableError(
            f"no headlines of {session}, and {len(waiting)} of {len(feeds)} feeds may still have some: "
            f"{_join_reasons(waiting)}; check the feeds, or run the step again later"
        )


def make_content(collected: CollectedHeadlines, session: date) -> Content:
    """Return the session's partition; without the table if no feed held the day: an empty file would mean no headlines."""
    feeds, headlines = collected.feeds, collected.headlines
    availability = determine_availability(feeds)
    broken = [feed for feed in feeds if feed.coverage == Coverage.BROKEN]
    incomplete = [feed for feed in feeds if feed.reason and feed not in broken]
    facts = HeadlinesFacts(
        session=session.isoformat(),
        headlines=len(headlines),
        feeds=len(feeds),
        broken=len(broken),
        broken_feeds=_join_reasons(broken),
        undated=collected.undated,
        availability=availability.value,
        uncovered=sum(not feed.holds_day for feed in incomplete),
        partly_covered=sum(feed.holds_day for feed in incomplete),
        incomplete_feeds=_join_reasons(incomplete),
    )
    files = {FEEDS_FILE: coverage_to_json(feeds)}
    if availability != Availability.UNAVAILABLE:
        files[HEADLINES.file] = to_parquet(headlines, HEADLINES)
    return Content(files, len(headlines), HEADLINES.version, facts.to_facts(), collected.sources)


def _join_reasons(feeds: Sequence[FeedCoverage]) -> str:
    shown = [
        f"{_truncate(feed.feed, MAX_NAME_BYTES)}: {_truncate(feed.reason, MAX_REASON_BYTES)}"
        for feed in feeds[:MAX_REPORTED_FEEDS]
    ]
    return "; ".join([*shown, *([f"and {len(feeds) - len(shown)} more"] if len(feeds) > len(shown) else [])])


def _truncate(text: str, max_bytes: int) -> str:
    """Return as much of the beginning as has at most `max_bytes` bytes in JSON, without the quotes."""
    text = text[:max_bytes]
    while len(json.dumps(text, ensure_ascii=False).encode(errors="surrogatepass")) - 2 > max_bytes:
        text = text[:-1]
    return text
