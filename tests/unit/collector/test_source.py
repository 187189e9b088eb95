from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

import pytest
from collector import http_client, source
from step_contract.errors import ConfigurationError, SourceUnavailableError, TransientError
from step_contract.store import Store

ASKED: Counter[str] = Counter()


class Answers(BaseHTTPRequestHandler):
    """Answers with the code that the path begins with, after 503 as often as it says, in the way that it ends with."""

    def do_GET(self) -> None:
        ASKED[self.path] += 1
        code, _, how = unquote(self.path).strip("/").partition("-")
        if how.startswith("after") and ASKED[self.path] <= int(how[-1]):
            code = how[6:9]
        self.send_response(int(code))
        if code.startswith("3"):
            self.send_header("Location", MOVED[how])
        if code == "429":
            self.send_header("Retry-After", "0" if how.startswith("after") else "300")
        body = b"x" * 9 * 2**20 if how == "large" else b"bytes"
        if how in ("gzip", "gzip, gzip", "br"):
            self.send_header("Content-Encoding", how)
        said = {"short": 3, "long": 50}.get(how, len(body))
        self.send_header("Content-Length", str(1000 if how in ("stalls", "drips") else said))
        with suppress(OSError):  # the client may have seen enough
            while how.startswith("drip") and not RELEASED.wait(0.1):
                if how == "drips":
                    self.end_headers()
                    how = "dripping"
                self.wfile.write(b"x" if how == "dripping" else b"X-More: x\r\n")
            self.end_headers()
            self.wfile.write(body)
            if how == "stalls":
                self.wfile.flush()
                RELEASED.wait(20)

    def log_message(self, format: str, *values: object) -> None:
        pass


RELEASED = threading.Event()
MOVED = {
    "here": "/200",
    "ftp": "ftp://127.0.0.1/x",
    "file": "file:///etc/passwd",
    "ever": "/302-ever",
    "odd": "http://a..b/x",
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        RELEASED.set()
        running.shutdown()


def test_a_file_is_read_over_http_also_from_where_it_was_moved(server: str) -> None:
    assert source.read_url(f"{server}/200") == b"bytes"
    assert source.read_url(f"{server}/302-here") == b"bytes"


def test_a_file_that_is_not_there_is_none(server: str) -> None:
    assert source.read_url(f"{server}/404") is None


@pytest.mark.parametrize("code", [401, 403, 500, 503])
def test_a_source_that_refuses_or_is_down_is_not_ready(server: str, code: int) -> None:
    with pytest.raises(SourceUnavailableError, match=str(code)):
        source.read_url(f"{server}/{code}")


@pytest.mark.parametrize("how", ["503-1", "503-2", "429-1", "429-2"])
def test_what_passes_is_tried_again_a_few_times(server: str, how: str) -> None:
    assert source.read_url(f"{server}/200-after-{how}") == b"bytes"


def test_a_source_that_stays_down_is_asked_three_times(server: str) -> None:
    with pytest.raises(SourceUnavailableError, match="503"):
        source.read_url(f"{server}/200-after-503-9")
    assert ASKED["/200-after-503-9"] == 3


def test_a_throttle_for_longer_than_a_step_waits_is_a_passing_fault_at_once_and_tells_how_long(server: str) -> None:
    started = time.monotonic()
    with pytest.raises(TransientError, match="Retry-After 300"):
        source.read_url(f"{server}/429")
    assert (ASKED["/429"], time.monotonic() - started < 5) == (1, True)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("7", 7),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("soon", None),
        ("", None),
        ("-1", None),
        ("Wed, 99999999999999999999999 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_a_retry_after_is_read_in_both_its_forms(asked: str, seconds: float | None) -> None:
    assert http_client.parse_retry_after(asked) == seconds


def test_a_file_that_is_too_large_is_refused(server: str) -> None:
    with pytest.raises(SourceUnavailableError, match="more than"):
        source.read_url(f"{server}/200-large")


@pytest.mark.parametrize("how", ["gzip", "gzip, gzip", "br"])
def test_what_is_packed_is_not_unpacked(server: str, how: str) -> None:
    with pytest.raises(SourceUnavailableError, match=f"sends '{how}', and was asked not to"):
        source.read_url(f"{server}/200-{quote(how)}")


@pytest.mark.slow
def test_a_server_that_stalls_is_given_up(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "IDLE_TIMEOUT", 1)
    started = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="200-stalls"):
        source.read_url(f"{server}/200-stalls")
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("how", ["drips", "dripping headers"])
def test_a_server_that_drips_is_given_up_when_the_time_is_over(server: str, how: str) -> None:
    started = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="was not there, whole, after 1 s"):
        http_client.download(f"{server}/200-{quote(how)}", source.MAX_BYTES, timeout=1)
    assert time.monotonic() - started < 10


def test_a_file_that_is_shorter_than_the_server_says_is_not_taken_for_whole(server: str) -> None:
    with pytest.raises(SourceUnavailableError, match="200-long"):
        source.read_url(f"{server}/200-long")


@pytest.mark.parametrize(
    ("how", "why"), [("ftp", "another scheme"), ("file", "another scheme"), ("ever", "ever further"), ("odd", "no address")]
)
def test_a_redirect_to_where_no_file_can_be_is_refused(server: str, how: str, why: str) -> None:
    with pytest.raises(SourceUnavailableError, match=why):
        source.read_url(f"{server}/302-{how}")


def test_a_server_that_is_not_there_is_not_ready() -> None:
    with pytest.raises(SourceUnavailableError, match=r"127\.0\.0\.1:1"):
        source.read_url("http://127.0.0.1:1/2026.csv")


@pytest.mark.parametrize("url", ["http://", "http://[::1", "gopher://host/file", "http://./x", "http://xn--a/"])
def test_what_is_no_url_is_wrong_configuration(url: str) -> None:
    with pytest.raises(ConfigurationError):
        source.read_url(url)


@pytest.mark.slow
def test_a_file_is_read_from_a_bucket(s3: str) -> None:
    Store(s3).write("year_ks11/2026.csv", b"bytes")
    template = f"{s3}/year_{{symbol}}/{{year}}.csv"
    assert source.read_year_file(template, "KS11", 2026) == (f"{s3}/year_ks11/2026.csv", b"bytes")
    assert source.read_year_file(template, "KS11", 2025) == (f"{s3}/year_ks11/2025.csv", None)


@pytest.mark.parametrize("variable", [("HTTP_PROXY", "foo://x"), ("SSL_CERT_FILE", "/nowhere")])
def test_a_proxy_or_a_certificate_that_is_none_is_wrong_configuration(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    http_client._client.cache_clear()
    with pytest.raises(ConfigurationError, match=variable[0]):
        source.read_url("http://127.0.0.1:1/2026.csv")
    http_client._client.cache_clear()


@pytest.mark.parametrize("field", ["{year:s}", "{symbol:d}/{year}", "{year!z}", "{year:99999}", "{year:{symbol}}"])
def test_a_template_whose_fields_are_formatted_is_wrong_configuration(field: str) -> None:
    with pytest.raises(ConfigurationError, match="must be a URL with"):
        source.validate_prices_url(f"file:///mirror/{field}.csv")
