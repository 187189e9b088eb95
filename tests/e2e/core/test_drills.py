"""What must not happen: a second pod of one try, a lost step, a pod that stays, a silent failure."""

from __future__ import annotations

import platform

import pytest
from devtools.airflow_client import AirflowClient

from ..conftest import Watched, kubectl, pods_now, running, start, states, wait_for_end, wait_for_log, wait_until

pytestmark = pytest.mark.drills
ENDED = ("success", "failed", "skipped", "up_for_retry")


def one_pod_of_the_try(watched: Watched, dag: str, run: str, number: int) -> bool:
    tries = [pod["metadata"]["labels"]["try_number"] for pod in watched.steps(dag, run)]
    return tries.count(str(number)) == 1


@pytest.fixture(scope="module", autouse=True)
def drills(airflow: AirflowClient, watched: Watched) -> None:
    """Starts what needs no hand; the tests look at it later."""
    start(airflow, "drill_runners", "drill")
    start(airflow, "drill_timeout", "drill")


def test_a_pod_goes_when_its_task_is_marked_and_a_cleared_tasks_with_it(airflow: AirflowClient, watched: Watched) -> None:
    for run in ("marked", "cleared", "deleted"):
        start(airflow, "drill_long", run)
    for run in ("marked", "cleared", "deleted"):
        wait_until(f"{run} running", lambda run=run: running("drill_long", run), 60)  # type: ignore[misc]
    airflow.call("PATCH", "/dags/drill_long/dagRuns/marked/taskInstances/long", {"new_state": "failed"})
    airflow.clear("drill_long", "cleared")
    kubectl("delete", "pods", "--selector=run_id=deleted", "--wait=false")
    wait_until("the marked task's pod is gone", lambda: not running("drill_long", "marked"), 60)
    for run in ("cleared", "deleted"):
        assert wait_for_end(airflow, "drill_long", run, 180) == "success"
        [instance] = airflow.tasks("drill_long", run).values()
        assert instance["try_number"] == 2
        assert one_pod_of_the_try(watched, "drill_long", run, 1)
        assert one_pod_of_the_try(watched, "drill_long", run, 2)
    wait_for_log(airflow, "drill_long", "deleted", "long", "its pod was deleted")
    assert states(airflow, "drill_long", "marked") == {"long": "failed"}
    assert len(watched.steps("drill_long", "marked")) == 1


def test_a_step_ends_the_same_way_from_the_triggerer_and_from_a_worker(airflow: AirflowClient) -> None:
    wait_until("all ended", lambda: all(state in ENDED for state in states(airflow, "drill_runners", "drill").values()), 180)
    found = states(airflow, "drill_runners", "drill")
    expected = {"done": "success", "wrong": "failed", "later": "up_for_retry", "fault": "up_for_retry", "nothing": "skipped"}
    for runner in ("triggerer", "worker"):
        assert {end: found[f"{end}_{runner}"] for end in expected} == expected
        assert airflow.xcom("drill_runners", "drill", f"done_{runner}").endswith(f"/done-{runner}/manifest.json")
        assert airflow.xcom("drill_runners", "drill", f"done_{runner}", "facts")["host"].startswith("drill-runners-done-")
        wait_for_log(airflow, "drill_runners", "drill", f"wrong_{runner}", "ends with 65 as it was told to")
    # Not before: what the stock way runs does not wait for the quota.
    start(airflow, "drill_failures", "drill")


def test_a_step_that_outlives_its_limit_is_ended_and_told(airflow: AirflowClient) -> None:
    assert wait_for_end(airflow, "drill_timeout", "drill", 120) == "failed"
    wait_for_log(airflow, "drill_timeout", "drill", "late", "DeadlineExceeded")
    assert not running("drill_timeout", "drill")


def test_each_failure_ends_in_its_own_way_and_says_what_happened(airflow: AirflowClient) -> None:
    """State, tries, and what the last try's log says."""
    expected = {
        "memory_triggerer": ("success", 2, "it gets 256Mi, not 128Mi"),
        "memory_worker": ("success", 2, "it gets 256Mi, not 128Mi"),
        "crash": ("failed", 2, f"signal SIGSEGV; image {platform.machine()}, node {platform.machine()}"),
        "refused": ("failed", 1, 'violates PodSecurity "restricted:latest"'),
        "unpullable": ("failed", 1, "nowhere.invalid/no-such-image"),
        "programless": ("failed", 1, "/no/such/program"),
        "unschedulable": ("failed", 1, "didn't match Pod's node affinity/selector"),
    }
    assert wait_for_end(airflow, "drill_failures", "drill", 300) == "failed"
    found = airflow.tasks("drill_failures", "drill")
    assert {task: (found[task]["state"], found[task]["try_number"]) for task in expected} == {
        task: (state, tries) for task, (state, tries, _) in expected.items()
    }
    for task, (_, tries, told) in expected.items():
        wait_for_log(airflow, "drill_failures", "drill", task, told, tries)
    wait_for_log(airflow, "drill_failures", "drill", "memory_triggerer", "OOMKilled: out of memory. Give it more", 1)


def test_of_a_hundred_steps_at_once_no_more_run_than_the_setting_says(airflow: AirflowClient, watched: Watched) -> None:
    start(airflow, "drill_many", "drill")
    most = 0

    def ended() -> bool:
        nonlocal most
        now = pods_now("dag_id=drill_many")
        most = max(most, sum(pod["status"]["phase"] in ("Pending", "Running") for pod in now))
        return airflow.run("drill_many", "drill")["state"] in ("success", "failed")

    wait_until("a hundred steps", ended, 300)
    assert set(states(airflow, "drill_many", "drill").values()) == {"success"}
    assert 4 <= most <= 8
    assert len(watched.steps("drill_many", "drill")) == 101
    logs = (airflow.log("drill_many", "drill", f"step_{number:03}") for number in reversed(range(100)))
    assert any("waits for one of 8 slots" in log for log in logs)
