"""What the watcher reads of Airflow, through its REST API; it changes nothing there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
from airflow_steps.links import PictureLink

from airflow_monitor.models import SEOUL, Backfill, Dag, Health, Run, Task

PAGE = 100
TOKEN_SECONDS = 3600
TIMEOUT_SECONDS = 15
TRIGGERER_SILENT = timedelta(seconds=60)
PICTURE = PictureLink().xcom_key
Json = Mapping[str, Any]


DATABASE = "it cannot reach its database"


class Unreachable(Exception):
    """Airflow's API does not answer, or not as it should, or knows nothing, as its database is away."""


class Airflow:
    """The API at `url`, as the user `user`. `alive` is called before each request."""

    def __init__(self, url: str, user: str, password: str, alive: Callable[[], None] = lambda: None) -> None:
        self.user, self.password, self.alive = user, password, alive
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS)
        self._token, self._since = "", 0.0
        self._handed: dict[tuple[str, ...], Any] = {}

    def _get(self, path: str, *, optional: bool = False, **query: Any) -> Any:
        """The answer; None where there is no such thing and that is `optional`."""
        self.alive()
        try:
            if not self._token or time.monotonic() - self._since > TOKEN_SECONDS:
                answer = self._client.post("/auth/token", json={"username": self.user, "password": self.password})
                answer.raise_for_status()
                self._token, self._since = answer.json()["access_token"], time.monotonic()
            answer = self._client.get(f"/api/v2{path}", params=query, headers={"Authorization": f"Bearer {self._token}"})
            if answer.status_code == 401:
                self._token = ""
            if answer.status_code == 404 and optional:
                return None
            answer.raise_for_status()
            return answer.json()
        except httpx.HTTPStatusError as error:
            raise Unreachable(
                f"{error.response.status_code} {error.response.reason_phrase} at {error.request.url.path}"
            ) from error
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error

    def _all(self, path: str, what: str, **query: Any) -> Iterator[Json]:
        offset = 0
        while True:
            answer = self._get(path, optional=True, limit=PAGE, offset=offset, **query) or {what: [], "total_entries": 0}
            yield from answer[what]
            offset += len(answer[what])
            # The server may give fewer at once than it is asked for.
            if not answer[what] or offset >= answer["total_entries"]:
                return

    def health(self) -> Health:
        """What Airflow says of itself. Raises Unreachable, as all that follow."""
        components = {}
        for name, said in self._get("/monitor/health").items():
            if said and said.get("status"):
                heard = next((value for key, value in said.items() if key.startswith("latest_")), None)
                components[name] = said["status"], _time(heard)
        if components.get("metadatabase", ("healthy", None))[0] != "healthy":
            raise Unreachable(DATABASE)
        errors = self._all("/importErrors", "import_errors")
        return Health(components, {one["filename"]: _last_line(one["stack_trace"]) for one in errors})

    def dags(self) -> list[Dag]:
        """Every DAG that Airflow knows."""
        found = self._all("/dags", "dags", exclude_stale=False)
        return [
            Dag(
                one["dag_id"],
                one["is_paused"],
                # That a file does not load is told of the file.
                one["is_stale"] and not one["has_import_errors"],
                frozenset(tag["name"] for tag in one["tags"]),
                _time(one["next_dagrun_run_after"]),
            )
            for one in found
        ]

    def runs(self, changed_since: datetime) -> list[Run]:
        """The runs that have not ended, and those that have changed since, each without its tasks; the first due come first."""
        lately = self._all("/dags/~/dagRuns", "dag_runs", updated_at_gte=changed_since.isoformat(), order_by="run_after")
        still = self._all("/dags/~/dagRuns", "dag_runs", state=["queued", "running"], order_by="run_after")
        found = {(one["dag_id"], one["dag_run_id"]): _run(one) for one in (*lately, *still)}
        return sorted(found.values(), key=lambda run: run.due)

    def is_there(self, run: Run) -> bool:
        """Whether Airflow still has the run."""
        return self._get(_path(run), optional=True) is not None

    def tasks(self, run: Run) -> list[Task]:
        """The run's task instances in the order in which they started, with what their steps handed over."""
        path = f"{_path(run)}/taskInstances"
        found = sorted(self._all(path, "task_instances"), key=lambda one: one["start_date"] or "~")
        keys: dict[str, set[str]] = {}
        if any(one["state"] == "success" for one in found):
            for entry in self._all(f"{path}/~/xcomEntries", "xcom_entries", map_index=-1):
                keys.setdefault(entry["task_id"], set()).add(entry["key"])
        now = datetime.now(UTC)
        return [self._task(path, one, keys.get(one["task_id"], set()), now) for one in found]

    def _task(self, path: str, one: Json, keys: set[str], now: datetime) -> Task:
        state = one["state"] or ""
        since = {"queued": one["queued_when"], "scheduled": one["scheduled_when"]}.get(state) or one["start_date"]
        facts: Json = {}
        manifest = None
        if state == "success" and one["map_index"] < 0 and "facts" in keys:
            handed = self._xcom(path, one, "facts")
            facts = handed if isinstance(handed, Mapping) else {}
            manifest = self._xcom(path, one, "return_value")
        trigger, job = one["trigger"], one["triggerer_job"]
        heard = _time(job["latest_heartbeat"]) if job else None
        unattended = state == "deferred" and (
            not trigger or trigger["triggerer_id"] is None or (heard is not None and now - heard > TRIGGERER_SILENT)
        )
        failed_at = _time(one["end_date"]) if state in ("failed", "up_for_retry") else None
        return Task(
            one["task_id"],
            state,
            one["try_number"],
            one["map_index"],
            since=failed_at or _time(since),
            facts=facts,
            manifest=str(manifest) if manifest else None,
            # The link of a step without a picture is there, and empty.
            picture=PICTURE in keys and bool(self._xcom(path, one, PICTURE)),
            unattended=unattended,
        )

    def _xcom(self, path: str, one: Json, key: str) -> Any:
        name = (path, one["task_id"], str(one["try_number"]), str(one["end_date"]), key)
        if name not in self._handed:
            self._handed[name] = (self._get(f"{path}/{quote(one['task_id'])}/xcomEntries/{key}", optional=True) or {}).get(
                "value"
            )
        return self._handed[name]

    def backfills(self, dag: str) -> list[Backfill]:
        """The DAG's backfills, the latest first, without their runs."""
        return [
            Backfill(
                one["id"],
                one["dag_id"],
                datetime.fromisoformat(one["from_date"]).astimezone(SEOUL).date(),
                datetime.fromisoformat(one["to_date"]).astimezone(SEOUL).date(),
                datetime.fromisoformat(one["created_at"]),
                _time(one["completed_at"]),
                (),
            )
            for one in self._all("/backfills", "backfills", dag_id=dag, order_by="-id")
        ]

    def runs_of(self, backfill: Backfill) -> list[Run]:
        """The backfill's runs in order of their sessions, each without its tasks."""
        first, last = (datetime.combine(day, datetime.min.time(), SEOUL) for day in (backfill.first, backfill.last))
        within = {"logical_date_gte": first.isoformat(), "logical_date_lt": (last + timedelta(days=1)).isoformat()}
        path = f"/dags/{quote(backfill.dag)}/dagRuns"
        found = self._all(path, "dag_runs", run_type="backfill", order_by="logical_date", **within)
        return [_run(one) for one in found]

    def forget(self, runs: Sequence[Run]) -> None:
        """Forgets what steps handed over in other runs than these."""
        paths = {f"{_path(run)}/taskInstances" for run in runs}
        self._handed = {name: value for name, value in self._handed.items() if name[0] in paths}


def _path(run: Run) -> str:
    return f"/dags/{quote(run.dag)}/dagRuns/{quote(run.run_id, safe='')}"


def _run(one: Json) -> Run:
    return Run(
        dag=one["dag_id"],
        run_id=one["dag_run_id"],
        kind=one["run_type"],
        state=one["state"],
        due=datetime.fromisoformat(one["run_after"]),
        logical_date=_time(one["logical_date"]),
        queued=_time(one["queued_at"]),
        started=_time(one["start_date"]),
        ended=_time(one["end_date"]),
        conf=one["conf"] or {},
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _last_line(trace: str) -> str:
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason is known"
