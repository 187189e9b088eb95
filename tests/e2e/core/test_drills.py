"""Drills: failures must not cause a second pod of one attempt, a lost step, a pod that is not deleted, or a silent failure."""

from __future__ import annotations

import platform

import pytest
from devtools.airflow_client import FINISHED_STATES, AirflowClient
from devtools.pods import PodWatch
from step_contract.store import Store

from ..conftest import (
    count_airflow_errors,
    get_states,
    kubectl,
    list_pods,
    list_running_pods,
    start_run,
    step_pods,
    wait_for_log,
    wait_for_run,
    wait_until,
)

pytestmark = pytest.mark.drills
SETTLED_STATES = ("success", "failed", "skipped", "up_for_retry")


def has_one_pod(pod_watch: PodWatch, dag_id: str, run_id: str, try_number: int) -> bool:
    """Return whether the attempt has had exactly one pod."""
    attempts = [pod["metadata"]["labels"]["try_number"] for pod in step_pods(pod_watch, dag_id, run_id)]
    return attempts.count(str(try_number)) == 1


@pytest.fixture(scope="module", autouse=True)
def drills(airflow: AirflowClient, pod_watch: PodWatch) -> None:
    """Start the runs that need no interaction; the tests check them later."""
    start_run(airflow, "drill_runners", "drill")
    start_run(airflow, "drill_timeout", "drill")
    start_run(airflow, "drill_oddities", "drill")


def test_marking_or_clearing_a_task_deletes_its_pod(airflow: AirflowClient, pod_watch: PodWatch) -> None:
    for run in ("marked", "cleared", "deleted"):
        start_run(airflow, "drill_long", run)
    for run in ("marked", "cleared", "deleted"):
        wait_until(f"a running pod of {run}", lambda run=run: list_running_pods(f"dag_id=drill_long,run_id={run}"), 60)  # type: ignore[misc]
    airflow.request("PATCH", "/dags/drill_long/dagRuns/marked/taskInstances/long", {"new_state": "failed"})
    airflow.clear_run("drill_long", "cleared")
    kubectl("delete", "pods", "--selector=run_id=deleted", "--wait=false")
    wait_until("the deletion of the marked task's pod", lambda: not list_running_pods("dag_id=drill_long,run_id=marked"), 60)
    for run in ("cleared", "deleted"):
        assert wait_for_run(airflow, "drill_long", run, 180) == "success"
        [ti] = airflow.get_task_instances("drill_long", run).values()
        assert ti["try_number"] == 2
        assert has_one_pod(pod_watch, "drill_long", run, 1)
        assert has_one_pod(pod_watch, "drill_long", run, 2)
    wait_for_log(airflow, "drill_long", "deleted", "long", "its pod was deleted")
    assert get_states(airflow, "drill_long", "marked") == {"long": "failed"}
    assert len(step_pods(pod_watch, "drill_long", "marked")) == 1


def test_triggerer_and_worker_give_the_same_outcomes(airflow: AirflowClient) -> None:

    def are_settled() -> bool:
        return all(state in SETTLED_STATES for state in get_states(airflow, "drill_runners", "drill").values())

    wait_until("the outcome of all tasks", are_settled, 180)
    states = get_states(airflow, "drill_runners", "drill")
    expected = {
        "success": "success",
        "invalid_data": "failed",
        "source_unavailable": "up_for_retry",
        "error": "up_for_retry",
        "nothing_to_do": "skipped",
    }
    for runner in ("triggerer", "worker"):
        assert {outcome: states[f"{outcome}_{runner}"] for outcome in expected} == expected
        assert airflow.get_xcom("drill_runners", "drill", f"success_{runner}").endswith(f"/success-{runner}/manifest.json")
        assert airflow.get_xcom("drill_runners", "drill", f"success_{runner}", "facts")["host"].startswith(
            "drill-runners-success-"
        )
        wait_for_log(airflow, "drill_runners", "drill", f"invalid_data_{runner}", "exits with code 65, as requested")
    start_run(airflow, "drill_failures", "drill")


