"""A server for the part of Airflow 3.3's REST API that the monitor reads."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]


class FakeAirflowApi:
    """The state that the API serves.

    Attributes:
        now: the time by the server's clock: what is added or replaced was updated then.
        requests: the path of each request for data.
        before_page: called before each page of runs is served.
        down: every request fails. `failing_paths`: those whose path contains one of these texts.
    """

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
        self.xcoms: dict[tuple[str, str, str, int], Any] = {}
        self.backfills: list[Json] = []
        self.now = datetime(2026, 1, 15, 9, tzinfo=UTC)
        self.requests: list[str] = []
        self.before_page: Callable[[], None] = lambda: None
        self.down, self.failing_paths = False, set[str]()
        self.page_limit = 100
        self._ids: dict[tuple[object, ...], int] = {}
        self.url = ""

    def respond(self, path: str, query: dict[str, list[str]]) -> Any:
        """Return the response's JSON, lists by page; None for 404."""
        self.requests.append(path)
        if path.endswith("dagRuns"):
            self.before_page()
        response = self._find(path, query)
        for key, items in (response or {}).items():
            if isinstance(items, list):
                limit = min(int(query.get("limit", ["50"])[0]), self.page_limit)
                if "cursor" in query:
                    assert query["order_by"] == ["id"]
                    after = int(query["cursor"][0] or -1)
                    left = sorted((item for item in items if item["id"] > after), key=lambda item: int(item["id"]))
                    next_cursor = str(left[limit - 1]["id"]) if len(left) > limit else None
                    return response | {key: left[:limit], "total_entries": None, "next_cursor": next_cursor}
                offset = int(query.get("offset", ["0"])[0])
                return response | {key: items[offset : offset + limit], "total_entries": len(items)}
        return response

    def _find(self, path: str, query: dict[str, list[str]]) -> Any:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        since = datetime.fromisoformat(query["updated_at_gte"][0]) if "updated_at_gte" in query else None
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
                runs = [run for run in runs if not since or datetime.fromisoformat(run["updated_at"]) >= since]
                runs = [run for run in runs if "state" not in query or run["state"] in query["state"]]
                return {"dag_runs": [run for run in runs if query.get("run_type", [run["run_type"]])[0] == run["run_type"]]}
            case ["dags", _, "dagRuns", run_id]:
                return next((run for run in self.runs if run["dag_run_id"] == run_id), None)
            case ["dags", "~", "dagRuns", "~", "taskInstances"]:
                due_since = datetime.fromisoformat(query.get("run_after_gte", ["2000-01-01T00:00:00+00:00"])[0])
                runs = [run for run in self.runs if datetime.fromisoformat(run["run_after"]) >= due_since]
                items = [ti for run in runs for ti in self.task_instances.get(run["dag_run_id"], [])]
                items = [ti for ti in items if not since or datetime.fromisoformat(ti["updated_at"]) >= since]
                return {"task_instances": [ti for ti in items if "state" not in query or ti["state"] in query["state"]]}
            case ["dags", _, "dagRuns", run_id, "taskInstances"]:
                exists = any(run["dag_run_id"] == run_id for run in self.runs)
                return {"task_instances": self.task_instances.get(run_id, [])} if exists else None
            case ["dags", _, "dagRuns", run_id, "taskInstances", "~", "xcomEntries"]:
                ids = [id[1:] for id in self.xcoms if id[0] == run_id]
                entries = [{"task_id": task_id, "key": key, "map_index": map_index} for task_id, key, map_index in ids]
                return {"xcom_entries": entries}
            case ["dags", _, "dagRuns", run_id, "taskInstances", task_id, "xcomEntries", key]:
                xcom = (run_id, task_id, key, int(query.get("map_index", ["-1"])[0]))
                return {"value": self.xcoms[xcom]} if xcom in self.xcoms else None
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
            "id": self._ids.setdefault((run_id,), len(self._ids)),
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
            "updated_at": self.now.isoformat(),
            "dag_id": next((run["dag_id"] for run in self.runs if run["dag_run_id"] == run_id), "market_daily"),
            "dag_run_id": run_id,
        } | more
        ti["id"] = self._ids.setdefault((run_id, task_id, ti["map_index"]), len(self._ids))
        others = self.task_instances.get(run_id, [])
        replaced = (task_id, ti["map_index"])
        self.task_instances[run_id] = [other for other in others if (other["task_id"], other["map_index"]) != replaced] + [ti]
        return ti

    def add_result(
        self,
        run_id: str,
        task_id: str,
        facts: Json,
        manifest: str | None = None,
        *,
        picture: bool = False,
        map_index: int = -1,
    ) -> None:
        """Add the XComs of a step's result."""
        self.xcoms[run_id, task_id, "facts", map_index] = facts
        self.xcoms[run_id, task_id, "return_value", map_index] = manifest
        self.xcoms[run_id, task_id, "_link_PictureLink", map_index] = "/market/artifacts/x.png" if picture else ""


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
            is_down = state.down or any(text in url.path for text in state.failing_paths)
            if is_down or not is_authorized:
                return self.send(503 if is_down else 401, {})
            response = state.respond(url.path.removeprefix("/api/v2"), parse_qs(url.query, keep_blank_values=True))
            self.send(404 if response is None else 200, response)

        do_POST = do_GET

        def send(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(state.now, usegmt=True)

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
