"""A read-only client of Airflow's REST API."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
from airflow_steps.links import PictureLink
from step_contract.schemas import MARKET_TIME_ZONE

from airflow_monitor.models import Backfill, Dag, Health, Run, TaskInstance

PAGE_SIZE = 100
TOKEN_SECONDS = 3600
TIMEOUT_SECONDS = 15
TRIGGERER_TIMEOUT = timedelta(seconds=60)
PICTURE_XCOM = PictureLink().xcom_key
Json = Mapping[str, Any]


class AirflowUnavailableError(Exception):
    """Airflow's API does not respond, or responds with an error or an unexpected document."""


class DatabaseUnavailableError(AirflowUnavailableError):
    """Airflow's API responds, but cannot reach the metadata database."""


class AirflowClient:
    """The API at `url`, as the user `user`. `heartbeat` is called before each request.

    Every method that sends a request raises AirflowUnavailableError.
    """

    def __init__(self, url: str, user: str, password: str, heartbeat: Callable[[], None] = lambda: None) -> None:
        self.user, self.password, self.heartbeat = user, password, heartbeat
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS)
        self._token, self._token_time = "", 0.0
        self._xcoms: dict[tuple[str, ...], Any] = {}

    def _get(self, path: str, *, optional: bool = False, **query: Any) -> Any:
        """Return the response's JSON; None for status 404 if the resource is `optional`."""
        self.heartbeat()
        try:
            if not self._token or time.monotonic() - self._token_time > TOKEN_SECONDS:
                response = self._http.post("/auth/token", json={"username": self.user, "password": self.password})
                response.raise_for_status()
                self._token, self._token_time = response.json()["access_token"], time.monotonic()
            response = self._http.get(f"/api/v2{path}", params=query, headers={"Authorization": f"Bearer {self._token}"})
            if response.status_code == 401:
                self._token = ""
            if response.status_code == 404 and optional:
                return None
            response.raise_for_status()
            return response.json()
        except httpx.HTTPStatusError as error:
            status = f"{error.response.status_code} {error.response.reason_phrase}"
            raise AirflowUnavailableError(f"{status} at {error.request.url.path}") from error
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise AirflowUnavailableError(f"{type(error).__name__}: {error}") from error

    def _list(self, path: str, key: str, **query: Any) -> Iterator[Json]:
        """Yield the items under `key` of all pages."""
        offset = 0
        while True:
            page = self._get(path, optional=True, limit=PAGE_SIZE, offset=offset, **query) or {key: [], "total_entries": 0}
            yield from page[key]
            offset += len(page[key])
            # The server's own page limit may be lower than ours.
            if not page[key] or offset >= page["total_entries"]:
                return

    def get_health(self) -> Health:
        """Return the components' health and the import errors. Raises DatabaseUnavailableError if the database is unhealthy."""
        components = {}
        for name, component in self._get("/monitor/health").items():
            if component and component.get("status"):
                heartbeat = next((value for key, value in component.items() if key.startswith("latest_")), None)
                components[name] = component["status"], _parse_time(heartbeat)
        if components.get("metadatabase", ("healthy", None))[0] != "healthy":
            raise DatabaseUnavailableError("the API server cannot reach the metadata database")
        errors = self._list("/importErrors", "import_errors")
        return Health(components, {error["filename"]: _last_line(error["stack_trace"]) for error in errors})

    def list_dags(self) -> list[Dag]:
        """Return all DAGs, stale ones included."""
        return [
            Dag(
                dag["dag_id"],
                dag["is_paused"],
                # An import error is an incident of the file.
                dag["is_stale"] and not dag["has_import_errors"],
                frozenset(tag["name"] for tag in dag["tags"]),
                _parse_time(dag["next_dagrun_run_after"]),
            )
            for dag in self._list("/dags", "dags", exclude_stale=False)
        ]

    def list_runs(self, updated_since: datetime) -> list[Run]:
        """Return unfinished runs and those updated since, ordered by due time and without task instances."""
        path = "/dags/~/dagRuns"
        updated = self._list(path, "dag_runs", updated_at_gte=updated_since.isoformat(), order_by="run_after")
        unfinished = self._list(path, "dag_runs", state=["queued", "running"], order_by="run_after")
        runs = {(run["dag_id"], run["dag_run_id"]): _parse_run(run) for run in (*updated, *unfinished)}
        return sorted(runs.values(), key=lambda run: run.run_after)

    def run_exists(self, run: Run) -> bool:
        """Return whether Airflow still has the run."""
        return self._get(_run_path(run), optional=True) is not None

    def list_task_instances(self, run: Run) -> list[TaskInstance]:
        """Return the run's task instances with their steps' results, in the order in which they started."""
        path = f"{_run_path(run)}/taskInstances"
        items = sorted(self._list(path, "task_instances"), key=lambda item: item["start_date"] or "~")
        xcom_keys: dict[str, set[str]] = {}
        if any(item["state"] == "success" for item in items):
            for entry in self._list(f"{path}/~/xcomEntries", "xcom_entries", map_index=-1):
                xcom_keys.setdefault(entry["task_id"], set()).add(entry["key"])
        now = datetime.now(UTC)
        return [self._parse_task_instance(path, item, xcom_keys.get(item["task_id"], set()), now) for item in items]

    def _parse_task_instance(self, path: str, item: Json, xcom_keys: set[str], now: datetime) -> TaskInstance:
        state = item["state"] or ""
        since = {"queued": item["queued_when"], "scheduled": item["scheduled_when"]}.get(state) or item["start_date"]
        failed_at = _parse_time(item["end_date"]) if state in ("failed", "up_for_retry") else None
        facts: Json = {}
        manifest = None
        if state == "success" and item["map_index"] < 0 and "facts" in xcom_keys:
            value = self._get_xcom(path, item, "facts")
            facts = value if isinstance(value, Mapping) else {}
            manifest = self._get_xcom(path, item, "return_value")
        return TaskInstance(
            item["task_id"],
            state,
            item["try_number"],
            item["map_index"],
            state_since=failed_at or _parse_time(since),
            facts=facts,
            manifest=str(manifest) if manifest else None,
            # A step without a picture has the link's XCom too, but empty.
            has_picture=PICTURE_XCOM in xcom_keys and bool(self._get_xcom(path, item, PICTURE_XCOM)),
            is_orphaned=state == "deferred" and not _has_live_triggerer(item, now),
        )

    def _get_xcom(self, path: str, item: Json, key: str) -> Any:
        cache_key = (path, item["task_id"], str(item["try_number"]), str(item["end_date"]), key)
        if cache_key not in self._xcoms:
            entry = self._get(f"{path}/{quote(item['task_id'])}/xcomEntries/{key}", optional=True) or {}
            self._xcoms[cache_key] = entry.get("value")
        return self._xcoms[cache_key]

    def list_backfills(self, dag_id: str) -> list[Backfill]:
        """Return the DAG's backfills, latest first and without their runs."""
        return [
            Backfill(
                item["id"],
                item["dag_id"],
                _parse_session(item["from_date"]),
                _parse_session(item["to_date"]),
                datetime.fromisoformat(item["created_at"]),
                _parse_time(item["completed_at"]),
                (),
            )
            for item in self._list("/backfills", "backfills", dag_id=dag_id, order_by="-id")
        ]

    def list_backfill_runs(self, backfill: Backfill) -> list[Run]:
        """Return the backfill's runs ordered by session, without task instances."""
        first, last = (
            datetime.combine(day, datetime.min.time(), MARKET_TIME_ZONE) for day in (backfill.from_date, backfill.to_date)
        )
        dates = {"logical_date_gte": first.isoformat(), "logical_date_lt": (last + timedelta(days=1)).isoformat()}
        path = f"/dags/{quote(backfill.dag_id)}/dagRuns"
        runs = self._list(path, "dag_runs", run_type="backfill", order_by="logical_date", **dates)
        return [_parse_run(run) for run in runs]

    def keep_xcoms_of(self, runs: Sequence[Run]) -> None:
        """Drop the cached XComs of all other runs."""
        paths = {f"{_run_path(run)}/taskInstances" for run in runs}
        self._xcoms = {cache_key: value for cache_key, value in self._xcoms.items() if cache_key[0] in paths}


