"""Parsing feeds whose content is invalid or hostile."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from collector import feed_parsing
from collector.feed_parsing import normalize_link, normalize_title, parse_feed, sanitize_link, to_plain_text
from collector.feeds import Feed
from step_contract.commit import open_artifact
from step_contract.errors import DataError

from .conftest import Run
from .test_fetch_headlines import feeds_file, item, rss

SESSION = date(2026, 3, 20)
FEED = Feed("mine", "https://news.example/rss")
AT = "Fri, 20 Mar 2026 09:00:00 +0900"


def titles(data: bytes) -> list[str]:
    return list(parse_feed(data, FEED, SESSION).headlines["title"])


@pytest.mark.slow
def test_entity_expansion_is_limited() -> None:
    names = "abcdefghij"
    entities = '<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {name} "{f"&{previous};" * 10}">' for previous, name in itertools.pairwise(names)
    )
    bomb = (
        f'<?xml version="1.0"?><!DOCTYPE rss [{entities}]>'.encode()
        + rss(item("&j;", AT), item("a title", AT, "x")).split(b"?>")[1]
    )
    started = time.monotonic()
    try:
        found = titles(bomb)
    except DataError:
        found = []
    assert time.monotonic() - started < 30
    assert all(len(title) <= 500 for title in found)


def test_external_entity_does_not_read_local_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the password")
    entity = f'<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY it SYSTEM "{secret.as_uri()}">]>'.encode()
    data = entity + rss(item("see &it;", AT)).split(b"?>")[1]
    with contextlib.suppress(DataError):
        assert "password" not in str(titles(data))


@pytest.mark.slow
@pytest.mark.parametrize(
    "filling", [b"<", b"<a ", b"<!DOCTYPE ", b"&", b"<![CDATA[", b"<!--", b"<item>", b"\x00", b"]]>", b"<?xml "]
)
def test_parsing_is_limited_in_time(filling: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_parsing, "PARSE_TIMEOUT", 1)
    head = b'<?xml version="1.0"?><rss version="2.0"><channel>'
    started = time.monotonic()
    try:
        titles(head + filling * (2**20 // len(filling)))
    except DataError as error:
        assert "mine" in str(error)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("text", "plain_text"),
    [
        ("코스피 <b>5,781</b>&amp;마감", "코스피 5,781 &마감"),
        ("&lt;script&gt;alert(1)&lt;/script&gt; 코스피", "alert(1) 코스피"),
        ("&amp;lt;b&amp;gt;코스피&amp;lt;/b&amp;gt;", "&lt;b&gt;코스피&lt;/b&gt;"),
        ("a < b > c", "a < b > c"),
        ("코스피\x00\x1b[31m\u202e마감\u200b", "코스피 [31m 마감"),
        ("\u1100\u1161", "가"),
        ("\ud800코스피", "코스피"),
        ("가" * 10_000, "가" * 500),
        ("<" * 10_000, "<" * 500),
    ],
)
def test_title_is_one_short_line_of_plain_text(text: str, plain_text: str) -> None:
    assert to_plain_text(text) == plain_text


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "https://",
        "http://[",
        "//host/x",
        "https://a/" + "x" * 3000,
    ],
)
def test_unsafe_link_is_removed(link: str) -> None:
    assert sanitize_link(link) == ""
    [headline] = parse_feed(rss(item("코스피", AT, link.replace("<", ""))), FEED, SESSION).headlines.itertuples(index=False)
    assert (headline.title, headline.link) == ("코스피", "")


def test_equivalent_links_and_titles_have_equal_keys() -> None:
    link = "https://News.example/a/?id=1&utm_source=rss#top"
    assert normalize_link(link) == normalize_link("http://news.example/a?id=1") != normalize_link("http://news.example/a?id=2")
    assert normalize_title("ＫＯＳＰＩ, 상승!") == normalize_title("kospi 상승") != normalize_title("kospi 하락")
    assert normalize_title("…") != normalize_title("!!")


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("Fri, 20 Mar 2026 09:30:00 +0900", 0),
        ("Fri, 20 Mar 2026 09:30:00 KST", 0),
        ("2026-03-20T09:30:00+09:00", 0),
        ("2026-03-20T00:30:00Z", 0),
        ("2026-03-20T09:30:00", 0),
        ("2026-03-20 09:30:00", 0),
        ("2026.03.20 09:30", 0),
        ("20260320093000", 0),
        ("Fri, 20 Mar 2026 09:30:00", 0),
        ("Thu, 19 Mar 2026 20:30:00 EDT", 0),
        ("Fri, 20 Mar 2026 01:30:00 GMT", 1),
        ("2026-03-20T09:30:00KST", 0),
        ("2026-03-20T09:30:00[Asia/Seoul]", 0),
        ("20260320T093000+0900", 0),
        ("2026-03-20 09:30:00 AM", 0),
        ("2026-03-20 오후 01:30", 4),
        ("2026-03-20 09:30:00 JST", 0),
        ("2026. 3. 20. 09:30", 0),
        ("2026/03/20 09:30", 0),
        ("2026년 03월 20일 09:30", 0),
        ("1773966600", 0),
    ],
)
def test_date_is_parsed_in_every_format_with_seoul_as_default(text: str, hour: int) -> None:
    [headline] = parse_feed(rss(item("코스피", text)), FEED, SESSION).headlines.itertuples(index=False)
    assert headline.published == datetime(2026, 3, 20, hour, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "0000-00-00",
        "Fri, 99 Zzz 2026",
        "9" * 400,
        "99999-01-01T00:00:00Z",
        "2026-03-20T25:61:61Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
    ],
)
def test_entry_with_invalid_date_is_counted_and_skipped(text: str) -> None:
    parsed = parse_feed(rss(item("코스피", text), item("코스닥", AT, "https://b")), FEED, SESSION)
    assert parsed.headlines["title"].tolist() == ["코스닥"]
    assert parsed.undated <= 1


@pytest.mark.parametrize("declared", ["EUC-KR", "euc-kr", "CP949", "KS_C_5601-1987", "UTF-8", None])
def test_cp949_is_decoded_regardless_of_declared_encoding(declared: str | None) -> None:
    declaration = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    body = rss(item("코스피 똠방각하 상승", AT)).decode().split("?>")[1]
    assert titles((declaration + body).encode("cp949")) == ["코스피 똠방각하 상승"]


def test_utf8_is_decoded_although_euc_kr_is_declared() -> None:
    body = rss(item("코스피 상승", AT)).decode().split("?>")[1]
    assert titles(f'<?xml version="1.0" encoding="euc-kr"?>{body}'.encode()) == ["코스피 상승"]


def test_truncated_feed_is_rejected() -> None:
    whole = rss(*(item(f"코스피 {number}", AT, f"https://a/{number}") for number in range(9)))
    with pytest.raises(DataError, match="truncated"):
        titles(whole[:-60])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_encodings_are_decoded(encoding: str) -> None:
    declared = "utf-16" if encoding == "utf-16" else "utf-8"
    feed = f'<?xml version="1.0" encoding="{declared}"?>' + rss(item("코스피 상승", AT)).decode().split("?>")[1]
    assert titles(feed.encode(encoding)) == ["코스피 상승"]


class EndlessFeedHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            self.wfile.write(rss().split(b"</channel>")[0])
            while True:
                self.wfile.write(item("코스피", AT).encode() * 1000)
        except OSError:
            pass

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def endless() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), EndlessFeedHandler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_address[1]}/"
        http_server.shutdown()


def test_endless_feed_is_reported_and_others_are_collected(collector: Run, tmp_path: Path, endless: str) -> None:
    path = Path(feeds_file(tmp_path, good=rss(item("코스피", AT))))
    path.write_text(f'{path.read_text()}\n[[feed]]\nname = "endless"\nurl = "{endless}"\n')
    code, _, result = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", str(path))
    manifest = open_artifact(str(result["manifest"]))[0]
    assert (code, manifest.rows, "more than" in str(manifest.facts["broken_feeds"])) == (0, 1, True)


@pytest.mark.slow
def test_feed_with_thousands_of_entries_is_parsed() -> None:
    at = format_datetime(datetime(2026, 3, 20, tzinfo=UTC))
    assert len(titles(rss(*(item(f"코스피 {number}", at, f"https://a/{number}") for number in range(3000))))) == 3000
