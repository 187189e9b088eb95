"""Run a DAG and print the progress of its tasks on the terminal."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from devtools import container_images
from devtools.airflow_client import AirflowClient, ConflictError
from devtools.commands import ToolError
from devtools.deployment import Deployment

RUN_TIMEOUT_SECONDS = 600
LOG_LINES = 12


def run_dag(
    airflow: AirflowClient, dag_id: str, run_id: str, logical_date: str | None = None, conf: dict[str, str] | None = None
) -> None:
    """Trigger a run unless it exists, and print each task's state changes until it has finished.

    A run that exists and failed is cleared. Raises ToolError unless the run succeeds.
    """
    try:
        airflow.trigger_dag(dag_id, run_id, logical_date, conf)
    except ConflictError:
        state = airflow.get_run(dag_id, run_id)["state"]
        print(f"{dag_id}: run {run_id} exists, state {state}")
        if state == "failed":
            airflow.clear_run(dag_id, run_id)
    started = time.monotonic()
    for task_id, state in airflow.watch_task_states(dag_id, run_id, RUN_TIMEOUT_SECONDS):
        print(f"  {time.monotonic() - started:5.1f} s  {task_id:<16} {state}", flush=True)
        if state in ("up_for_retry", "failed"):
            try_number = airflow.get_task_instances(dag_id, run_id)[task_id]["try_number"]
            log = airflow.get_log(dag_id, run_id, task_id, try_number)
            print("\n".join(f"      {line}" for line in log.splitlines()[-LOG_LINES:]), flush=True)
    if (state := airflow.get_run(dag_id, run_id)["state"]) != "success":
        raise ToolError(f"the run {run_id} of {dag_id} finished as {state}: see the logs of its tasks in the UI")


def unpause_parsed_dag(deployment: Deployment, airflow: AirflowClient, dag_id: str) -> None:
    """Wait until the current DAG processor has parsed the DAG, then unpause it."""
    processor = ("get", "pods", "--selector=component=dag-processor", "--output=jsonpath={.items[*].status.startTime}")
    started = max(datetime.fromisoformat(start) for start in deployment.kubectl(*processor).split())
    airflow.wait_until_parsed(dag_id, started)
    airflow.unpause_dag(dag_id)


def run_smoke_test(deployment: Deployment) -> None:
    """Run the DAG market_smoke, which runs every program once on the sample. Raises ToolError if it fails."""
    with deployment.port_forward("airflow-api-server", 8080) as url:
        airflow = AirflowClient(url, "admin", deployment.read_secret("airflow-admin")["password"])
        unpause_parsed_dag(deployment, airflow, "market_smoke")
        run_dag(airflow, "market_smoke", f"smoke__{container_images.get_commit()}__{datetime.now(UTC):%Y%m%dT%H%M%S}")