def _run_path(run: Run) -> str:
    return f"/dags/{quote(run.dag_id)}/dagRuns/{quote(run.run_id, safe='')}"


def _parse_run(item: Json) -> Run:
    return Run(
        dag_id=item["dag_id"],
        run_id=item["dag_run_id"],
        run_type=item["run_type"],
        state=item["state"],
        run_after=datetime.fromisoformat(item["run_after"]),
        logical_date=_parse_time(item["logical_date"]),
        queued_at=_parse_time(item["queued_at"]),
        start_date=_parse_time(item["start_date"]),
        end_date=_parse_time(item["end_date"]),
        conf=item["conf"] or {},
    )


def _has_live_triggerer(item: Json, now: datetime) -> bool:
    trigger, job = item["trigger"], item["triggerer_job"]
    heartbeat = _parse_time(job["latest_heartbeat"]) if job else None
    if not trigger or trigger["triggerer_id"] is None:
        return False
    return heartbeat is None or now - heartbeat <= TRIGGERER_TIMEOUT


def _parse_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _parse_session(text: str) -> date:
    return datetime.fromisoformat(text).astimezone(MARKET_TIME_ZONE).date()


def _last_line(trace: str) -> str:
    lines = [line.strip() for line in trace.splitlines() if line.strip()]
    return lines[-1] if lines else "no traceback recorded"
