from __future__ import annotations

import io
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from arro3.io import read_parquet
from collector.feed_parsing import deduplicate, make_headlines, parse_feed, to_plain_text
from collector.feeds import Feed, read_feeds
from pandas.testing import assert_frame_equal
from step_contract.commit import open_artifact
from step_contract.errors import ConfigurationError, DataError
from step_contract.facts import HeadlinesFacts
from step_contract.schemas import HEADLINES
from step_contract.tables import check_table, read_rows, to_parquet

from .conftest import ROOT, Run

SESSION = date(2026, 3, 20)
FEED = Feed("mine", "https://news.example/rss")


def headlines(data: bytes, feed: Feed, session: date) -> list[str]:
    table = parse_feed(data, feed, session).headlines
    check_table(table, HEADLINES)
    return list(table["title"])


def rss(*items: str) -> bytes:
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>{"".join(items)}</channel></rss>'.encode()


def item(title: str, published: str, link: str = "https://news.example/1") -> str:
    return f"<item><title>{title}</title><link>{link}</link><pubDate>{published}</pubDate></item>"


def test_headlines_are_of_the_sessions_day_in_seoul() -> None:
    data = rss(
        item("the day before", "Thu, 19 Mar 2026 14:59:59 GMT"),
        item("first", "Thu, 19 Mar 2026 15:00:00 GMT"),
        item("last", "Fri, 20 Mar 2026 23:59:59 +0900"),
        item("the day after", "Sat, 21 Mar 2026 00:00:00 +0900"),
    )
    assert headlines(data, FEED, SESSION) == ["first", "last"]


def test_entry_without_date_or_title_is_skipped() -> None:
    data = rss("<item><title>no date</title></item>", item("", "Fri, 20 Mar 2026 09:00:00 +0900"))
    parsed = parse_feed(data, FEED, SESSION)
    assert (len(parsed.headlines), parsed.undated) == (0, 1)


def test_titles_are_plain_text() -> None:
    assert to_plain_text(" 코스피 <b>5,781</b>&amp;\x00 \n마감 ") == "코스피 5,781 & 마감"


def test_first_of_duplicate_headlines_is_kept() -> None:
    rows = [(3, "KOSPI, up!", "c"), (1, "Kospi up", "a"), (2, "Another", "a"), (4, "Third", ""), (5, "Fourth", "")]
    table = make_headlines((datetime(2026, 3, 20, hour, tzinfo=UTC), "mine", title, link) for hour, title, link in rows)
    assert deduplicate(table.sample(frac=1, random_state=0))["title"].tolist() == ["Kospi up", "Third", "Fourth"]


def test_headlines_are_read_as_they_were_written() -> None:
    at = datetime(2026, 3, 20, 1, 2, 3, 456789, tzinfo=UTC)
    for rows in ([], [(at, "mine", "코스피 상승", ""), (at, "mine", "코스닥", "https://a/1")]):
        table = make_headlines(rows)
        data = to_parquet(table, HEADLINES)
        assert_frame_equal(read_rows({"here": data}, HEADLINES).table, table)
        assert to_parquet(make_headlines(reversed(rows)), HEADLINES) == data


@pytest.mark.parametrize("data", [b"", b"<html><body>login</body></html>", b"\x00\x01", b'{"a": 1}'])
def test_data_that_is_not_a_feed_is_rejected(data: bytes) -> None:
    with pytest.raises(DataError, match="mine"):
        headlines(data, FEED, SESSION)


def feeds_file(folder: Path, **feeds: bytes | None) -> str:
    for name, data in feeds.items():
        if data is not None:
            (folder / f"{name}.xml").write_bytes(data)
    path = folder / "feeds.toml"
    path.write_text("\n".join(f'[[feed]]\nname = "{name}"\nurl = "{name}.xml"' for name in feeds))
    return str(path)


def test_broken_feed_is_named_in_manifest_and_others_are_collected(collector: Run, tmp_path: Path) -> None:
    feeds = feeds_file(tmp_path, good=rss(item("코스피 상승", "Fri, 20 Mar 2026 09:00:00 +0900")), bad=b"<html/>", gone=None)
    code, _, result = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds)
    manifest, files = open_artifact(str(result["manifest"]))
    table = read_parquet(io.BytesIO(files[HEADLINES.file])).read_all()
    assert code == 0
    facts = HeadlinesFacts.from_facts(manifest.facts)
    assert facts and (facts.headlines, facts.feeds, facts.broken, facts.availability) == (1, 3, 2, "partial")
    assert facts.broken_feeds.startswith("bad: ") and "; gone: " in facts.broken_feeds
    assert tuple(table.column_names) == HEADLINES.names
    assert (manifest.rows, table.column("title")[0].as_py()) == (1, "코스피 상승")
    assert table.column("published")[0].as_py() == datetime(2026, 3, 20, tzinfo=UTC)


