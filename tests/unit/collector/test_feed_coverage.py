"""Whether a feed holds the session's day, and what an artifact says and becomes if it does not."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path

import pytest
from arro3.io import read_parquet
from collector.feed_coverage import Coverage, FeedCoverage, assess_feed
from collector.feed_parsing import make_headlines, parse_feed
from collector.feeds import Feed, read_feeds
from collector.fetch_headlines import CollectedHeadlines, commit_headlines, make_content
from step_contract import paths
from step_contract.commit import Committed, Content, commit, open_artifact
from step_contract.errors import DataError, SourceUnavailableError, TransientError
from step_contract.facts import HeadlinesFacts
from step_contract.manifest import canonical, digest
from step_contract.schemas import FEEDS_FILE, HEADLINES, MARKET_TIME_ZONE
from step_contract.store import Store
from step_contract.tables import to_parquet

from .conftest import Run
from .test_fetch_headlines import feeds_file, item, rss

SESSION = date(2026, 3, 18)  # a Wednesday
NOON = datetime(2026, 3, 18, 12, tzinfo=MARKET_TIME_ZONE)
SIX_PM = NOON.replace(hour=18)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LATER = NOON + 30 * DAY


def every(pause: timedelta, number: int, first: datetime) -> list[datetime]:
    return [first + index * pause for index in range(number)]


def assess(published: list[datetime], now: datetime = LATER, undated: int = 0) -> Coverage:
    """Assess the entries in three orders, which must not matter."""
    orders = (published, published[::-1], sorted(published, key=lambda time: digest(time.isoformat().encode())))
    [coverage] = {assess_feed("mine", order, undated, SESSION, now).coverage for order in orders}
    return coverage


PINNED = datetime(2019, 5, 2, tzinfo=UTC)
BUSY_SINCE_THE_20TH = every(timedelta(minutes=20), 100, NOON + 2 * DAY)
BUSY_SINCE_NOON = every(timedelta(minutes=5), 30, NOON)
DAILY = every(DAY, 20, NOON - 10 * DAY)
QUIET = [time for time in DAILY if time != NOON]


@pytest.mark.parametrize(
    ("published", "coverage"),
    [
        (DAILY, "complete"),
        (QUIET, "complete"),
        (every(7 * DAY, 8, NOON - 25 * DAY), "complete"),
        ([NOON - DAY, NOON + DAY], "complete"),
        ([NOON - DAY, NOON], "complete"),
        ([NOON - 11 * DAY, NOON], "complete"),
        ([NOON], "partial"),
        ([PINNED, NOON], "partial"),
        (every(HOUR, 50, NOON), "partial"),
        ([NOON - 7 * DAY, *BUSY_SINCE_NOON], "partial"),
        ([*every(timedelta(minutes=1), 4, NOON - 7 * DAY), *BUSY_SINCE_NOON], "partial"),
        ([NOON - DAY, *BUSY_SINCE_NOON], "partial"),
        ([*every(DAY, 8, NOON - 8 * DAY), *BUSY_SINCE_NOON], "complete"),
        ([*every(7 * DAY, 5, NOON - 35 * DAY), NOON], "complete"),
        ([NOON + DAY], "expired"),
        (BUSY_SINCE_THE_20TH, "expired"),
        ([PINNED, *BUSY_SINCE_THE_20TH], "expired"),
        ([*every(300 * DAY, 7, PINNED), *BUSY_SINCE_THE_20TH], "expired"),
        ([NOON - 3 * DAY, *BUSY_SINCE_THE_20TH], "expired"),
        ([*every(7 * DAY, 4, NOON - 30 * DAY), *BUSY_SINCE_THE_20TH], "expired"),
        ([], "inconclusive"),
        ([PINNED], "inconclusive"),
        ([LATER + DAY], "inconclusive"),
        (every(DAY, 20, NOON - 60 * DAY), "inconclusive"),
        (every(DAY, 20, NOON - 20 * DAY), "inconclusive"),
    ],
)
def test_coverage_follows_from_the_entries_around_the_day(published: list[datetime], coverage: str) -> None:
    assert assess(published) == coverage


@pytest.mark.parametrize("feed", [QUIET, [NOON - DAY, NOON + DAY], [NOON - 11 * DAY, NOON]])
def test_an_entry_dated_in_the_future_changes_nothing(feed: list[datetime]) -> None:
    assert assess([*feed, LATER + 9000 * DAY]) == assess(feed) == Coverage.COMPLETE


@pytest.mark.parametrize("last_day", [NOON - DAY, NOON - 3 * DAY])
def test_a_night_or_weekend_before_the_day_is_no_gap_in_a_busy_feed(last_day: datetime) -> None:
    office_hours = [time for day in (last_day, NOON) for time in every(timedelta(minutes=20), 28, day - 3 * HOUR)]
    assert assess(office_hours, SIX_PM) == Coverage.COMPLETE


def test_a_pinned_entry_and_the_gap_after_it_are_the_reason() -> None:
    assert assess_feed("mine", [NOON - 7 * DAY, *BUSY_SINCE_NOON], 0, SESSION, SIX_PM).reason == (
        "it has nothing between 2026-03-11 and 12:00 on that day, a longer pause than is usual for it"
    )


def test_a_quiet_feed_covers_a_day_that_is_not_over() -> None:
    yesterday_and_before = [time for time in DAILY if time < NOON]
    assert assess(yesterday_and_before, SIX_PM) == Coverage.COMPLETE


@pytest.mark.parametrize("number", [5, 100])
@pytest.mark.parametrize("pinned", [[], [PINNED]])
def test_a_busy_feed_that_shows_earlier_days_only_is_a_stale_copy(number: int, pinned: list[datetime]) -> None:
    busy_until_yesterday = [*pinned, *every(timedelta(minutes=20), number, NOON - 2 * DAY)]
    assert assess(busy_until_yesterday, SIX_PM) == Coverage.INCONCLUSIVE


def test_undated_entries_may_be_the_days() -> None:
    assert assess(QUIET, undated=1) == Coverage.INCONCLUSIVE
    assert assess(DAILY, undated=1) == Coverage.COMPLETE


@pytest.mark.parametrize("session", [date(1, 1, 1), date(9999, 12, 30)])
def test_any_session_can_be_assessed(session: date) -> None:
    assert assess_feed("mine", [NOON], 0, session, LATER).coverage != Coverage.COMPLETE


def feed(*times: datetime) -> bytes:
    """Return a feed with an entry at each time."""
    return rss(*(item(f"{time:%d %H:%M}", format_datetime(time), f"https://news.example/{time:%d%H%M}") for time in times))


class Newsroom:
    """Feeds that a test changes, and their artifacts."""

    def __init__(self, folder: Path, artifacts: str) -> None:
        self.folder, self.store = folder, Store(artifacts)

    def feeds(self, **feeds: bytes) -> list[Feed]:
        return read_feeds(Path(feeds_file(self.folder, **feeds)))

    def commit(self, now: datetime, **feeds: bytes) -> Committed:
        return commit_headlines(self.store, self.feeds(**feeds), SESSION, now)


@pytest.fixture
def newsroom(tmp_path: Path, artifacts: str) -> Newsroom:
    return Newsroom(tmp_path, artifacts)


def read_facts(committed: Committed) -> HeadlinesFacts:
    return HeadlinesFacts.parse(open_artifact(committed.uri)[0].facts)


def read_titles(committed: Committed) -> list[str]:
    table = read_parquet(io.BytesIO(open_artifact(committed.uri)[1][HEADLINES.file])).read_all()
    return [str(title) for title in table.column("title").to_pylist()]


AB = {"a": feed(NOON - DAY, NOON), "b": feed(NOON - DAY, NOON + HOUR)}


def test_a_session_that_no_feed_holds_is_unavailable_and_has_no_table(collector: Run, tmp_path: Path) -> None:
    feeds = feeds_file(tmp_path, a=feed(NOON, NOON + DAY), empty=rss(), broken=b"<html/>")
    code, output, result = collector("fetch-headlines", "--session", "2020-01-15", "--feeds", feeds)
    manifest, files = open_artifact(str(result["manifest"]))
    assert (code, "headlines: not available for this session" in output, list(files)) == (0, True, [FEEDS_FILE])
    assert result["facts"]["availability"] == manifest.facts["availability"] == "unavailable"
    assert (manifest.facts["uncovered"], manifest.facts["broken"]) == (2, 1)
    assert manifest.facts["incomplete_feeds"] == (
        "a: its oldest entry is of 2026-03-18; empty: it has no entry with a valid date"
    )
    recorded = {feed["feed"]: feed["coverage"] for feed in json.loads(files[FEEDS_FILE])["feeds"]}
    assert recorded == {"a": "expired", "empty": "inconclusive", "broken": "broken"}


def test_many_broken_and_incomplete_feeds_fit_into_the_result(collector: Run, tmp_path: Path) -> None:
    feeds: dict[str, bytes] = {f"{'가' * 60}{number}": b"<html/>" for number in range(20)}
    feeds |= {f"{'나' * 60}{number}": feed(NOON - 99 * DAY, LATER) for number in range(20)}
    code, _, result = collector("fetch-headlines", "--session", "2026-03-18", "--feeds", feeds_file(tmp_path, **feeds))
    assert (code, result["facts"]["broken"], result["facts"]["uncovered"]) == (0, 20, 20)
    assert str(result["facts"]["incomplete_feeds"]).endswith("; and 15 more")


@pytest.mark.parametrize("character", ["n", "가", "📈", '"', "\\", "\n"])
def test_names_and_reasons_in_any_language_fit_into_the_result(character: str) -> None:
    feeds = [FeedCoverage(f"{character * 99}{number}", Coverage.BROKEN, character * 999) for number in range(6)]
    feeds += [FeedCoverage(f"{character * 99}x{number}", Coverage.EXPIRED, character * 999) for number in range(6)]
    facts = make_content(CollectedHeadlines(make_headlines([]), feeds), SESSION).facts
    for name in ("broken_feeds", "incomplete_feeds"):
        text = str(facts[name])
        assert text.endswith("; and 1 more") and len(json.dumps(text, ensure_ascii=False).encode(errors="replace")) <= 1200


def test_what_is_recorded_of_a_broken_feed_has_no_query_of_a_url(newsroom: Newsroom) -> None:
    feeds = [*newsroom.feeds(a=AB["a"]), Feed("paid", "file:///none/rss.xml?user=1&key=do-not-show")]
    committed = commit_headlines(newsroom.store, feeds, SESSION, LATER)
    manifest, files = open_artifact(committed.uri)
    assert b"do-not-show" not in files[FEEDS_FILE] and "do-not-show" not in str(manifest.facts)
    assert "paid: file:///none/rss.xml does not exist; " in str(manifest.facts["broken_feeds"])


def test_a_feed_that_does_not_reach_back_is_named_beside_one_that_does(newsroom: Newsroom) -> None:
    facts = read_facts(newsroom.commit(LATER, a=AB["a"], short=feed(NOON + DAY), afternoon=feed(NOON + HOUR, NOON + DAY)))
    assert (facts.availability, facts.headlines, facts.uncovered, facts.partly_covered) == ("partial", 2, 1, 1)
    assert facts.incomplete_feeds == (
        "short: its oldest entry is of 2026-03-19; afternoon: its oldest entry is of 13:00 on that day"
    )
    assert facts.describe() == "2 headlines, partial: of 3 feeds 1 did not reach back, 1 reached back in part"


@pytest.mark.parametrize("data", [rss(), rss("<item><title>no date</title></item>"), feed(NOON - 9 * DAY)])
@pytest.mark.parametrize("delay", [timedelta(0), 3 * DAY])
def test_without_evidence_a_recent_session_is_retried(data: bytes, delay: timedelta, newsroom: Newsroom) -> None:
    with pytest.raises(
        SourceUnavailableError, match=r"no headlines of 2026-03-18, and 1 of 1 feeds may still have some: mine: it"
    ):
        newsroom.commit(SIX_PM + delay, mine=data)
    assert newsroom.store.list("headlines") == []
    assert read_facts(newsroom.commit(LATER, mine=data)).availability == "unavailable"


def test_no_headlines_beside_a_broken_feed_are_retried_while_it_may_recover(newsroom: Newsroom) -> None:
    quiet = feed(*QUIET)
    with pytest.raises(SourceUnavailableError, match="1 of 2 feeds may still have some: broken: "):
        newsroom.commit(NOON + DAY, quiet=quiet, broken=b"<html/>")
    facts = read_facts(newsroom.commit(LATER, quiet=quiet, broken=b"<html/>"))
    assert (facts.availability, facts.headlines, facts.broken) == ("partial", 0, 1)


def test_a_feed_that_has_dropped_the_day_is_not_waited_for(newsroom: Newsroom) -> None:
    assert read_facts(newsroom.commit(NOON + 2 * DAY, busy=feed(NOON + DAY))).availability == "unavailable"


def test_an_unavailable_session_is_extended_once_a_feed_holds_it(newsroom: Newsroom) -> None:
    first = newsroom.commit(LATER, a=rss(), b=rss())
    manifest = open_artifact(first.uri)[0]
    second = newsroom.commit(LATER, a=AB["a"], b=rss())
    third = newsroom.commit(LATER, a=rss(), b=AB["b"])
    revisions = {paths.parse_revision(artifact.uri): read_facts(artifact).availability for artifact in (first, second, third)}
    assert revisions == {1: "unavailable", 2: "partial", 3: "complete"}
    assert (read_titles(second), read_titles(third)) == (["18 12:00"], ["18 12:00", "18 13:00"])
    assert open_artifact(first.uri)[0] == manifest


def test_a_feed_that_was_broken_is_added_and_what_others_dropped_stays(newsroom: Newsroom) -> None:
    first = newsroom.commit(SIX_PM, a=AB["a"], b=b"<html/>")
    second = newsroom.commit(LATER, a=feed(LATER - DAY), b=AB["b"])
    assert (read_titles(first), read_titles(second)) == (["18 12:00"], ["18 12:00", "18 13:00"])
    assert (read_facts(second).availability, read_facts(second).incomplete_feeds) == ("complete", "")


@pytest.mark.parametrize(
    "feeds",
    [
        {"a": AB["a"], "b": b"<html/>"},
        {"a": b"<html/>", "b": b"<html/>"},
        {"a": rss(), "b": rss()},
        {"a": feed(NOON - DAY, NOON, NOON + HOUR), "b": feed(LATER)},
    ],
)
def test_an_incomplete_session_is_returned_if_no_feed_holds_more(feeds: dict[str, bytes], newsroom: Newsroom) -> None:
    first = newsroom.commit(SIX_PM, a=AB["a"], b=b"<html/>")
    again = newsroom.commit(LATER, **feeds)
    assert (again.uri, again.new) == (first.uri, False)


def test_a_complete_session_is_returned_without_reading_the_feeds(newsroom: Newsroom) -> None:
    first = newsroom.commit(LATER, **AB)
    for path in newsroom.folder.glob("*.xml"):
        path.unlink()
    again = commit_headlines(newsroom.store, newsroom.feeds(a=None, b=None), SESSION, LATER)  # type: ignore[arg-type]
    assert (again.uri, again.new) == (first.uri, False)


def test_a_day_without_headlines_is_extended_if_one_follows_before_midnight(newsroom: Newsroom) -> None:
    now = datetime.now(MARKET_TIME_ZONE)
    noon = datetime(now.year, now.month, now.day, 12, tzinfo=MARKET_TIME_ZONE)
    quiet = [noon - number * DAY for number in range(1, 9)]
    first = commit_headlines(newsroom.store, newsroom.feeds(a=feed(*quiet)), now.date(), noon)
    assert (read_facts(first).availability, read_facts(first).headlines) == ("complete", 0)
    second = commit_headlines(newsroom.store, newsroom.feeds(a=feed(noon, *quiet)), now.date(), noon + HOUR)
    assert (paths.parse_revision(second.uri), read_facts(second).headlines) == (2, 1)


@pytest.mark.parametrize("broken", [False, True])
def test_a_feed_that_covered_the_day_so_far_and_then_dropped_some_of_it_is_partial(broken: bool, newsroom: Newsroom) -> None:
    now = datetime.now(MARKET_TIME_ZONE)
    session, noon = now.date(), datetime(now.year, now.month, now.day, 12, tzinfo=MARKET_TIME_ZONE)
    quiet = feed(*(noon - number * DAY for number in range(1, 9)))
    first = commit_headlines(newsroom.store, newsroom.feeds(a=quiet, b=quiet), session, noon)
    assert read_facts(first).availability == "complete"
    evening = feed(*every(timedelta(minutes=10), 60, noon + 8 * HOUR))
    second = commit_headlines(
        newsroom.store, newsroom.feeds(a=b"<html/>" if broken else evening, b=evening), session, noon + 20 * HOUR
    )
    facts = read_facts(second)
    assert (paths.parse_revision(second.uri), facts.headlines, facts.availability) == (2, 24, "partial")
    assert (facts.partly_covered, facts.broken) == (2, 0)
    read_at = f"{first.manifest.created.astimezone(MARKET_TIME_ZONE):%H:%M}"
    assert facts.incomplete_feeds.count(f"it held the day until {read_at}; later entries may be gone") == 2


def test_a_feed_that_still_covers_the_day_stays_complete(newsroom: Newsroom) -> None:
    now = datetime.now(MARKET_TIME_ZONE)
    noon = datetime(now.year, now.month, now.day, 12, tzinfo=MARKET_TIME_ZONE)
    quiet = [noon - number * DAY for number in range(1, 9)]
    commit_headlines(newsroom.store, newsroom.feeds(a=feed(*quiet)), now.date(), noon)
    second = commit_headlines(newsroom.store, newsroom.feeds(a=feed(noon, *quiet)), now.date(), noon + 20 * HOUR)
    assert (read_facts(second).availability, read_facts(second).headlines) == ("complete", 1)


class OvertakenStore(Store):
    """A store in which, each time before this run commits, one of other runs does."""

    def __init__(self, root: str, *runs: Callable[[], object]) -> None:
        super().__init__(root)
        self.runs = list(runs)

    def create(self, path: str, data: bytes) -> bool:
        if self.runs:
            self.runs.pop(0)()
        return super().create(path, data)


@pytest.mark.parametrize("earlier_runs", [0, 1])
def test_of_two_runs_at_the_same_time_neither_loses_its_headlines(earlier_runs: int, newsroom: Newsroom) -> None:
    c = feed(NOON - DAY, NOON + 2 * HOUR)
    for _ in range(earlier_runs):
        newsroom.commit(LATER, a=b"<html/>", b=b"<html/>", c=c)
    others: list[Committed] = []
    store = OvertakenStore(newsroom.store.root, lambda: others.append(newsroom.commit(LATER, a=AB["a"], b=b"<html/>", c=c)))
    last = commit_headlines(store, newsroom.feeds(a=b"<html/>", b=AB["b"], c=c), SESSION, LATER)
    [other] = others
    assert (read_titles(other), read_facts(other).availability) == (["18 12:00", "18 14:00"], "partial")
    assert (read_titles(last), read_facts(last).availability) == (["18 12:00", "18 13:00", "18 14:00"], "complete")
    assert [paths.parse_revision(artifact.uri) for artifact in (other, last)] == [earlier_runs + 1, earlier_runs + 2]
    assert (other.new, last.new) == (True, True)


def test_a_run_that_has_read_no_more_than_one_that_committed_first_returns_its_result(newsroom: Newsroom) -> None:
    others: list[Committed] = []
    store = OvertakenStore(newsroom.store.root, lambda: others.append(newsroom.commit(LATER, **AB)))
    last = commit_headlines(store, newsroom.feeds(a=AB["a"], b=b"<html/>"), SESSION, LATER)
    assert (last.uri, last.new, read_facts(last).availability) == (others[0].uri, False, "complete")


def test_a_run_that_others_always_overtake_asks_for_a_retry(newsroom: Newsroom) -> None:
    names = "abcdefgh"
    up = [{name: AB["a"] if name <= last else b"<html/>" for name in names} for last in names[:-1]]
    store = OvertakenStore(newsroom.store.root, *(partial(newsroom.commit, LATER, **feeds) for feeds in up))
    feeds = newsroom.feeds(**{name: AB["b"] if name == "h" else b"<html/>" for name in names})
    with pytest.raises(
        TransientError, match="other runs have committed 5 revisions of 2026-03-18 meanwhile: run the step again"
    ):
        commit_headlines(store, feeds, SESSION, LATER)
    assert len(newsroom.store.list("headlines")) == 15


def commit_as_before(newsroom: Newsroom, headlines: int, broken: int) -> Committed:
    """Commit what the version did that recorded no availability, with no headline or the one of the feed a."""
    feeds = digest(canonical([["a", "a.xml"], ["b", "b.xml"]]))[:12]
    parsed = parse_feed(AB["a"], Feed("a", "file:///a.xml"), SESSION).headlines[:headlines]
    facts = HeadlinesFacts(SESSION.isoformat(), headlines, 2, broken, "b: HTTP 503" if broken else "").to_facts()
    assert "availability" not in facts
    inputs, directory = {"session": SESSION.isoformat(), "feeds": feeds}, paths.headlines(SESSION, feeds)
    content = Content({HEADLINES.file: to_parquet(parsed, HEADLINES)}, headlines, 1, facts)
    return commit(newsroom.store, directory, step="fetch-headlines", session=SESSION, inputs=inputs, content=content)


@pytest.mark.parametrize(("headlines", "broken"), [(0, 0), (0, 1), (1, 1)])
def test_an_earlier_versions_result_that_may_lack_headlines_is_extended(
    headlines: int, broken: int, newsroom: Newsroom
) -> None:
    old = commit_as_before(newsroom, headlines, broken)
    new = newsroom.commit(LATER, a=feed(LATER), b=AB["b"])
    assert (paths.parse_revision(new.uri), read_titles(new)) == (2, ["18 12:00", "18 13:00"] if headlines else ["18 13:00"])
    assert read_facts(new).availability == "partial"
    assert open_artifact(old.uri)[0] == old.manifest


def test_an_earlier_versions_result_without_broken_feeds_is_returned(newsroom: Newsroom) -> None:
    old = commit_as_before(newsroom, 1, 0)
    assert newsroom.commit(LATER, **AB).uri == old.uri


@pytest.mark.parametrize("data", [rss(), b"<html/>"])
def test_an_earlier_versions_result_without_headlines_is_retried_while_a_feed_may_recover(
    data: bytes, newsroom: Newsroom
) -> None:
    old = commit_as_before(newsroom, 0, 0)
    with pytest.raises(SourceUnavailableError, match=r"may still have some|can be read"):
        newsroom.commit(NOON + DAY, a=data, b=data)
    new = newsroom.commit(NOON + DAY, a=data, b=AB["b"])
    assert (paths.parse_revision(new.uri), read_titles(new)) == (2, ["18 13:00"])
    assert open_artifact(old.uri)[0] == old.manifest


def test_an_earlier_versions_headlines_are_returned_if_no_feed_holds_the_day_any_more(newsroom: Newsroom) -> None:
    old = commit_as_before(newsroom, 1, 1)
    again = newsroom.commit(LATER, a=feed(LATER), b=feed(LATER))
    assert (again.uri, again.new) == (old.uri, False)


def test_feeds_that_cannot_be_read_do_not_make_an_earlier_result_unavailable(newsroom: Newsroom) -> None:
    old = commit_as_before(newsroom, 0, 0)
    assert newsroom.commit(LATER, a=b"<html/>", b=b"<html/>").uri == old.uri
    new = newsroom.commit(LATER, a=feed(LATER), b=b"<html/>")
    assert read_facts(new).availability == "unavailable"


def test_a_damaged_list_of_feeds_is_invalid_data(newsroom: Newsroom) -> None:
    facts = HeadlinesFacts(SESSION.isoformat(), 0, 2, availability="unavailable").to_facts()
    feeds = digest(canonical([["a", "a.xml"], ["b", "b.xml"]]))[:12]
    content = Content({FEEDS_FILE: b'{"feeds": [{"feed": "a"}]}'}, 0, 1, facts)
    inputs = {"session": SESSION.isoformat(), "feeds": feeds}
    commit(newsroom.store, paths.headlines(SESSION, feeds), step="x", session=SESSION, inputs=inputs, content=content)
    with pytest.raises(DataError, match=r"feeds\.json of .*manifest\.json is invalid"):
        newsroom.commit(LATER, **AB)