def test_a_step_that_exceeds_its_timeout_is_stopped_and_fails(airflow: AirflowClient) -> None:
    assert wait_for_run(airflow, "drill_timeout", "drill", 120) == "failed"
    wait_for_log(airflow, "drill_timeout", "drill", "late", "DeadlineExceeded")
    assert not list_running_pods("dag_id=drill_timeout,run_id=drill")


def test_chatty_steps_sidecars_and_failed_triggers_lose_no_step(airflow: AirflowClient, pod_watch: PodWatch) -> None:
    assert wait_for_run(airflow, "drill_oddities", "drill", 240) == "success"
    tis = airflow.get_task_instances("drill_oddities", "drill")
    assert {ti["try_number"] for ti in tis.values()} == {1}
    assert len(step_pods(pod_watch, "drill_oddities", "drill")) == len(tis)
    # The pod with a sidecar is deleted, although the sidecar would sleep on.
    wait_until("the deletion of all pods", lambda: not list_running_pods("dag_id=drill_oddities"), 60)
    wait_for_log(airflow, "drill_oddities", "drill", "chatty", "lines omitted: the log ")
    wait_for_log(airflow, "drill_oddities", "drill", "unrendered", "the trigger failed")


def test_each_failure_has_its_state_attempts_and_log(airflow: AirflowClient, bucket: Store) -> None:
    # State, number of attempts, and a text in the last attempt's log.
    expected = {
        "memory_triggerer": ("success", 2, "memory raised from 128Mi to 256Mi"),
        "memory_worker": ("success", 2, "memory raised from 128Mi to 256Mi"),
        "crash": ("failed", 2, f"signal SIGSEGV; image {platform.machine()}, node {platform.machine()}"),
        "rejected": ("failed", 1, 'violates PodSecurity "restricted:latest"'),
        "unpullable": ("failed", 1, "nowhere.invalid/no-such-image"),
        "not_present": ("failed", 1, "ErrImageNeverPull"),
        "missing_program": ("failed", 1, "/no/such/program"),
        "unschedulable": ("failed", 1, "didn't match Pod's node affinity/selector"),
    }
    assert wait_for_run(airflow, "drill_failures", "drill", 300) == "failed"
    tis = airflow.get_task_instances("drill_failures", "drill")
    errors = count_airflow_errors(bucket, "drill_failures", "drill")
    outcomes = {task: (tis[task]["state"], tis[task]["try_number"] - errors[task]) for task in expected}
    others = [task for task, outcome in outcomes.items() if outcome != expected[task][:2]]
    attempts_of = {task: range(1, tis[task]["try_number"] + 1) for task in others}
    logs = [airflow.get_log("drill_failures", "drill", task, number) for task in others for number in attempts_of[task]]
    assert not others, f"{[(task, outcomes[task]) for task in others]}\n" + "\n\n".join(log[-3000:] for log in logs)
    for task, (_, attempts, text) in expected.items():
        wait_for_log(airflow, "drill_failures", "drill", task, text, attempts + errors[task])
    tries = range(1, tis["memory_triggerer"]["try_number"])
    advice = "OOMKilled: out of memory. Raise the memory"
    assert [True for n in tries if advice in airflow.get_log("drill_failures", "drill", "memory_triggerer", n)]


def test_at_most_step_max_pods_steps_run_at_once(airflow: AirflowClient, pod_watch: PodWatch) -> None:
    start_run(airflow, "drill_many", "drill")
    peak = 0

    def is_finished() -> bool:
        nonlocal peak
        pods = list_pods("dag_id=drill_many")
        peak = max(peak, sum(pod["status"]["phase"] in ("Pending", "Running") for pod in pods))
        return airflow.get_run("drill_many", "drill")["state"] in FINISHED_STATES

    wait_until("a hundred steps", is_finished, 300)
    assert set(get_states(airflow, "drill_many", "drill").values()) == {"success"}
    assert 4 <= peak <= 8
    assert len(step_pods(pod_watch, "drill_many", "drill")) == 101
    logs = (airflow.get_log("drill_many", "drill", f"step_{number:03}") for number in reversed(range(100)))
    assert any("waiting for one of 8 slots" in log for log in logs)
