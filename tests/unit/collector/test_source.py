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

REQUESTS: Counter[str] = Counter()


class SourceHandler(BaseHTTPRequestHandler):
    """Responds as the path says: /CODE, /CODE-BEHAVIOUR, or /CODE-after-ERROR-N: N errors before the CODE."""

    def do_GET(self) -> None:
        REQUESTS[self.path] += 1
        code, _, behaviour = unquote(self.path).strip("/").partition("-")
        if behaviour.startswith("after") and REQUESTS[self.path] <= int(behaviour[-1]):
            code = behaviour[6:9]
        self.send_response(int(code))
        if code.startswith("3"):
            self.send_header("Location", REDIRECTS[behaviour])
        if code == "429":
            self.send_header("Retry-After", "0" if behaviour.startswith("after") else "300")
        body = b"x" * 9 * 2**20 if behaviour == "large" else b"bytes"
        if behaviour in ("gzip", "gzip, gzip", "br"):
            self.send_header("Content-Encoding", behaviour)
        content_length = {"short": 3, "long": 50}.get(behaviour, len(body))
        self.send_header("Content-Length", str(1000 if behaviour in ("stalls", "drips") else content_length))
        with suppress(OSError):  # the client may have closed the connection
            while behaviour.startswith("drip") and not RELEASED.wait(0.1):
                if behaviour == "drips":
                    self.end_headers()
                    behaviour = "dripping"
                self.wfile.write(b"x" if behaviour == "dripping" else b"X-More: x\r\n")
            self.end_headers()
            self.wfile.write(body)
            if behaviour == "stalls":
                self.wfile.flush()
                RELEASED.wait(20)

    def log_message(self, format: str, *values: object) -> None:
        pass


RELEASED = threading.Event()
REDIRECTS = {
    "here": "/200",
    "ftp": "ftp://127.0.0.1/x",
    "file": "file:///etc/passwd",
    "ever": "/302-ever",
    "odd": "http://a..b/x",
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), SourceHandler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_address[1]}"
        RELEASED.set()
        http_server.shutdown()


def test_file_is_read_over_http_and_redirects_are_followed(server: str) -> None:
    assert source.read_url(f"{server}/200") == b"bytes"
    assert source.read_url(f"{server}/302-here") == b"bytes"


def test_missing_file_is_none(server: str) -> None:
    assert source.read_url(f"{server}/404") is None


@pytest.mark.parametrize("code", [401, 403, 500, 503])
def test_refusal_or_server_error_is_source_unavailable(server: str, code: int) -> None:
    with pytest.raises(SourceUnavailableError, match=str(code)):
        source.read_url(f"{server}/{code}")


@pytest.mark.parametrize("behaviour", ["503-1", "503-2", "429-1", "429-2"])
def test_transient_errors_are_retried(server: str, behaviour: str) -> None:
    assert source.read_url(f"{server}/200-after-{behaviour}") == b"bytes"


def test_server_error_is_retried_up_to_three_attempts(server: str) -> None:
    with pytest.raises(SourceUnavailableError, match="503"):
        source.read_url(f"{server}/200-after-503-9")
    assert REQUESTS["/200-after-503-9"] == 3


def test_long_throttle_is_transient_error_without_waiting(server: str) -> None:
    started = time.monotonic()
    with pytest.raises(TransientError, match="Retry-After 300"):
        source.read_url(f"{server}/429")
    assert (REQUESTS["/429"], time.monotonic() - started < 5) == (1, True)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("soon", None),
        ("", None),
        ("-1", None),
        ("Wed, 99999999999999999999999 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_parsed_as_seconds_or_date(header: str, seconds: float | None) -> None:
    assert http_client.parse_retry_after(header) == seconds


def test_file_that_is_too_large_is_rejected(server: str) -> None:
    with pytest.raises(SourceUnavailableError, match="more than"):
        source.read_url(f"{server}/200-large")


@pytest.mark.parametrize("behaviour", ["gzip", "gzip, gzip", "br"])
def test_compressed_content_is_rejected(server: str, behaviour: str) -> None:
    with pytest.raises(SourceUnavailableError, match=f"Content-Encoding '{behaviour}'"):
        source.read_url(f"{server}/200-{quote(behaviour)}")


@pytest.mark.slow
def test_stalled_server_times_out(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "IDLE_TIMEOUT", 1)
    started = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="200-stalls"):
        source.read_url(f"{server}/200-stalls")
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("behaviour", ["drips", "dripping headers"])
def test_slow_server_times_out(server: str, behaviour: str) -> None:
    started = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="did not complete within 1 s"):
        http_client.download(f"{server}/200-{quote(behaviour)}", source.MAX_BYTES, timeout=1)
    assert time.monotonic() - started < 10


def test_content_shorter_than_its_length_is_rejected(server: str) -> None:
    with pytest.raises(SourceUnavailableError, match="200-long"):
        source.read_url(f"{server}/200-long")


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [("ftp", "another scheme"), ("file", "another scheme"), ("ever", "more than 5 times"), ("odd", "invalid URL")],
)
def test_invalid_redirect_is_rejected(server: str, behaviour: str, message: str) -> None:
    with pytest.raises(SourceUnavailableError, match=message):
        source.read_url(f"{server}/302-{behaviour}")


def test_unreachable_server_is_source_unavailable() -> None:
    with pytest.raises(SourceUnavailableError, match=r"127\.0\.0\.1:1"):
        source.read_url("http://127.0.0.1:1/2026.csv")


@pytest.mark.parametrize("url", ["http://", "http://[::1", "gopher://host/file", "http://./x", "http://xn--a/"])
def test_invalid_url_is_invalid_configuration(url: str) -> None:
    with pytest.raises(ConfigurationError):
        source.read_url(url)


@pytest.mark.slow
def test_file_is_read_from_a_bucket(s3: str) -> None:
    Store(s3).write("year_ks11/2026.csv", b"bytes")
    template = f"{s3}/year_{{symbol}}/{{year}}.csv"
    assert source.read_year_file(template, "KS11", 2026) == (f"{s3}/year_ks11/2026.csv", b"bytes")
    assert source.read_year_file(template, "KS11", 2025) == (f"{s3}/year_ks11/2025.csv", None)


@pytest.mark.parametrize("variable", [("HTTP_PROXY", "foo://x"), ("SSL_CERT_FILE", "/nowhere")])
def test_invalid_proxy_or_certificate_is_invalid_configuration(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    http_client._client.cache_clear()
    with pytest.raises(ConfigurationError, match=variable[0]):
        source.read_url("http://127.0.0.1:1/2026.csv")
    http_client._client.cache_clear()


@pytest.mark.parametrize("fields", ["{year:s}", "{symbol:d}/{year}", "{year!z}", "{year:99999}", "{year:{symbol}}"])
def test_format_in_prices_url_is_invalid_configuration(fields: str) -> None:
    with pytest.raises(ConfigurationError, match="invalid URL of the prices"):
        source.validate_prices_url(f"file:///mirror/{fields}.csv")
