"""The check of the store: on a real S3 server, on one that ignores If-None-Match, and on one that cannot be reached."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from step_contract.checks.clocks import compare_clocks
from step_contract.checks.findings import Finding, Status, ok, run_check
from step_contract.checks.store import check_store
from step_contract.store import Store

DROPPED = ("if-none-match", "host", "expect", "connection")


class Forgetful(BaseHTTPRequestHandler):
    """Passes each request to the S3 server at `target`, but for the header If-None-Match."""

    target = ""
    protocol_version = "HTTP/1.1"  # with which it answers Expect: 100-continue
    timeout = 10

    def forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in DROPPED}
        body = self.rfile.read(length) if length else None
        url = f"{self.target}{self.path}"
        request = urllib.request.Request(url, body, headers, method=self.command)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
                self.answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, dict(error.headers), error.read())

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward

    def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        if "content-length" not in {name.lower() for name in headers}:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *values: object) -> None:
        pass


@pytest.fixture
def forgetful(s3_endpoint: str) -> Iterator[str]:
    handler = type("Handler", (Forgetful,), {"target": s3_endpoint})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.block_on_close = False  # connections are kept alive
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def find_bucket(url: str) -> Finding:
    """Return what the check finds about the store, but for its clock."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # it would keep the endpoint of an earlier store
    found = list(check_store(lambda: Store(url, fail_fast=True)))
    [bucket] = [finding for finding in found if finding.check == "bucket"]
    return bucket


def test_a_store_that_keeps_its_promises_is_ok_and_nothing_is_left(artifacts: str) -> None:
    found = list(check_store(lambda: Store(artifacts)))
    assert [(finding.check, finding.status) for finding in found] == [("bucket", Status.OK), ("clock", Status.OK)]
    assert Store(artifacts).list("") == []


def test_a_server_that_ignores_if_none_match_is_an_error(s3: str, forgetful: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_bucket(s3).status is Status.OK
    monkeypatch.setenv("AWS_ENDPOINT_URL", forgetful)
    finding = find_bucket(s3)
    assert finding.status is Status.ERROR and "If-None-Match" in finding.message and "conditional writes" in finding.advice
    assert Store(s3).list("") == []


def test_a_bucket_that_does_not_exist_or_respond_is_an_error(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = find_bucket("s3://no-such-bucket/market")
    assert missing.status is Status.ERROR and "no-such-bucket" in missing.message
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    closed = [find_bucket(s3) for _ in range(2)]
    assert closed[0].status is Status.ERROR and "AWS_ENDPOINT_URL" in closed[0].advice
    assert closed[0] == closed[1], "pods that cannot reach the bucket are reported in one line"


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert find_bucket(f"file://{tmp_path}/file").status is Status.ERROR


def test_artifacts_that_are_not_set_are_an_error() -> None:
    [finding] = check_store(lambda: Store(""))
    assert finding.status is Status.ERROR and "invalid artifacts URL" in finding.message


@pytest.mark.parametrize(
    ("seconds", "status"), [(-60, Status.ERROR), (-5, Status.WARNING), (0, Status.OK), (1.5, Status.OK), (14, Status.ERROR)]
)
def test_a_clock_is_judged_by_how_much_it_differs_at_least(seconds: float, status: Status) -> None:
    now = datetime(2026, 1, 15, tzinfo=UTC)
    finding = compare_clocks("the server", now + timedelta(seconds=seconds), now, now + timedelta(seconds=2))
    assert finding.status is status
    if status is Status.ERROR:
        assert ("behind" if seconds < 0 else "ahead") in finding.message


def test_a_check_that_raises_keeps_what_it_has_found() -> None:
    def check() -> Iterator[Finding]:
        yield ok("first", "fine")
        raise KeyError("second")

    first, second = run_check("checks", check, "scheduler")
    assert (first.check, second.check, second.status, second.where) == ("first", "checks", Status.ERROR, "scheduler")
    assert "KeyError" in second.message


def test_a_finding_survives_its_line_and_other_output_is_none() -> None:
    finding = Finding("bucket", Status.WARNING, "careful", "look", "scheduler")
    assert Finding.parse(finding.to_json()) == finding
    assert [Finding.parse(line) for line in ("", "a warning", "[1]", '{"check": "x"}', '{"status": "bad"}')] == [None] * 5
