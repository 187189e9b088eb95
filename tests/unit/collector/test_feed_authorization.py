"""A feed's Authorization header: who receives its value, and that nothing else does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from collector.feeds import read_feeds
from step_contract.errors import ConfigurationError

from .conftest import Run
from .test_fetch_headlines import item, rss

TOKEN = "Bearer 7c1a-do-not-show"
FEED = rss(item("KOSPI up", "Fri, 20 Mar 2026 09:00:00 +0900"))


class FeedServer(ThreadingHTTPServer):
    """Serves the feed to requests with TOKEN; keeps the header of each request by path. /elsewhere redirects to `other`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FeedHandler)
        self.headers: dict[str, str | None] = {}
        self.other = ""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class FeedHandler(BaseHTTPRequestHandler):
    """Responds with the header in the reason if it is not TOKEN, as a careless server may."""

    server: FeedServer

    def do_GET(self) -> None:
        header = self.headers["Authorization"]
        self.server.headers[self.path] = header
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", f"{self.server.other}/other")
        elif self.path == "/rejected":
            self.send_response(401, f"no such token {header}")
        else:
            self.send_response(200 if header == TOKEN or self.path == "/other" else 401)
        self.end_headers()
        self.wfile.write(FEED)

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FeedServer]:
    with FeedServer() as feed_server:
        yield feed_server
        feed_server.shutdown()


def feeds_file(folder: Path, url: str, authorization: str = "NEWS_AUTHORIZATION") -> str:
    path = folder / "feeds.toml"
    path.write_text(f'[[feed]]\nname = "news"\nurl = "{url}"\nauthorization = "{authorization}"\n')
    return str(path)


def test_the_value_reaches_the_feed_and_nothing_else(
    collector: Run, server: FeedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither log, result nor artifact has it, at the most detailed log level."""
    monkeypatch.setenv("NEWS_AUTHORIZATION", f"{TOKEN}\n")
    caplog.set_level("DEBUG")
    feeds = feeds_file(tmp_path, f"{server.url}/feed")
    code, output, result = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds)
    assert (code, server.headers["/feed"]) == (0, TOKEN)
    written = [path.read_bytes() for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    assert len(written) == 3 and result["facts"]["headlines"] == 1
    assert not [text for text in [output, str(result)] if "do-not-show" in text]
    assert not [data for data in written if b"do-not-show" in data]


def test_a_value_that_the_server_repeats_is_redacted(
    collector: Run, server: FeedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWS_AUTHORIZATION", TOKEN)
    feeds = feeds_file(tmp_path, f"{server.url}/rejected")
    code, output, result = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds)
    assert (code, server.headers["/rejected"]) == (69, TOKEN)
    assert "HTTP 401 no such token ***" in output
    assert "do-not-show" not in output + str(result)


def test_a_redirect_to_another_server_does_not_get_the_value(
    collector: Run, server: FeedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWS_AUTHORIZATION", TOKEN)
    with FeedServer() as other:
        server.other = other.url
        feeds = feeds_file(tmp_path, f"{server.url}/elsewhere")
        assert collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds)[0] == 0
        assert (server.headers["/elsewhere"], other.headers["/other"]) == (TOKEN, None)
        other.shutdown()


@pytest.mark.parametrize("value", ["", " \n", "Bearer 한글-do-not-show", "Bearer\ndo-not-show"])
def test_a_missing_or_invalid_value_is_a_configuration_error(
    value: str, collector: Run, server: FeedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEWS_AUTHORIZATION", value)
    feeds = feeds_file(tmp_path, f"{server.url}/feed")
    code, output, result = collector("fetch-headlines", "--session", "2026-03-20", "--feeds", feeds)
    assert (code, server.headers) == (78, {})
    assert "feed news: the environment variable NEWS_AUTHORIZATION" in output
    assert "do-not-show" not in output + str(result)


@pytest.mark.parametrize(
    ("url", "authorization"), [("https://news.example/rss", TOKEN), ("news.xml", "NEWS_AUTHORIZATION"), ("s3://a/b", "NEWS")]
)
def test_a_value_in_the_feeds_file_or_a_file_as_feed_is_rejected(url: str, authorization: str, tmp_path: Path) -> None:
    path = feeds_file(tmp_path, url, authorization)
    with pytest.raises(ConfigurationError, match=r"feeds\.toml.*authorization of the feed .news.") as raised:
        read_feeds(Path(path))
    assert "do-not-show" not in str(raised.value)
