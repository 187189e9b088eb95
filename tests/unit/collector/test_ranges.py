"""A range of days in one process leaves what a run of each day would have left."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ...conftest import describe_artifacts
from .conftest import Run

RANGE = ("--from", "2026-02-09", "--to", "2026-02-22")  # with Seollal, from 16 to 18 February
DAYS = [str(date(2026, 2, 9) + timedelta(days=number)) for number in range(14)]


class CountingServer(ThreadingHTTPServer):
    """Serves one feed with a headline of 13 February, and counts requests by path; /broken fails."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: CountingServer

    def do_GET(self) -> None:
        self.server.requests[self.path] += 1
        item = "<item><title>up</title><link>https://a/1</link><pubDate>Fri, 13 Feb 2026 10:00:00 +0900</pubDate></item>"
        body = f'<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>{item}</channel></rss>'.encode()
        self.send_response(404 if self.path == "/broken" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def feeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingServer]:
    with CountingServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        urls = {name: f"http://127.0.0.1:{server.server_port}/{name}" for name in ("feed", "broken")}
        text = "\n".join(f'[[feed]]\nname = "{name}"\nurl = "{url}"\n' for name, url in urls.items())
        (tmp_path / "feeds.toml").write_text(text)
        monkeypatch.setenv("FEEDS", str(tmp_path / "feeds.toml"))
        yield server
        server.shutdown()


def run_each_day(collector: Run, artifacts: str) -> None:
    for day in DAYS:
        code, _, decision = collector("decide", "--session", day, "--artifacts", artifacts)
        assert code == 0
        if decision["facts"]["state"] == "open":
            assert collector("fetch-prices", "--session", day, "--artifacts", artifacts)[0] == 0
            assert collector("fetch-headlines", "--session", day, "--artifacts", artifacts)[0] == 0


def test_a_range_leaves_what_daily_runs_leave(collector: Run, feeds: CountingServer, tmp_path: Path) -> None:
    run_each_day(collector, f"file://{tmp_path}/daily")
    for step in ("decide", "fetch-prices", "fetch-headlines"):
        assert collector(step, *RANGE, "--artifacts", f"file://{tmp_path}/range")[0] == 0
    daily = describe_artifacts(tmp_path / "daily")
    assert describe_artifacts(tmp_path / "range") == daily
    assert Counter(path.partition("/")[0] for path in daily) == {"decisions": 14, "prices": 7, "headlines": 7}


def test_a_range_in_a_bucket_leaves_the_same_as_on_disk(
    collector: Run, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from step_contract.store import Store

    assert collector("decide", *RANGE, "--artifacts", s3)[0] == 0
    assert collector("decide", *RANGE, "--artifacts", f"file://{tmp_path}/disk")[0] == 0
    manifests = sorted(name for name in Store(s3).list("") if name.endswith("manifest.json"))
    assert manifests == sorted(f"{name}/manifest.json" for name in describe_artifacts(tmp_path / "disk"))


def test_a_repeated_range_commits_nothing(collector: Run) -> None:
    first = collector("decide", *RANGE)[2]["facts"]
    assert (first["committed"], first["already_committed"]) == (14, 0)
    assert str(first["summary"]).endswith("7 open, 7 closed")
    again = collector("decide", *RANGE)[2]["facts"]
    assert (again["committed"], again["already_committed"]) == (0, 14)


def test_a_range_is_made_anew_for_a_reason_once(collector: Run, tmp_path: Path) -> None:
    collector("decide", *RANGE)
    for _ in range(2):
        code, _, result = collector("decide", *RANGE, "--remake", "a try")
        assert code == 0
    assert result["facts"]["committed"] == 0
    revisions = Counter("revision=" in path for path in describe_artifacts(tmp_path / "artifacts"))
    assert revisions == {False: 14, True: 14}


def test_each_feed_is_read_once_for_a_range_also_a_broken_one(collector: Run, feeds: CountingServer) -> None:
    code, _, result = collector("fetch-headlines", *RANGE)
    assert (code, result["facts"]["committed"]) == (0, 7)
    assert feeds.requests == {"/feed": 1, "/broken": 1}


def test_suspect_days_are_listed(collector: Run, mirror: Path) -> None:
    data = (mirror / "2026.csv").read_bytes()
    (mirror / "2026.csv").write_bytes(data.replace(b"\n2026-02-13,", b"\n2026-02-14,"))
    code, output, _ = collector("decide", *RANGE)
    assert code == 0 and "6 open, 6 closed, suspect: 2026-02-13, 2026-02-14" in output


def test_a_session_that_fails_does_not_stop_the_others(collector: Run, tmp_path: Path) -> None:
    collector("decide", *RANGE)
    damaged = next((tmp_path / "artifacts/decisions/symbol=KS11/session=2026-02-11").rglob("decision.json"))
    damaged.write_text("{}")
    for path in (tmp_path / "artifacts/decisions/symbol=KS11/session=2026-02-12").rglob("manifest.json"):
        path.unlink()
    code, output, _ = collector("decide", *RANGE)
    assert code == 65
    assert "collector decide: 2026-02-11: " in output and "other sessions committed: 1, already committed: 12" in output


def test_days_whose_bar_is_not_final_are_left_out(collector: Run) -> None:
    code, output, _ = collector("decide", "--from", "2049-11-01", "--to", "2049-11-30")
    assert (code, "no session from 2049-11-01 to 2049-11-30" in output) == (99, True)


@pytest.mark.parametrize("step", ["decide", "fetch-prices", "fetch-headlines"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("--from", "2026-02-10"),
        ("--from", "2026-02-10", "--to", "2026-02-09"),
        ("--from", "2026-02-10", "--to", "2026-02-11", "--session", "2026-02-10"),
        (),
    ],
)
def test_an_invalid_range_is_rejected(step: str, arguments: tuple[str, ...], collector: Run, tmp_path: Path) -> None:
    assert collector(step, *arguments)[0] == 78
    assert not (tmp_path / "artifacts").exists()
