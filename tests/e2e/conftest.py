"""The cluster that scripts/e2e.py has deployed: Airflow's API, the history of its pods, and the bucket.

The tests delete pods, stop nodes and remove deployments, so they run on the cluster that E2E_CLUSTER names and on no other.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest
from devtools.airflow_client import FINISHED_STATES, AirflowClient, ConflictError
from devtools.deployment import Deployment
from devtools.e2e_cluster import E2E_UI_PORT
from devtools.kind_cluster import DEVELOPMENT_CLUSTER, KindCluster
from devtools.pods import Pod, PodWatch
from step_contract import paths
from step_contract.store import Store

from . import kubernetes_api

if os.environ.get("E2E_CLUSTER") in (None, "", DEVELOPMENT_CLUSTER):
    raise pytest.UsageError(
        "the cluster tests break things on purpose and need a cluster of their own: run make test-e2e, or set E2E_CLUSTER to "
        f"the name of a kind cluster that make test-e2e KEEP=1 has kept; the cluster of make kind-up, {DEVELOPMENT_CLUSTER}, "
        "is refused"
    )
CLUSTER = KindCluster(os.environ["E2E_CLUSTER"], os.environ.get("E2E_UI_PORT") or E2E_UI_PORT)
DEPLOYMENT = CLUSTER.deployment
# The tests give the seconds of a machine that does nothing else. One that is half as fast, or busy, must not fail them: what
# has to happen within a limit is compared with the clock.
PATIENCE = 2.5
STEP_SELECTOR = "app.kubernetes.io/component=step"


def wait_until(description: str, condition: Callable[[], Any], timeout: float) -> Any:
    """Return what `condition` returns once it is true; fail after `timeout` seconds, or more: see PATIENCE."""
    timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.5)
    pytest.fail(f"timed out after {timeout:.0f} s waiting for {description}")


def kubectl(*arguments: str, input: str | None = None) -> str:
    return DEPLOYMENT.kubectl(*arguments, timeout=120, input=input)


def list_pods(selector: str = STEP_SELECTOR, deployment: Deployment = DEPLOYMENT) -> list[Pod]:
    """Return the pods of the deployment's namespace that have these labels."""
    path = f"/api/v1/namespaces/{deployment.namespace}/pods?labelSelector={quote(selector)}"
    pods: list[Pod] = kubernetes_api.request(deployment.context, path)["items"]
    return pods


def list_running_pods(selector: str, deployment: Deployment = DEPLOYMENT) -> list[Pod]:
    """Return those of the pods that are running."""
    return [pod for pod in list_pods(selector, deployment) if pod["status"]["phase"] == "Running"]


@pytest.fixture(scope="session")
def pod_watch() -> Iterator[PodWatch]:
    """Every pod of the namespace that has existed since the tests began."""
    with DEPLOYMENT.watch_pods() as watch:
        yield watch


def step_pods(watch: PodWatch, dag_id: str, run_id: str) -> list[Pod]:
    """Return the pods of a run's steps."""
    return watch.select({"dag_id": dag_id, "run_id": run_id, "app.kubernetes.io/component": "step"})


def worker_pods(watch: PodWatch, dag_id: str, run_id: str) -> list[Pod]:
    """Return the worker pods of a run."""
    return watch.select({"dag_id": dag_id, "run_id": run_id, "component": "worker"})


@pytest.fixture(scope="session")
def airflow() -> AirflowClient:
    return CLUSTER.airflow


@pytest.fixture(scope="session")
def bucket() -> Iterator[Store]:
    """The artifacts in the bucket, through a forwarded port."""
    with DEPLOYMENT.port_forward("bucket", 7070) as url:
        os.environ |= DEPLOYMENT.read_secret("bucket") | {"AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1"}
        yield Store("s3://market/artifacts")


def list_artifacts(bucket: Store) -> list[str]:
    """Return the objects of market_daily's artifacts, without those of the drills and the monitor, which change meanwhile."""
    return [name for name in bucket.list("") if not name.startswith(("monitor/", "drills/"))]


def start_run(airflow: AirflowClient, dag_id: str, run_id: str, logical_date: str | None = None) -> None:
    """Trigger a run; it replaces one of the same name, which exists on a cluster that was kept."""
    airflow.unpause_dag(dag_id)
    try:
        airflow.trigger_dag(dag_id, run_id, logical_date)
    except ConflictError:
        airflow.request("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": "failed"})  # a running one cannot be deleted
        airflow.request("DELETE", f"/dags/{dag_id}/dagRuns/{run_id}")
        airflow.trigger_dag(dag_id, run_id, logical_date)


def start_run_once(airflow: AirflowClient, dag_id: str, run_id: str) -> None:
    """Trigger a run unless it exists."""
    airflow.unpause_dag(dag_id)
    with suppress(ConflictError):
        airflow.trigger_dag(dag_id, run_id)


def count_airflow_errors(bucket: Store, dag_id: str, run_id: str) -> Counter[str]:
    """Return how many attempts of each task Airflow itself has failed, by task: a busy API server, a worker that was lost.

    They are retried by another count than a step's own failures, whose records have the number of the attempt.
    """
    records = [json.loads(bucket.read(name) or b"") for name in bucket.list(paths.failures(dag_id, run_id))]
    return Counter(record["task_id"] for record in records if record["attempt"] is None)


def get_states(airflow: AirflowClient, dag_id: str, run_id: str) -> dict[str, str]:
    return {task_id: ti["state"] for task_id, ti in airflow.get_task_instances(dag_id, run_id).items()}


def wait_for_run(airflow: AirflowClient, dag_id: str, run_id: str, timeout: float) -> str:
    """Return the run's state once it has finished."""

    def get_final_state() -> str | None:
        state: str = airflow.get_run(dag_id, run_id)["state"]
        return state if state in FINISHED_STATES else None

    result: str = wait_until(f"the run {run_id} of {dag_id}", get_final_state, timeout)
    return result


def wait_for_log(airflow: AirflowClient, dag_id: str, run_id: str, task_id: str, text: str, try_number: int = 1) -> str:
    """Return the log of a task that has finished, with `text` in it. It reaches the bucket a moment after the state is set."""
    logs: list[str] = []

    def contains_text() -> bool:
        logs.append(airflow.get_log(dag_id, run_id, task_id, try_number))
        return text in logs[-1]

    try:
        wait_until(f"{text!r} in the log of {task_id}", contains_text, 30)
    except pytest.fail.Exception as error:
        pytest.fail(f"{error}; the log is:\n{logs[-1]}")
    return logs[-1]
