"""A read-only client of Airflow's REST API, with pagination."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx
from airflow_steps.links import PictureLink
from step_contract.schemas import MARKET_TIME_ZONE

from airflow_monitor.airflow_responses import (
    Json,
    last_line,
    parse_backfill,
    parse_components,
    parse_dag,
    parse_run,
    parse_task_instance,
)
from airflow_monitor.models import Backfill, Dag, Health, Run, RunKey, StepResult, TaskInstance

PAGE_SIZE = 100
TOKEN_SECONDS = 3600
# The first limits each wait for the server, the second a whole request, the third a response: no page is near it.
TIMEOUT_SECONDS, MAX_REQUEST_SECONDS, MAX_RESPONSE_BYTES = 15, 60, 32 * 1024 * 1024
PICTURE_XCOM = PictureLink().xcom_key
UNFINISHED = ["queued", "running"]
ALL_RUNS = "/dags/~/dagRuns"


class AirflowUnavailableError(Exception):
    """Airflow's API does not respond, or responds with an error or an unexpected document."""


class DatabaseUnavailableError(AirflowUnavailableError):
    """Airflow's API responds, but cannot reach the metadata database."""


class AirflowClient:
    """The API at `url`, as the user `user`. `heartbeat` is called before each request.

    Every method that sends a request raises AirflowUnavailableError.

    Attributes:
        server_time: when the server sent its latest response, by its own clock; None if it does not say.
    """

    def __init__(self, url: str, user: str, password: str, heartbeat: Callable[[], None] = lambda: None) -> None:
        self.user, self.password, self.heartbeat = user, password, heartbeat
        self.server_time: datetime | None = None
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS)
        self._token, self._token_time = "", 0.0

    def _get(self, path: str, *, optional: bool = False, **query: Any) -> Any:
        """Return the response's JSON; None for status 404 if the resource is `optional`."""
        self.heartbeat()
        try:
            if not self._token or time.monotonic() - self._token_time > TOKEN_SECONDS:
                _, content = self._send("POST", "/auth/token", json={"username": self.user, "password": self.password})
                self._token, self._token_time = content["access_token"], time.monotonic()
            headers = {"Authorization": f"Bearer {self._token}"}
            response, content = self._send("GET", f"/api/v2{path}", optional=optional, params=query, headers=headers)
            self.server_time = _parse_date_header(response)
            return content
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 401:
                self._token = ""
            status = f"{error.response.status_code} {error.response.reason_phrase}"
            raise AirflowUnavailableError(f"{status} at {error.request.url.path}") from error
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise AirflowUnavailableError(f"{type(error).__name__}: {error}") from error

    def _send(self, method: str, path: str, *, optional: bool = False, **arguments: Any) -> tuple[httpx.Response, Any]:
        """Return the response and its JSON, within the limits of time and size."""
        deadline, body = time.monotonic() + MAX_REQUEST_SECONDS, bytearray()
        with self._http.stream(method, path, **arguments) as response:
            if response.status_code == 404 and optional:
                return response, None
            response.raise_for_status()
            for chunk in response.iter_bytes():
                body += chunk
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"no complete response within {MAX_REQUEST_SECONDS} s at {path}")
                if len(body) > MAX_RESPONSE_BYTES:
                    raise ValueError(f"the response exceeds {MAX_RESPONSE_BYTES} bytes at {path}")
        return response, json.loads(body)

    def _list(self, path: str, key: str, **query: Any) -> Iterator[Json]:
        """Yield the items under `key` of all pages, for lists that hardly change."""
        offset = 0
        while True:
            page = self._get(path, optional=True, limit=PAGE_SIZE, offset=offset, **query) or {key: [], "total_entries": 0}
            yield from page[key]
            offset += len(page[key])
            # The server's own page limit may be lower than ours.
            if not page[key] or offset >= page["total_entries"]:
                return

    def _list_by_cursor(self, path: str, key: str, **query: Any) -> Iterator[Json]:
        """Yield the items under `key` of all pages in the order of their ids: rows that change meanwhile shift no page."""
        cursor: str | None = ""
        while cursor is not None:
            page = self._get(path, optional=True, limit=PAGE_SIZE, cursor=cursor, order_by="id", **query)
            if page is None:
                return
            yield from page[key]
            if page["next_cursor"] == cursor:
                raise AirflowUnavailableError(f"ValueError: the pages do not end at {path}")
            cursor = page["next_cursor"]

    def get_health(self) -> Health:
        """Return the components' health and the import errors. Raises DatabaseUnavailableError if the database is unhealthy."""
        components = parse_components(self._get("/monitor/health"))
        if components.get("metadatabase", ("healthy", None))[0] != "healthy":
            raise DatabaseUnavailableError("the API server cannot reach the metadata database")
        errors = self._list("/importErrors", "import_errors")
        return Health(components, {error["filename"]: last_line(error["stack_trace"]) for error in errors})

    def list_dags(self) -> list[Dag]:
        """Return all DAGs, stale ones included."""
        return [parse_dag(item) for item in self._list("/dags", "dags", exclude_stale=False)]

    def list_updated_runs(self, since: datetime) -> list[Run]:
        """Return the runs that were updated since, without task instances."""
        items = self._list_by_cursor(ALL_RUNS, "dag_runs", updated_at_gte=since.isoformat())
        return [parse_run(item) for item in items]

    def list_unfinished_runs(self) -> list[Run]:
        """Return the queued and running runs, without task instances."""
        return [parse_run(item) for item in self._list_by_cursor(ALL_RUNS, "dag_runs", state=UNFINISHED)]

    def count_unfinished_runs(self) -> int:
        """Return the number of queued and running runs."""
        return int(self._get(ALL_RUNS, state=UNFINISHED, limit=1)["total_entries"])

    def get_run(self, run: Run) -> Run | None:
        """Return the run as it is now; None if it was deleted."""
        item = self._get(_run_path(run), optional=True)
        return parse_run(item) if item else None

    def list_task_instances(self, run: Run) -> list[TaskInstance]:
        """Return the run's task instances without results."""
        items = self._list_by_cursor(f"{_run_path(run)}/taskInstances", "task_instances")
        return [parse_task_instance(item, self._now()) for item in items]

    def list_updated_task_instances(self, since: datetime, due_since: datetime) -> Iterator[tuple[RunKey, TaskInstance]]:
        """Yield the task instances that were updated since, of runs that were due since, without results."""
        return self._list_all_task_instances(updated_at_gte=since.isoformat(), run_after_gte=due_since.isoformat())

    def list_deferred_task_instances(self) -> Iterator[tuple[RunKey, TaskInstance]]:
        """Yield the deferred task instances of all runs."""
        return self._list_all_task_instances(state=["deferred"])

    def _list_all_task_instances(self, **query: Any) -> Iterator[tuple[RunKey, TaskInstance]]:
        for item in self._list_by_cursor(f"{ALL_RUNS}/~/taskInstances", "task_instances", **query):
            yield (item["dag_id"], item["dag_run_id"]), parse_task_instance(item, self._now())

    def _now(self) -> datetime:
        return self.server_time or datetime.now(UTC)

    def list_xcom_keys(self, run: Run) -> dict[tuple[str, int], frozenset[str]]:
        """Return the keys of the XComs of each of the run's task instances, by task id and map index."""
        keys: dict[tuple[str, int], set[str]] = {}
        for entry in self._list(f"{_run_path(run)}/taskInstances/~/xcomEntries", "xcom_entries"):
            keys.setdefault((entry["task_id"], entry["map_index"]), set()).add(entry["key"])
        return {key: frozenset(xcom_keys) for key, xcom_keys in keys.items()}

    def get_step_result(self, run: Run, ti: TaskInstance, xcom_keys: frozenset[str]) -> StepResult:
        """Return the result of a step that succeeded; an empty one for a task that is no step."""
        facts = self._get_xcom(run, ti, "facts") if "facts" in xcom_keys else None
        manifest = self._get_xcom(run, ti, "return_value") if "facts" in xcom_keys else None
        # A step without a picture may have the link's XCom too, but empty.
        has_picture = PICTURE_XCOM in xcom_keys and bool(self._get_xcom(run, ti, PICTURE_XCOM))
        return StepResult(facts if isinstance(facts, Mapping) else {}, str(manifest) if manifest else None, has_picture)

    def _get_xcom(self, run: Run, ti: TaskInstance, key: str) -> Any:
        path = f"{_run_path(run)}/taskInstances/{quote(ti.task_id)}/xcomEntries/{key}"
        entry = self._get(path, optional=True, map_index=ti.map_index) or {}
        return entry.get("value")

    def list_backfills(self, dag_id: str, limit: int) -> list[Backfill]:
        """Return the DAG's latest backfills, without their runs."""
        page = self._get("/backfills", dag_id=dag_id, order_by="-id", limit=limit)
        return [parse_backfill(item) for item in page["backfills"]]

    def list_backfill_runs(self, backfill: Backfill) -> list[Run]:
        """Return the backfill's runs ordered by session, without task instances."""
        first, last = (
            datetime.combine(day, datetime.min.time(), MARKET_TIME_ZONE) for day in (backfill.from_date, backfill.to_date)
        )
        dates = {"logical_date_gte": first.isoformat(), "logical_date_lt": (last + timedelta(days=1)).isoformat()}
        path = f"/dags/{quote(backfill.dag_id)}/dagRuns"
        runs = [parse_run(item) for item in self._list_by_cursor(path, "dag_runs", run_type="backfill", **dates)]
        return sorted(runs, key=lambda run: run.logical_date or run.run_after)


def _run_path(run: Run) -> str:
    return f"/dags/{quote(run.dag_id)}/dagRuns/{quote(run.run_id, safe='')}"


def _parse_date_header(response: httpx.Response) -> datetime | None:
    try:
        moment = parsedate_to_datetime(response.headers["Date"])
    except (KeyError, ValueError, TypeError):
        return None
    return moment if moment.tzinfo else None
