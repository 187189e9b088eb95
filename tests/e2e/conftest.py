"""The cluster that scripts/e2e.py has made: Airflow's API, its pods as they come and go, and the bucket.

The tests delete pods, stop nodes and remove deployments, so they run on the cluster that E2E_CLUSTER names and on no other.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

if os.environ.get("E2E_CLUSTER") in (None, "", "market-daily"):
    raise pytest.UsageError(
        "the cluster tests break things on purpose and need a cluster of their own: run make test-e2e, or set E2E_CLUSTER to "
        "the name of a kind cluster that make test-e2e KEEP=1 has left; the cluster of make kind-up, market-daily, is refused"
    )
os.environ["CLUSTER"] = os.environ["E2E_CLUSTER"]
os.environ["UI_PORT"] = os.environ.get("E2E_UI_PORT") or "8091"
os.environ["SLACK_PORT"] = ""

import kind
from airflow_api import Airflow, Conflict
from step_contract.store import Store

Pod = dict[str, Any]
STEPS = "app.kubernetes.io/component=step"


def wait_until(what: str, holds: Callable[[], Any], seconds: float) -> Any:
    """What `holds` returns once it is true; fails after `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := holds():
            return found
        time.sleep(0.5)
    pytest.fail(f"{what}: not within {seconds:.0f} s")


def kubectl(*arguments: str, input: str | None = None) -> str:
    return kind.TARGET.kubectl(*arguments, seconds=120, input=input)


def pods_now(selector: str = STEPS) -> list[Pod]:
    found: list[Pod] = json.loads(kubectl("get", "pods", "--selector", selector, "--output=json"))["items"]
    return found


def running(dag: str, run: str) -> list[str]:
    """The names of the run's pods that run."""
    found = pods_now(f"dag_id={dag},run_id={run}")
    return [pod["metadata"]["name"] for pod in found if pod["status"]["phase"] == "Running"]


class Watched:
    """Every pod of the namespace that was there since the tests began, in its last state, by name."""

    def __init__(self) -> None:
        command = ["kubectl", "--context", kind.TARGET.context, "--namespace", kind.NAMESPACE, "get", "pods", "--watch"]
        self._process = subprocess.Popen([*command, "--output=json"], stdout=subprocess.PIPE, text=True)
        self.pods: dict[str, Pod] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        decoder, rest = json.JSONDecoder(), ""
        for line in self._process.stdout or ():
            rest += line
            if line == "}\n":
                pod, _ = decoder.raw_decode(rest.lstrip())
                self.pods[pod["metadata"]["name"]] = pod
                rest = ""

    def steps(self, dag: str, run: str) -> list[Pod]:
        """The steps' pods of a run."""
        wanted = {"dag_id": dag, "run_id": run, "app.kubernetes.io/component": "step"}
        return [pod for pod in self.pods.values() if wanted.items() <= pod["metadata"]["labels"].items()]

    def workers(self, dag: str, run: str) -> list[Pod]:
        """The worker pods of a run."""
        wanted = {"dag_id": dag, "run_id": run, "component": "worker"}
        return [pod for pod in self.pods.values() if wanted.items() <= pod["metadata"]["labels"].items()]

    def close(self) -> None:
        self._process.terminate()


@pytest.fixture(scope="session")
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.close()


@pytest.fixture(scope="session")
def airflow() -> Airflow:
    return Airflow(f"http://127.0.0.1:{kind.UI_PORT}", "admin", "admin")


@pytest.fixture(scope="session")
def bucket() -> Iterator[Store]:
    """The artifacts in the bucket, through a forwarded port."""
    with kind.TARGET.forward("bucket", 7070) as url:
        os.environ |= kind.TARGET.secret("bucket") | {"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1"}
        yield Store("s3://market/artifacts")


def artifacts(bucket: Store) -> list[str]:
    """What the days' steps have made; what drills make and what the watcher keeps beside it comes and goes meanwhile."""
    return [name for name in bucket.list("") if not name.startswith(("monitor/", "drills/"))]


def unpause(airflow: Airflow, dag: str) -> None:
    """Lets the DAG run, once Airflow knows it."""
    airflow.wait_for(f"the DAG {dag}", lambda: airflow.call("PATCH", f"/dags/{dag}", {"is_paused": False}), 120)


def start(airflow: Airflow, dag: str, run: str, logical_date: str | None = None) -> None:
    """Starts the run, in place of one that a test before, on a cluster that was kept, has left."""
    unpause(airflow, dag)
    try:
        airflow.trigger(dag, run, logical_date)
    except Conflict:
        airflow.call("PATCH", f"/dags/{dag}/dagRuns/{run}", {"state": "failed"})  # one that goes on cannot be deleted
        airflow.call("DELETE", f"/dags/{dag}/dagRuns/{run}")
        airflow.trigger(dag, run, logical_date)


def run_once(airflow: Airflow, dag: str, run: str) -> None:
    """Starts the run unless it is there."""
    unpause(airflow, dag)
    with suppress(Conflict):
        airflow.trigger(dag, run)


def states(airflow: Airflow, dag: str, run: str) -> dict[str, str]:
    return {task: instance["state"] for task, instance in airflow.tasks(dag, run).items()}


def wait_for_end(airflow: Airflow, dag: str, run: str, seconds: float) -> str:
    def ended() -> str | None:
        state: str = airflow.run(dag, run)["state"]
        return state if state in ("success", "failed") else None

    result: str = wait_until(f"{dag} {run}", ended, seconds)
    return result


def wait_for_log(airflow: Airflow, dag: str, run: str, task: str, text: str, number: int = 1) -> str:
    """The log of a task that has ended, with `text` in it. It reaches the bucket a moment after the task's state is set."""
    logs: list[str] = []

    def told() -> bool:
        logs.append(airflow.log(dag, run, task, number))
        return text in logs[-1]

    try:
        wait_until(f"{text!r} in the log of {task}", told, 30)
    except pytest.fail.Exception as missing:
        pytest.fail(f"{missing}; it says:\n{logs[-1]}")
    return logs[-1]
