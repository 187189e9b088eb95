"""A client of Airflow's REST API: trigger and watch DAG runs, read task instances, XComs and logs."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from devtools.commands import ToolError

FINISHED_STATES = ("success", "failed")  # of a DAG run
POLL_SECONDS = 1.0
TOKEN_SECONDS = 3600


class ConflictError(ToolError):
    """The object to create exists already (HTTP 409)."""


class DagImportError(ToolError):
    """A DAG file cannot be imported; waiting does not help."""


class AirflowClient:
    """A client of the API at `url` that is logged in as `user`."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url, self.user, self.password = url.rstrip("/"), user, password
        self._token, self._token_time = "", 0.0

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310 always HTTP
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:500]
            error_type = ConflictError if error.code == 409 else ToolError
            raise error_type(f"{method} {path} failed with status {error.code}: {detail}") from error
        except OSError as error:
            raise ToolError(f"cannot connect to Airflow's API at {self.url}: {error}") from error

    def request(self, method: str, path: str, body: Any = None, accept: str = "application/json") -> Any:
        """Call the API at `path` below /api/v2; return the parsed JSON, or text if `accept` is another media type.

        Raises ConflictError for status 409, ToolError for any other error.
        """
        json_headers = {"Content-Type": "application/json"}
        if time.monotonic() - self._token_time > TOKEN_SECONDS or not self._token:
            response = self._send("POST", "/auth/token", {"username": self.user, "password": self.password}, json_headers)
            self._token, self._token_time = json.loads(response)["access_token"], time.monotonic()
        headers = json_headers | {"Authorization": f"Bearer {self._token}", "Accept": accept}
        response = self._send(method, f"/api/v2{path}", body, headers)
        return json.loads(response) if accept == "application/json" and response else response.decode()

    def get_page(self, path: str) -> tuple[bytes, str]:
        """Return a page of the UI and its media type, as a logged-in user sees it."""
        self.request("GET", "/version")  # makes sure that there is a token
        request = urllib.request.Request(f"{self.url}{path}", headers={"Cookie": f"_token={self._token}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return response.read(), response.headers["Content-Type"]

    def wait_for(self, description: str, condition: Callable[[], Any], timeout: float) -> Any:
        """Poll `condition` until it returns a true value, and return that; a ToolError counts as false.

        Raises:
            ToolError: `timeout` seconds have passed.
            DagImportError: raised by `condition`, at once.
        """
        deadline, last_error = time.monotonic() + timeout, ""
        while time.monotonic() < deadline:
            try:
                if result := condition():
                    return result
            except DagImportError:
                raise
            except ToolError as error:
                last_error = f": {error}"
            time.sleep(POLL_SECONDS)
        raise ToolError(f"timed out after {timeout:.0f} s waiting for {description}{last_error}")

    def wait_until_parsed(self, dag_id: str, since: datetime, timeout: float = 180) -> None:
        """Wait until Airflow has parsed the DAG after `since`. Raises DagImportError if a DAG file cannot be imported."""

        def is_parsed() -> bool:
            if errors := self.request("GET", "/importErrors")["import_errors"]:
                raise DagImportError(
                    "\n".join(f"cannot import {error['filename']}:\n{error['stack_trace']}" for error in errors)
                )
            last_parsed = self.request("GET", f"/dags/{dag_id}")["last_parsed_time"]
            return bool(last_parsed) and datetime.fromisoformat(last_parsed) >= since

        self.wait_for(f"the DAG {dag_id} to be parsed", is_parsed, timeout)

    def unpause_dag(self, dag_id: str, timeout: float = 180) -> None:
        """Unpause the DAG as soon as Airflow knows it."""

        def unpause() -> Any:
            return self.request("PATCH", f"/dags/{dag_id}", {"is_paused": False})

        self.wait_for(f"the DAG {dag_id}", unpause, timeout)

    def trigger_dag(
        self, dag_id: str, run_id: str, logical_date: str | None = None, conf: dict[str, Any] | None = None
    ) -> None:
        """Trigger a DAG run. Raises ConflictError if the DAG has a run with this id or logical date."""
        body = {"dag_run_id": run_id, "logical_date": logical_date, "conf": conf or {}}
        self.request("POST", f"/dags/{dag_id}/dagRuns", body)

    def clear_run(self, dag_id: str, run_id: str) -> None:
        """Clear all task instances of the run."""
        self.request("POST", f"{_run_path(dag_id, run_id)}/clear", {"dry_run": False})

    def get_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return the DAG run."""
        run: dict[str, Any] = self.request("GET", _run_path(dag_id, run_id))
        return run

    def get_task_instances(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the run's task instances by task id."""
        response = self.request("GET", f"{_run_path(dag_id, run_id)}/taskInstances?limit=200")
        return {ti["task_id"]: ti for ti in response["task_instances"]}

    def watch_task_states(self, dag_id: str, run_id: str, timeout: float) -> Iterator[tuple[str, str]]:
        """Yield each change of a task's state as (task id, state) until the run has finished.

        Raises ToolError after `timeout` seconds.
        """
        deadline, states = time.monotonic() + timeout, dict[str, str]()
        while True:
            finished = self.get_run(dag_id, run_id)["state"] in FINISHED_STATES
            for task_id, ti in self.get_task_instances(dag_id, run_id).items():
                state = ti["state"] or ""
                if state and states.get(task_id) != state:
                    states[task_id] = state
                    yield task_id, state
            if finished:
                return
            if time.monotonic() > deadline:
                raise ToolError(f"timed out after {timeout:.0f} s waiting for the run {run_id} of {dag_id}; tasks: {states}")
            time.sleep(POLL_SECONDS)

    def get_xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return the value of a task's XCom."""
        return self.request("GET", f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}")["value"]

    def get_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """Return the log of one attempt of a task, as the UI shows it."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}?full_content=true"
        content = self.request("GET", path)["content"]
        return "\n".join(text for entry in content for text in _format_log_entry(entry))


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{urllib.parse.quote(run_id)}"


def _format_log_entry(entry: Any) -> list[str]:
    """Return the lines of a log entry: its event, then the exceptions that it reports."""
    if isinstance(entry, str):
        return [entry]
    exceptions = [f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or ()]
    return [entry.get("event", ""), *exceptions]