def test_source_is_unavailable_if_no_feed_can_be_read(collector: Run, tmp_path: Path) -> None:
    feeds = feeds_file(tmp_path, bad=b"<html/>", gone=None)
    code, output, _ = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds)
    assert (code, "none of the 2 feeds can be read" in output) == (69, True)
    assert not (tmp_path / "artifacts" / "headlines").exists()


def test_rerun_returns_committed_headlines_after_feed_changed(collector: Run, tmp_path: Path) -> None:
    feeds = feeds_file(tmp_path, mine=rss(item("코스피 상승", "Fri, 20 Mar 2026 09:00:00 +0900")))
    first = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds)[2]
    feeds_file(tmp_path, mine=rss())
    assert collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds)[2]["manifest"] == first["manifest"]


def test_day_without_headlines_in_a_feed_that_holds_it_is_an_empty_partition(collector: Run, tmp_path: Path) -> None:
    quiet = rss(item("before", "Thu, 19 Mar 2026 16:00:00 +0900"), item("after", "Sat, 21 Mar 2026 09:00:00 +0900"))
    code, output, result = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds_file(tmp_path, mine=quiet))
    manifest, files = open_artifact(str(result["manifest"]))
    assert (code, manifest.rows, manifest.facts["availability"]) == (0, 0, "complete")
    assert "no headlines published" in output and HEADLINES.file in files


@pytest.mark.parametrize(
    "text",
    [
        "[[feed]]\nname = 'a'\nurl = 5",
        "[[feed]]\nname = 'a'\nurl = ''",
        "[[feed]]\nname = 'a'\nurl = 'ftp://x/y'",
        "a = " + "[" * 3000,
        "",
        "feed = 1",
        "[[feed]]\nname = 'a'",
        "[[feed",
        "[[feed]]\nname='a'\nurl='b'\n[[feed]]\nname='a'\nurl='c'",
    ],
)
def test_invalid_feeds_file_is_rejected_and_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "feeds.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"feeds\.toml"):
        read_feeds(path)


@pytest.mark.parametrize("path", ["data/feeds/feeds.toml", "images/collector/collector/feeds.toml"])
def test_shipped_feeds_files_are_valid(path: str) -> None:
    assert all("://" in feed.url for feed in read_feeds(ROOT / path))


def test_sample_feeds_have_headlines_for_the_example_sessions() -> None:
    for feed in read_feeds(ROOT / "data" / "feeds" / "feeds.toml"):
        data = Path(feed.url.removeprefix("file://")).read_bytes()
        assert headlines(data, feed, date(2026, 1, 15)) and headlines(data, feed, SESSION)


def test_another_feed_makes_another_partition(collector: Run, tmp_path: Path) -> None:
    first_item = rss(item("코스피 상승", "Fri, 20 Mar 2026 09:00:00 +0900"))
    first = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds_file(tmp_path, mine=first_item))[2]
    second_item = rss(item("코스닥 하락", "Fri, 20 Mar 2026 10:00:00 +0900", "https://news.example/2"))
    code, _, second = collector(
        "fetch-headlines", "--session", "2026-03-20", "--feeds", feeds_file(tmp_path, mine=first_item, yours=second_item)
    )
    assert (code, open_artifact(str(second["manifest"]))[0].rows) == (0, 2)
    assert open_artifact(str(first["manifest"]))[0].rows == 1


def test_many_broken_feeds_do_not_fail_the_valid_one(collector: Run, tmp_path: Path) -> None:
    good = rss(item("코스피 상승", "Fri, 20 Mar 2026 09:00:00 +0900"))
    feeds = feeds_file(tmp_path, good=good, **{f"feed{number}{'x' * 60}": b"<html/>" for number in range(99)})
    code, output, result = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds)
    assert (code, result["facts"]["broken"], output.count("skipped feed")) == (0, 99, 99)
    assert str(result["facts"]["broken_feeds"]).endswith("; and 94 more")


@pytest.mark.parametrize("folder", ["a b", "한글", "sub"])
def test_feeds_file_may_be_in_a_folder_of_any_name(folder: str, collector: Run, tmp_path: Path) -> None:
    subfolder = tmp_path / folder
    subfolder.mkdir()
    feeds = feeds_file(subfolder, good=rss(item("코스피 상승", "Fri, 20 Mar 2026 09:00:00 +0900")))
    code, _, result = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds)
    assert (code, result["facts"]["headlines"]) == (0, 1)


def test_future_day_has_no_headlines_yet(collector: Run, tmp_path: Path) -> None:
    feeds = feeds_file(tmp_path, good=rss())
    code, output, _ = collector("fetch-headlines", "--session", "2049-03-19", "--feeds", feeds)
    assert (code, "2049-03-19 has not begun in Asia/Seoul" in output) == (69, True)
