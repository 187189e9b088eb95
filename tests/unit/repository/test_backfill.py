"""`make backfill`: what it asks Airflow for, what it shows, and how it continues."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import backfill as program
import pytest
from devtools.airflow_client import AirflowClient
from devtools.backfill_request import read_request
from devtools.commands import ToolError

ENVIRONMENT = {"FROM": "2025-01-10", "TO": "2025-02-20"}
DONE = "2026-01-01T00:00:00Z"


class FakeAirflow(ThreadingHTTPServer):
    """As much of Airflow's API as a backfill needs: its runs take the states of `states` in order, one at each look."""

    def __init__(self) -> None:
        self.backfills: list[dict[str, Any]] = []
        self.states: dict[str, list[str]] = {}
        self.requests: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def add(self, conf: dict[str, Any], completed_at: str | None = None) -> None:
        self.backfills.append(
            {"id": len(self.backfills) + 1, "from_date": "2025-01-01T00:00:00Z", "to_date": "2025-02-20T00:00:00Z"}
            | {"dag_run_conf": conf, "completed_at": completed_at, "is_paused": False}
        )

    def respond(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/auth/token":
            return 201, {"access_token": "token"}
        path = path.removeprefix("/api/v2")
        if (method, path) == ("POST", "/backfills"):
            self.requests.append(body)
            self.add(body["dag_run_conf"])
            return 200, self.backfills[-1]
        if path == "/backfills":
            return 200, {"backfills": self.backfills[-1:]}
        if path.startswith("/backfills/"):
            return 200, self.backfills[int(path.rpartition("/")[2]) - 1]
        if path.endswith("/dagRuns"):
            runs = [
                {
                    "dag_run_id": month,
                    "logical_date": f"{month}-01T00:00:00Z",
                    "state": states.pop(0) if states[1:] else states[0],
                }
                for month, states in self.states.items()
            ]
            if all(run["state"] in ("success", "failed") for run in runs):
                self.backfills[-1]["completed_at"] = DONE
            return 200, {"dag_runs": runs, "total_entries": len(runs)}
        if path.endswith("/taskInstances"):
            return 200, {"task_instances": [{"task_id": "fetch_prices", "state": "failed", "try_number": 2}]}
        if path.endswith("/logs/2"):
            return 200, {"content": ["first", "collector fetch-prices: 2025-02-03: the bar is invalid"]}
        if path.endswith("/xcomEntries/facts"):
            return 200, {"value": {"committed": 19, "already_committed": 1}}
        return 404, {}


class Handler(BaseHTTPRequestHandler):
    server: FakeAirflow

    def answer(self) -> None:
        url = urlparse(self.path)
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        status, content = self.server.respond(self.command, url.path, parse_qs(url.query), body)
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAirflow]:
    monkeypatch.setattr(program, "POLL_SECONDS", 0.0)
    with FakeAirflow() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def start(airflow: FakeAirflow, **more: str) -> bool:
    client = AirflowClient(f"http://127.0.0.1:{airflow.server_port}", "admin", "admin")
    return program.backfill(client, read_request(ENVIRONMENT | more), 1)


def test_a_backfill_is_shown_month_by_month(airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]) -> None:
    airflow.states = {"2025-01": ["running", "success"], "2025-02": ["queued", "running", "success"]}
    assert start(airflow, REMAKE=" other \n columns ")
    [body] = airflow.requests
    assert body["dag_run_conf"] == {
        "from": "2025-01-10",
        "to": "2025-02-20",
        "steps": ["decide", "fetch_prices", "fetch_headlines", "forecast"],
        "remake": "other columns",
    }
    # The months begin with their first day, wherever the range does.
    assert (body["from_date"], body["to_date"]) == ("2025-01-01T00:00:00Z", "2025-02-20T00:00:00Z")
    assert (body["reprocess_behavior"], body["max_active_runs"]) == ("completed", 1)
    output = capsys.readouterr().out
    assert "2025-01  success  1 of 2 months" in output
    assert "2 of 2 months succeeded" in output and "prices of 38 sessions committed, 2 already committed" in output


def test_a_failed_month_is_explained_and_the_same_command_continues(
    airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]
) -> None:
    airflow.states = {"2025-01": ["success"], "2025-02": ["failed"]}
    assert not start(airflow)
    output = capsys.readouterr().out
    assert "2025-02: fetch_prices failed" in output and "the bar is invalid" in output and "run the same command" in output
    airflow.states = {"2025-01": ["success"], "2025-02": ["failed", "failed", "success"]}
    assert start(airflow)
    assert airflow.requests[-1]["reprocess_behavior"] == "failed"
    assert "continuing backfill 1" in capsys.readouterr().out


def test_an_active_backfill_of_the_same_arguments_is_followed(airflow: FakeAirflow, capsys: pytest.CaptureFixture[str]) -> None:
    airflow.add(read_request(ENVIRONMENT).conf)
    airflow.states = {"2025-01": ["success"]}
    assert start(airflow)
    assert airflow.requests == [] and "Backfill 1 is active; following it" in capsys.readouterr().out


def test_another_active_backfill_is_not_disturbed(airflow: FakeAirflow) -> None:
    airflow.add({"from": "2020-01-01", "to": "2020-12-31", "steps": ["decide"]})
    with pytest.raises(ToolError, match="backfill 1 of market_history is active, from 2025-01-01 to 2025-02-20"):
        start(airflow)
    assert airflow.requests == []


def test_a_repetition_after_a_success_finds_out_what_is_missing(airflow: FakeAirflow) -> None:
    airflow.add(read_request(ENVIRONMENT).conf, DONE)
    airflow.states = {"2025-01": ["success"]}
    assert start(airflow)
    assert airflow.requests[-1]["reprocess_behavior"] == "completed"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "FROM is not set: use YYYY-MM-DD"),
        ({"FROM": "2025-01-01"}, "TO is not set"),
        ({"FROM": "2025-13-01", "TO": "2025-02-01"}, "invalid FROM '2025-13-01'"),
        ({"FROM": "2025-02-01", "TO": "2025-01-01"}, "FROM 2025-02-01 is after TO 2025-01-01"),
        (ENVIRONMENT | {"STEPS": "prices"}, "invalid STEPS: prices; must be some of decide, fetch_prices"),
    ],
)
def test_invalid_arguments_are_rejected(environment: dict[str, str], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        read_request(environment)


def test_steps_are_written_as_tasks_or_as_commands_in_any_order() -> None:
    assert read_request(ENVIRONMENT | {"STEPS": "forecast, fetch-prices"}).steps == ("fetch_prices", "forecast")
