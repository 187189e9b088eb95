"""Runs of DAGs, followed by a person at a terminal."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from devtools import container_images
from devtools.airflow_client import AirflowClient, ConflictError
from devtools.commands import ToolError
from devtools.deployment import Deployment

RUN_SECONDS = 600
LOG_LINES = 12


def follow(
    airflow: AirflowClient, dag: str, name: str, logical_date: str | None = None, conf: dict[str, str] | None = None
) -> None:
    """Runs the DAG, telling each task's state; raises ToolError unless it ends well. A run that is there is not made again."""
    try:
        airflow.trigger(dag, name, logical_date, conf)
    except ConflictError:
        before = airflow.run(dag, name)["state"]
        print(f"{dag}: the run {name} is there already: {before}")
        if before == "failed":
            airflow.clear(dag, name)
    started = time.monotonic()
    for task, state in airflow.follow(dag, name, RUN_SECONDS):
        print(f"  {time.monotonic() - started:5.1f} s  {task:<16} {state}", flush=True)
        if state in ("up_for_retry", "failed"):
            log = airflow.log(dag, name, task, airflow.tasks(dag, name)[task]["try_number"])
            print("\n".join(f"      {line}" for line in log.splitlines()[-LOG_LINES:]), flush=True)
    if (state := airflow.run(dag, name)["state"]) != "success":
        raise ToolError(f"the run {name} of {dag} ended as {state}: its tasks' logs in the UI say why")


def wait_for_dags(target: Deployment, airflow: AirflowClient, dag: str) -> None:
    """Waits until the DAG processor that runs now has parsed the DAG, and lets the DAG run."""
    processor = ("get", "pods", "--selector=component=dag-processor", "--output=jsonpath={.items[*].status.startTime}")
    airflow.unpause(dag, max(datetime.fromisoformat(start) for start in target.kubectl(*processor).split()))


def smoke(target: Deployment) -> None:
    """Runs every program once on the sample; raises ToolError where the deployment does not do that."""
    with target.forward("airflow-api-server", 8080) as url:
        airflow = AirflowClient(url, "admin", target.secret("airflow-admin")["password"])
        wait_for_dags(target, airflow, "market_smoke")
        follow(airflow, "market_smoke", f"smoke__{container_images.commit()}__{datetime.now(UTC):%Y%m%dT%H%M%S}")
