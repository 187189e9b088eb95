"""Airflow's REST API, as far as the targets and the tests need it: runs are started, followed and read."""

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

ENDED = ("success", "failed")
POLL_SECONDS = 1.0
TOKEN_SECONDS = 3600


class ConflictError(ToolError):
    """What is to be made is there already."""


class DagImportError(ToolError):
    """What is waited for will not come."""


class AirflowClient:
    """The API at `url`, as the user `user`."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url, self.user, self.password = url.rstrip("/"), user, password
        self._token, self._since = "", 0.0

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310 http alone
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
            kind = ConflictError if error.code == 409 else ToolError
            raise kind(f"{method} {path}: {error.code} {said}") from error
        except OSError as error:
            raise ToolError(f"Airflow's API at {self.url} does not answer: {error}") from error

    def call(self, method: str, path: str, body: Any = None, accept: str = "application/json") -> Any:
        """The answer of the API: what JSON says, or text for another `accept`. Raises ToolError, Conflict on 409."""
        plain = {"Content-Type": "application/json"}
        if time.monotonic() - self._since > TOKEN_SECONDS or not self._token:
            answer = self._send("POST", "/auth/token", {"username": self.user, "password": self.password}, plain)
            self._token, self._since = json.loads(answer)["access_token"], time.monotonic()
        headers = plain | {"Authorization": f"Bearer {self._token}", "Accept": accept}
        answer = self._send(method, f"/api/v2{path}", body, headers)
        return json.loads(answer) if accept == "application/json" and answer else answer.decode()

    def page(self, path: str) -> tuple[bytes, str]:
        """A page of the UI and its media type, as who is logged in sees it."""
        self.call("GET", "/version")  # makes sure of the token
        request = urllib.request.Request(f"{self.url}{path}", headers={"Cookie": f"_token={self._token}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.read(), answer.headers["Content-Type"]

    def wait_for(self, what: str, ready: Callable[[], Any], seconds: float) -> Any:
        """What `ready` returns once it is true; asks once a second. Raises ToolError after `seconds`."""
        until, problem = time.monotonic() + seconds, ""
        while time.monotonic() < until:
            try:
                if found := ready():
                    return found
            except DagImportError:
                raise
            except ToolError as error:
                problem = f": {error}"
            time.sleep(POLL_SECONDS)
        raise ToolError(f"{what} was waited for {seconds:.0f} s in vain{problem}")

    def unpause(self, dag: str, parsed_since: datetime, seconds: float = 180) -> None:
        """Lets the DAG run, once Airflow has parsed it after `parsed_since`; raises ToolError with the error of a broken file."""

        def parsed() -> bool:
            if errors := self.call("GET", "/importErrors")["import_errors"]:
                raise DagImportError(
                    "\n".join(f"{error['filename']} cannot be loaded:\n{error['stack_trace']}" for error in errors)
                )
            last = self.call("GET", f"/dags/{dag}")["last_parsed_time"]
            return bool(last) and datetime.fromisoformat(last) >= parsed_since

        self.wait_for(f"the DAG {dag}", parsed, seconds)
        self.call("PATCH", f"/dags/{dag}", {"is_paused": False})

    def trigger(self, dag: str, run: str, logical_date: str | None = None, conf: dict[str, Any] | None = None) -> None:
        """Starts a run; raises ConflictError where the DAG has one of that name or date."""
        self.call("POST", f"/dags/{dag}/dagRuns", {"dag_run_id": run, "logical_date": logical_date, "conf": conf or {}})

    def clear(self, dag: str, run: str) -> None:
        """Lets the whole run run again."""
        self.call("POST", f"/dags/{dag}/dagRuns/{urllib.parse.quote(run)}/clear", {"dry_run": False})

    def run(self, dag: str, run: str) -> dict[str, Any]:
        """The run."""
        found: dict[str, Any] = self.call("GET", f"/dags/{dag}/dagRuns/{urllib.parse.quote(run)}")
        return found

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """The run's task instances by task."""
        found = self.call("GET", f"/dags/{dag}/dagRuns/{urllib.parse.quote(run)}/taskInstances?limit=200")
        return {one["task_id"]: one for one in found["task_instances"]}

    def follow(self, dag: str, run: str, seconds: float) -> Iterator[tuple[str, str]]:
        """Each task and its new state, as they change, until the run has ended; raises ToolError after `seconds`."""
        until, seen = time.monotonic() + seconds, dict[str, str]()
        while True:
            ended = self.run(dag, run)["state"] in ENDED
            for task, instance in self.tasks(dag, run).items():
                state = instance["state"] or ""
                if state and seen.get(task) != state:
                    seen[task] = state
                    yield task, state
            if ended:
                return
            if time.monotonic() > until:
                raise ToolError(f"the run {run} of {dag} has not ended within {seconds:.0f} s; its tasks: {seen}")
            time.sleep(POLL_SECONDS)

    def xcom(self, dag: str, run: str, task: str, key: str = "return_value") -> Any:
        """A task's XCom."""
        path = f"/dags/{dag}/dagRuns/{urllib.parse.quote(run)}/taskInstances/{task}/xcomEntries/{key}"
        return self.call("GET", path)["value"]

    def log(self, dag: str, run: str, task: str, number: int = 1) -> str:
        """The log of a task's try, as the UI shows it."""
        path = f"/dags/{dag}/dagRuns/{urllib.parse.quote(run)}/taskInstances/{task}/logs/{number}?full_content=true"
        content = self.call("GET", path)["content"]
        return "\n".join(text for line in content for text in _texts(line))


def _texts(line: Any) -> list[str]:
    """A log line's text, and what went wrong where it tells of an exception."""
    if isinstance(line, str):
        return [line]
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in line.get("error_detail") or ()]
    return [line.get("event", ""), *errors]
