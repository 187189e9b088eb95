"""A run of several indexes on the cluster: mapped tasks whose steps start from the triggerer."""

from __future__ import annotations

from typing import Any

import pytest
from devtools.airflow_client import AirflowClient
from devtools.pods import PodWatch
from step_contract.commit import open_artifact
from step_contract.store import Store

from ..conftest import start_run, step_pods, wait_for_run, wait_until, worker_pods
from ..slack_channel import get_replies, get_run_messages

DAG_ID, RUN_ID = "drill_indexes", "session__2026-02-10"
STEPS = {"decide": 2, "fetch_prices": 1, "fetch_headlines": 1, "forecast": 1}


@pytest.fixture(scope="module")
def states(airflow: AirflowClient, pod_watch: PodWatch) -> dict[tuple[str, int], str]:
    """Run it; return the state of each task instance, by task id and map index."""
    start_run(airflow, DAG_ID, RUN_ID, "2026-02-10T09:00:00Z")
    assert wait_for_run(airflow, DAG_ID, RUN_ID, 120) == "success"
    page: Any = airflow.request("GET", f"/dags/{DAG_ID}/dagRuns/{RUN_ID}/taskInstances?limit=100")
    return {(ti["task_id"], ti["map_index"]): ti["state"] for ti in page["task_instances"]}


def test_a_suspect_index_stops_no_other(states: dict[tuple[str, int], str]) -> None:
    succeeded = {key for key, state in states.items() if state == "success"}
    gate = {("is_training_day", 0), ("is_training_day", 1)}
    first = {("decide", 0), ("branch", 0), ("open", 0), ("fetch_prices", 0), ("fetch_headlines", -1)}
    assert succeeded == first | gate | {("decide", 1), ("branch", 1), ("suspect", 1)}
    # Without a past, the first has nothing to forecast from.
    assert set(states.values()) == {"success", "skipped"}


def test_its_steps_have_no_worker_pod_and_artifacts_of_their_symbols(
    states: dict[tuple[str, int], str], pod_watch: PodWatch, bucket: Store
) -> None:
    labels = [pod["metadata"]["labels"] for pod in step_pods(pod_watch, DAG_ID, RUN_ID)]
    tasks = [label["task_id"] for label in labels]
    assert {task: tasks.count(task) for task in STEPS} == STEPS and len(tasks) == sum(STEPS.values())
    assert worker_pods(pod_watch, DAG_ID, RUN_ID) == []
    root = f"{bucket.root}/drills/indexes"
    for symbol, state in (("KS11", "open"), ("KX99", "suspect")):
        uri = f"{root}/decisions/symbol={symbol}/session=2026-02-10/state={state}/manifest.json"
        assert open_artifact(uri)[0].facts["state"] == state


def test_it_is_one_message_with_a_line_for_each_index(states: dict[tuple[str, int], str]) -> None:
    def find_lines() -> list[str]:
        lines = [message["text"].splitlines() for message in get_run_messages(DAG_ID, RUN_ID)]
        return lines[0] if len(lines) == 1 and lines[0][0].startswith(":large_orange_circle:") else []

    head, *lines = wait_until("the finished run's message", find_lines, 60)
    assert head.endswith("not a training day") and "headline" in head
    assert lines[0].startswith("*KS11*  closed at ") and lines[1].startswith("*KX99*  suspect: ") and len(lines) == 2
    alerts = [reply["text"] for reply in get_replies(DAG_ID, RUN_ID) if "is suspect" in reply["text"]]
    assert len(alerts) == 1 and "KX99" in alerts[0]
