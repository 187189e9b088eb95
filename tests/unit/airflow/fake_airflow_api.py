"""Airflow's REST API as far as the watcher asks it, in the shapes that Airflow 3.3 answers in."""

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


class AirflowApi:
    """What the API answers; change it and the next answer is another."""

    def __init__(self) -> None:
        self.health: Json = {
            "metadatabase": {"status": "healthy"},
            "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-15T09:00:00+00:00"},
            "triggerer": {"status": "healthy", "latest_triggerer_heartbeat": "2026-01-15T09:00:00+00:00"},
            "dag_processor": {"status": "healthy", "latest_dag_processor_heartbeat": "2026-01-15T09:00:00+00:00"},
        }
        self.errors: list[Json] = []
        self.dags: list[Json] = [dag("market_daily"), dag("market_smoke", tags=("quiet",))]
        self.runs: list[Json] = []
        self.tasks: dict[str, list[Json]] = {}
        self.xcoms: dict[tuple[str, str, str], Any] = {}
        self.backfills: list[Json] = []
        self.down = False
        self.page_limit = 100
        self.asked: list[str] = []
        self.url = ""

    def answer(self, path: str, query: dict[str, list[str]]) -> Any:
        """The answer to a request; None: 404."""
        self.asked.append(path)
        found = self._found(path, query)
        for what, rows in (found or {}).items():
            if isinstance(rows, list):
                first, most = int(query.get("offset", ["0"])[0]), min(int(query.get("limit", ["50"])[0]), self.page_limit)
                return found | {what: rows[first : first + most], "total_entries": len(rows)}
        return found

    def _found(self, path: str, query: dict[str, list[str]]) -> Any:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        since = query.get("updated_at_gte", [""])[0]
        match parts:
            case ["monitor", "health"]:
                return self.health
            case ["importErrors"]:
                return {"import_errors": self.errors}
            case ["dags"]:
                return {"dags": self.dags}
            case ["backfills"]:
                return {"backfills": self.backfills}
            case ["dags", named, "dagRuns"]:
                runs = [run for run in self.runs if named in ("~", run["dag_id"])]
                runs = [run for run in runs if not since or run["updated_at"] >= since]
                runs = [run for run in runs if "state" not in query or run["state"] in query["state"]]
                return {"dag_runs": [run for run in runs if query.get("run_type", [run["run_type"]])[0] == run["run_type"]]}
            case ["dags", _, "dagRuns", run]:
                return next((one for one in self.runs if one["dag_run_id"] == run), None)
            case ["dags", _, "dagRuns", run, "taskInstances"]:
                return {"task_instances": self.tasks.get(run, [])}
            case ["dags", _, "dagRuns", run, "taskInstances", "~", "xcomEntries"]:
                return {"xcom_entries": [{"task_id": task, "key": key} for of, task, key in self.xcoms if of == run]}
            case ["dags", _, "dagRuns", run, "taskInstances", task, "xcomEntries", key]:
                return {"value": self.xcoms[run, task, key]} if (run, task, key) in self.xcoms else None
        raise AssertionError(f"the watcher asks for {path}")

    def add_run(self, run_id: str, state: str = "running", *, at: datetime, took: float = 25, **more: Any) -> Json:
        """A run, begun `at`, which took so many seconds where it has ended."""
        ended = at + timedelta(seconds=took) if state in ("success", "failed") else None
        run = {
            "dag_run_id": run_id,
            "dag_id": "market_daily",
            "run_type": "scheduled",
            "state": state,
            "run_after": at.isoformat(),
            "logical_date": at.isoformat(),
            "queued_at": at.isoformat(),
            "start_date": at.isoformat(),
            "end_date": ended.isoformat() if ended else None,
            "conf": {},
            "updated_at": (ended or at).isoformat(),
        } | more
        self.runs = [one for one in self.runs if one["dag_run_id"] != run_id] + [run]
        return run

    def add_task(self, run_id: str, task: str, state: str, *, at: datetime, number: int = 1, **more: Any) -> Json:
        """A task instance of a run, begun `at`."""
        instance = {
            "task_id": task,
            "state": state,
            "try_number": number,
            "map_index": -1,
            "start_date": at.isoformat(),
            "end_date": at.isoformat() if state in ("success", "failed", "up_for_retry", "skipped") else None,
            "queued_when": at.isoformat(),
            "scheduled_when": at.isoformat(),
            "trigger": None,
            "triggerer_job": None,
        } | more
        others = self.tasks.get(run_id, [])
        same = (task, instance["map_index"])
        self.tasks[run_id] = [one for one in others if (one["task_id"], one["map_index"]) != same] + [instance]
        return instance

    def hand_over(self, run_id: str, task: str, facts: Json, manifest: str | None = None, *, picture: bool = False) -> None:
        """What a task's step handed over."""
        self.xcoms[run_id, task, "facts"] = facts
        self.xcoms[run_id, task, "return_value"] = manifest
        self.xcoms[run_id, task, "_link_PictureLink"] = "/market/artifacts/x.png" if picture else ""


def dag(name: str, *, next_due: datetime | None = None, tags: tuple[str, ...] = (), **more: Any) -> Json:
    """A DAG."""
    due = next_due.isoformat() if next_due else None
    return {
        "dag_id": name,
        "is_paused": False,
        "is_stale": False,
        "has_import_errors": False,
        "tags": [{"name": tag} for tag in tags],
        "next_dagrun_run_after": due,
    } | more


@contextmanager
def airflow_api() -> Iterator[AirflowApi]:
    """The API at a port of its own."""
    state = AirflowApi()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = urlsplit(self.path)
            login = self.headers.get("Authorization") == "Bearer a-token"
            if asked.path == "/auth/token":
                return self.send(201, {"access_token": "a-token"})
            if state.down or not login:
                return self.send(503 if state.down else 401, {})
            found = state.answer(asked.path.removeprefix("/api/v2"), parse_qs(asked.query))
            self.send(404 if found is None else 200, found)

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
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
