"""A triggerer that is killed while a step runs."""

from __future__ import annotations

from devtools.airflow_client import AirflowClient
from devtools.pods import PodWatch

from ..conftest import kubectl, list_running_pods, start_run, step_pods, wait_for_log, wait_for_run, wait_until


def test_triggerers_killed_twice_lose_and_double_no_step_and_no_line(airflow: AirflowClient, pod_watch: PodWatch) -> None:
    start_run(airflow, "drill_long", "killed")
    wait_until("the running pod", lambda: list_running_pods("dag_id=drill_long,run_id=killed"), 60)
    wait_until("its live log", lambda: "second 3" in airflow.get_log("drill_long", "killed", "long"), 30)
    for second in (10, 20):
        line = f"second {second}"
        kubectl("delete", "pods", "--selector=component=triggerer", "--force", "--grace-period=0")
        wait_until("its live log", lambda line=line: line in airflow.get_log("drill_long", "killed", "long"), 90)  # type: ignore[misc]
    assert wait_for_run(airflow, "drill_long", "killed", 180) == "success"
    [ti] = airflow.get_task_instances("drill_long", "killed").values()
    assert ti["try_number"] == 1
    assert len(step_pods(pod_watch, "drill_long", "killed")) == 1
    wait_for_log(airflow, "drill_long", "killed", "long", "second 40")
    log = airflow.get_log("drill_long", "killed", "long")
    assert [log.count(f"second {second}\n") for second in range(1, 41)] == [1] * 40
