"""A server for the part of Airflow 3.3's REST API that the monitor reads."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]


class FakeAirflowApi:
    """The state that the API serves."""

    def __init__(self) -> None:
        self.health: Json = {
            "metadatabase": {"status": "healthy"},
            "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-15T09:00:00+00:00"},
            "triggerer": {"status": "healthy", "latest_triggerer_heartbeat": "2026-01-15T09:00:00+00:00"},
            "dag_processor": {"status": "healthy", "latest_dag_processor_heartbeat": "2026-01-15T09:00:00+00:00"},
        }
        self.import_errors: list[Json] = []
        self.dags: list[Json] = [dag("market_daily"), dag("market_smoke", tags=("quiet",))]
        self.runs: list[Json] = []
        self.task_instances: dict[str, list[Json]] = {}
        self.xcoms: dict[tuple[str, str, str], Any] = {}
        self.backfills: list[Json] = []
        self.down = False
        self.page_limit = 100
        self.url = ""

    def respond(self, path: str, query: dict[str, list[str]]) -> Any:
        """Return the response's JSON, lists by page; None for 404."""
        response = self._find(path, query)
        for key, items in (response or {}).items():
            if isinstance(items, list):
                offset, limit = int(query.get("offset", ["0"])[0]), int(query.get("limit", ["50"])[0])
                page = items[offset : offset + min(limit, self.page_limit)]
                return response | {key: page, "total_entries": len(items)}
        return response

    def _find(self, path: str, query: dict[str, list[str]]) -> Any:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        since = query.get("updated_at_gte", [""])[0]
        match parts:
            case ["monitor", "health"]:
                return self.health
            case ["importErrors"]:
                return {"import_errors": self.import_errors}
            case ["dags"]:
                return {"dags": self.dags}
            case ["backfills"]:
                return {"backfills": self.backfills}
            case ["dags", dag_id, "dagRuns"]:
                runs = [run for run in self.runs if dag_id in ("~", run["dag_id"])]
                runs = [run for run in runs if not since or run["updated_at"] >= since]
                runs = [run for run in runs if "state" not in query or run["state"] in query["state"]]
                return {"dag_runs": [run for run in runs if query.get("run_type", [run["run_type"]])[0] == run["run_type"]]}
            case ["dags", _, "dagRuns", run_id]:
                return next((run for run in self.runs if run["dag_run_id"] == run_id), None)
            case ["dags", _, "dagRuns", run_id, "taskInstances"]:
                return {"task_instances": self.task_instances.get(run_id, [])}
            case ["dags", _, "dagRuns", run_id, "taskInstances", "~", "xcomEntries"]:
                keys = [(task_id, key) for run, task_id, key in self.xcoms if run == run_id]
                return {"xcom_entries": [{"task_id": task_id, "key": key} for task_id, key in keys]}
            case ["dags", _, "dagRuns", run_id, "taskInstances", task_id, "xcomEntries", key]:
                return {"value": self.xcoms[run_id, task_id, key]} if (run_id, task_id, key) in self.xcoms else None
        raise AssertionError(f"the monitor requests an unknown path: {path}")

    def add_run(self, run_id: str, state: str = "running", *, at: datetime, seconds: float = 25, **more: Any) -> Json:
        """Add or replace a run that started at `at` and, if finished, ran for `seconds`."""
        end_date = at + timedelta(seconds=seconds) if state in ("success", "failed") else None
        run = {
            "dag_run_id": run_id,
            "dag_id": "market_daily",
            "run_type": "scheduled",
            "state": state,
            "run_after": at.isoformat(),
            "logical_date": at.isoformat(),
            "queued_at": at.isoformat(),
            "start_date": at.isoformat(),
            "end_date": end_date.isoformat() if end_date else None,
            "conf": {},
            "updated_at": (end_date or at).isoformat(),
        } | more
        self.runs = [other for other in self.runs if other["dag_run_id"] != run_id] + [run]
        return run

    def add_task(self, run_id: str, task_id: str, state: str, *, at: datetime, try_number: int = 1, **more: Any) -> Json:
        """Add or replace a task instance that started at `at`."""
        ti = {
            "task_id": task_id,
            "state": state,
            "try_number": try_number,
            "map_index": -1,
            "start_date": at.isoformat(),
            "end_date": at.isoformat() if state in ("success", "failed", "up_for_retry", "skipped") else None,
            "queued_when": at.isoformat(),
            "scheduled_when": at.isoformat(),
            "trigger": None,
            "triggerer_job": None,
        } | more
        others = self.task_instances.get(run_id, [])
        replaced = (task_id, ti["map_index"])
        self.task_instances[run_id] = [other for other in others if (other["task_id"], other["map_index"]) != replaced] + [ti]
        return ti

    def add_result(self, run_id: str, task_id: str, facts: Json, manifest: str | None = None, *, picture: bool = False) -> None:
        """Add the XComs of a step's result."""
        self.xcoms[run_id, task_id, "facts"] = facts
        self.xcoms[run_id, task_id, "return_value"] = manifest
        self.xcoms[run_id, task_id, "_link_PictureLink"] = "/market/artifacts/x.png" if picture else ""


def dag(dag_id: str, *, next_run_after: datetime | None = None, tags: tuple[str, ...] = (), **more: Any) -> Json:
    """Return a DAG as the API serves it."""
    return {
        "dag_id": dag_id,
        "is_paused": False,
        "is_stale": False,
        "has_import_errors": False,
        "tags": [{"name": tag} for tag in tags],
        "next_dagrun_run_after": next_run_after.isoformat() if next_run_after else None,
    } | more


@contextmanager
def serve_airflow_api() -> Iterator[FakeAirflowApi]:
    """Serve the API on a free port."""
    state = FakeAirflowApi()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urlsplit(self.path)
            is_authorized = self.headers.get("Authorization") == "Bearer a-token"
            if url.path == "/auth/token":
                return self.send(201, {"access_token": "a-token"})
            if state.down or not is_authorized:
                return self.send(503 if state.down else 401, {})
            response = state.respond(url.path.removeprefix("/api/v2"), parse_qs(url.query))
            self.send(404 if response is None else 200, response)

        do_POST = do_GET

        def send(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *values: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield state
        server.shutdown()


def utc(text: str) -> datetime:
    """Parse a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
