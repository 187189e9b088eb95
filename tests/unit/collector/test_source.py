from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from collector import source
from step_contract.exit_codes import ConfigurationWrong, PassingFault, SourceNotReady
from step_contract.store import Store


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/200")
            self.end_headers()
            return
        code = int(self.path.strip("/").partition("-")[0])
        self.send_response(code)
        self.send_header("Retry-After", "30")
        self.send_header("Content-Length", str(9 * 2**20 if self.path.endswith("large") else 5))
        self.end_headers()
        self.wfile.write(b"x" * 9 * 2**20 if self.path.endswith("large") else b"bytes")

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_a_file_is_read_over_http_also_from_where_it_was_moved(server: str) -> None:
    assert source.read(f"{server}/200") == b"bytes"
    assert source.read(f"{server}/moved") == b"bytes"


def test_a_file_that_is_not_there_is_none(server: str) -> None:
    assert source.read(f"{server}/404") is None


@pytest.mark.parametrize("code", [401, 403, 500, 503])
def test_a_source_that_refuses_or_is_down_is_not_ready(server: str, code: int) -> None:
    with pytest.raises(SourceNotReady, match=str(code)):
        source.read(f"{server}/{code}")


def test_a_throttle_is_a_passing_fault_and_tells_how_long(server: str) -> None:
    with pytest.raises(PassingFault, match="Retry-After 30"):
        source.read(f"{server}/429")


def test_a_file_that_is_too_large_is_refused(server: str) -> None:
    with pytest.raises(SourceNotReady, match="more than"):
        source.read(f"{server}/200-large")


def test_a_server_that_is_not_there_is_not_ready() -> None:
    with pytest.raises(SourceNotReady, match=r"127\.0\.0\.1:1"):
        source.read("http://127.0.0.1:1/2026.csv")


@pytest.mark.parametrize("url", ["http://", "http://[::1", "gopher://host/file"])
def test_what_is_no_url_is_wrong_configuration(url: str) -> None:
    with pytest.raises(ConfigurationWrong):
        source.read(url)


def test_a_file_is_read_from_a_bucket(s3: str) -> None:
    Store(s3).write("year_ks11/2026.csv", b"bytes")
    template = f"{s3}/year_{{symbol}}/{{year}}.csv"
    assert source.read_year(template, "KS11", 2026) == (f"{s3}/year_ks11/2026.csv", b"bytes")
    assert source.read_year(template, "KS11", 2025) == (f"{s3}/year_ks11/2025.csv", None)
