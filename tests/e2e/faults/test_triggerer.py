"""A triggerer that is killed while a step runs."""

from __future__ import annotations

from devtools.airflow_client import AirflowClient
from devtools.pods import PodWatch

from ..conftest import kubectl, list_running_pods, start_run, step_pods, wait_for_log, wait_for_run, wait_until


def test_a_killed_triggerer_loses_and_duplicates_no_step(airflow: AirflowClient, pod_watch: PodWatch) -> None:
    start_run(airflow, "drill_long", "killed")
    wait_until("the running pod", lambda: list_running_pods("dag_id=drill_long,run_id=killed"), 60)
    wait_until("its live log", lambda: "second 3" in airflow.get_log("drill_long", "killed", "long"), 30)
    kubectl("delete", "pods", "--selector=component=triggerer", "--force", "--grace-period=0")
    assert wait_for_run(airflow, "drill_long", "killed", 180) == "success"
    [ti] = airflow.get_task_instances("drill_long", "killed").values()
    assert ti["try_number"] == 1
    assert len(step_pods(pod_watch, "drill_long", "killed")) == 1
    wait_for_log(airflow, "drill_long", "killed", "long", "second 40")
