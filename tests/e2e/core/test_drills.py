"""Failures on purpose: no attempt gets a second pod, no step is lost, no pod stays, every failure is explained."""

from __future__ import annotations

import platform

import pytest
from airflow_api import Airflow

from ..conftest import Watched, kubectl, pods_now, running, start, states, wait_for_end, wait_for_log, wait_until

pytestmark = pytest.mark.drills
FINISHED_STATES = ("success", "failed", "skipped", "up_for_retry")


def has_one_pod(watched: Watched, dag: str, run: str, number: int) -> bool:
    try_numbers = [pod["metadata"]["labels"]["try_number"] for pod in watched.steps(dag, run)]
    return try_numbers.count(str(number)) == 1


@pytest.fixture(scope="module", autouse=True)
def drills(airflow: Airflow, watched: Watched) -> None:
    """Start the runs that need no intervention; later tests check them."""
    start(airflow, "drill_runners", "drill")
    start(airflow, "drill_timeout", "drill")


def test_setting_a_state_or_clearing_a_task_deletes_its_pod(airflow: Airflow, watched: Watched) -> None:
    for run in ("marked", "cleared", "deleted"):
        start(airflow, "drill_long", run)
    for run in ("marked", "cleared", "deleted"):
        wait_until(f"{run} running", lambda run=run: running("drill_long", run), 60)  # type: ignore[misc]
    airflow.call("PATCH", "/dags/drill_long/dagRuns/marked/taskInstances/long", {"new_state": "failed"})
    airflow.clear("drill_long", "cleared")
    kubectl("delete", "pods", "--selector=run_id=deleted", "--wait=false")
    wait_until("the pod of the failed task is deleted", lambda: not running("drill_long", "marked"), 60)
    for run in ("cleared", "deleted"):
        assert wait_for_end(airflow, "drill_long", run, 180) == "success"
        [instance] = airflow.tasks("drill_long", run).values()
        assert instance["try_number"] == 2
        assert has_one_pod(watched, "drill_long", run, 1)
        assert has_one_pod(watched, "drill_long", run, 2)
    wait_for_log(airflow, "drill_long", "deleted", "long", "its pod was deleted")
    assert states(airflow, "drill_long", "marked") == {"long": "failed"}
    assert len(watched.steps("drill_long", "marked")) == 1


def test_triggerer_and_worker_give_a_step_the_same_outcome(airflow: Airflow) -> None:
    wait_until(
        "all finished",
        lambda: all(state in FINISHED_STATES for state in states(airflow, "drill_runners", "drill").values()),
        180,
    )
    task_states = states(airflow, "drill_runners", "drill")
    expected = {
        "success": "success",
        "invalid_data": "failed",
        "source_unavailable": "up_for_retry",
        "error": "up_for_retry",
        "nothing_to_do": "skipped",
    }
    for runner in ("triggerer", "worker"):
        assert {outcome: task_states[f"{outcome}_{runner}"] for outcome in expected} == expected
        assert airflow.xcom("drill_runners", "drill", f"success_{runner}").endswith(f"/success-{runner}/manifest.json")
        assert airflow.xcom("drill_runners", "drill", f"success_{runner}", "facts")["host"].startswith("drill-runners-success-")
        wait_for_log(airflow, "drill_runners", "drill", f"invalid_data_{runner}", "exits with code 65, as requested")
    # Not before: a pod of the stock operator does not wait for the quota.
    start(airflow, "drill_failures", "drill")


def test_a_step_that_exceeds_its_timeout_is_terminated(airflow: Airflow) -> None:
    assert wait_for_end(airflow, "drill_timeout", "drill", 120) == "failed"
    wait_for_log(airflow, "drill_timeout", "drill", "late", "DeadlineExceeded")
    assert not running("drill_timeout", "drill")


def test_each_failure_has_its_state_attempts_and_message(airflow: Airflow) -> None:
    """State, number of attempts, and a part of the last attempt's log."""
    expected = {
        "memory_triggerer": ("success", 2, "memory raised from 128Mi to 256Mi"),
        "memory_worker": ("success", 2, "memory raised from 128Mi to 256Mi"),
        "crash": ("failed", 2, f"signal SIGSEGV; image {platform.machine()}, node {platform.machine()}"),
        "rejected": ("failed", 1, 'violates PodSecurity "restricted:latest"'),
        "unpullable": ("failed", 1, "nowhere.invalid/no-such-image"),
        "missing_program": ("failed", 1, "/no/such/program"),
        "unschedulable": ("failed", 1, "didn't match Pod's node affinity/selector"),
    }
    assert wait_for_end(airflow, "drill_failures", "drill", 300) == "failed"
    tasks = airflow.tasks("drill_failures", "drill")
    assert {task: (tasks[task]["state"], tasks[task]["try_number"]) for task in expected} == {
        task: (state, attempts) for task, (state, attempts, _) in expected.items()
    }
    for task, (_, attempts, message) in expected.items():
        wait_for_log(airflow, "drill_failures", "drill", task, message, attempts)
    wait_for_log(airflow, "drill_failures", "drill", "memory_triggerer", "OOMKilled: out of memory. Raise the memory", 1)


def test_of_a_hundred_steps_at_most_max_pods_run_at_once(airflow: Airflow, watched: Watched) -> None:
    start(airflow, "drill_many", "drill")
    peak = 0

    def finished() -> bool:
        nonlocal peak
        now = pods_now("dag_id=drill_many")
        peak = max(peak, sum(pod["status"]["phase"] in ("Pending", "Running") for pod in now))
        return airflow.run("drill_many", "drill")["state"] in ("success", "failed")

    wait_until("a hundred steps", finished, 300)
    assert set(states(airflow, "drill_many", "drill").values()) == {"success"}
    assert 4 <= peak <= 8
    assert len(watched.steps("drill_many", "drill")) == 101
    logs = (airflow.log("drill_many", "drill", f"step_{number:03}") for number in reversed(range(100)))
    assert any("waiting for one of 8 slots" in log for log in logs)
