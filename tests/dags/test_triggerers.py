"""The project's triggerer processes: what a step costs, and that none is lost or doubled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow_steps.operator import StepOperator
from airflow_steps.triggerer import has_success_callback, select_task

HERE = Path(__file__).parent
SETTINGS = {
    "AIRFLOW__API_AUTH__JWT_SECRET": "not-a-secret-of-anyone",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__TRIGGERER__BLOCKED_MAIN_THREAD_WARNING_THRESHOLD": "0.3",
    # The triggers of a triggerer that was killed are reassigned after so many seconds.
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "STEP_RUNNER": "triggerer",
    "COLLECTOR_IMAGE": "collector:1",
    "STEP_NAMESPACE": "steps",
    "STEP_MAX_PODS": "16",
}


def serialize_dag(monkeypatch: pytest.MonkeyPatch, steps: int, **arguments: Any) -> dict[str, Any]:
    for name in ("STEP_RUNNER", "COLLECTOR_IMAGE", "STEP_NAMESPACE"):
        monkeypatch.setenv(name, SETTINGS[name])
    with DAG("wide", schedule=None, start_date=datetime(2026, 1, 1)) as dag:  # noqa: DTZ001 as DAG files have it
        tasks = [
            StepOperator(program="collector", step="decide", task_id=f"step_{number:04}", options={}, **arguments)
            for number in range(steps)
        ]
        for task, following in pairwise(tasks):
            task >> following
    data: dict[str, Any] = DagSerialization.to_dict(dag)
    return data


def test_a_trigger_costs_the_same_in_a_dag_of_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [len(json.dumps(select_task(serialize_dag(monkeypatch, steps), "step_0001"))) for steps in (2, 200)]
    assert sizes[1] <= sizes[0] * 1.05


def test_the_reduced_dag_has_the_task_as_airflow_serialized_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = serialize_dag(monkeypatch, 3)
    [whole], [reduced] = (
        [task for task in DagSerialization.from_dict(dag).tasks if task.task_id == "step_0001"]
        for dag in (data, select_task(data, "step_0001"))
    )
    assert reduced.start_from_trigger and reduced.start_trigger_args == whole.start_trigger_args
    assert reduced.template_fields == whole.template_fields
    assert DagSerialization.from_dict(select_task(data, "no_such_task")).tasks == []
    assert len(data["dag"]["tasks"]) == 3 and data["dag"]["tasks"][0]["__var"]["downstream_task_ids"]


@pytest.mark.parametrize(("arguments", "expected"), [({}, False), ({"on_success_callback": print}, True)])
def test_a_success_callback_is_recognized(monkeypatch: pytest.MonkeyPatch, arguments: Any, expected: bool) -> None:
    assert has_success_callback(serialize_dag(monkeypatch, 1, **arguments)) is expected


def test_airflows_runner_has_what_the_project_extends() -> None:
    for name in ("cancel_triggers", "create_triggers", "cleanup_finished_triggers", "sync_state_to_supervisor"):
        assert callable(getattr(TriggerRunner, name))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_steps_deferred_at_once_survive_the_death_of_a_triggerer(postgres: str, tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    locations = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres,
        "ARTIFACTS": f"file://{tmp_path}/artifacts",
    }
    command = [sys.executable, str(HERE / "run_triggerers.py"), str(tmp_path), "--steps=40", "--triggerers=2", "--kill=1"]
    done = subprocess.run(command, env=inherited | locations | SETTINGS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["deferred"] == 40 and outcome["states"] == {"success": 40}
    assert outcome["created"] == outcome["distinct"] == 40
    assert outcome["peak_pods"] <= 32
