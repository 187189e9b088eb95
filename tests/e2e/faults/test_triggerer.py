"""A triggerer that is killed while a step runs."""

from __future__ import annotations

from airflow_api import Airflow

from ..conftest import Watched, kubectl, running, start, wait_for_end, wait_for_log, wait_until


def test_a_killed_triggerer_loses_no_step_and_starts_none_twice(airflow: Airflow, watched: Watched) -> None:
    start(airflow, "drill_long", "killed")
    wait_until("running", lambda: running("drill_long", "killed"), 60)
    wait_until("its log, live", lambda: "second 3" in airflow.log("drill_long", "killed", "long"), 30)
    kubectl("delete", "pods", "--selector=component=triggerer", "--force", "--grace-period=0")
    assert wait_for_end(airflow, "drill_long", "killed", 180) == "success"
    [instance] = airflow.tasks("drill_long", "killed").values()
    assert instance["try_number"] == 1
    assert len(watched.steps("drill_long", "killed")) == 1
    wait_for_log(airflow, "drill_long", "killed", "long", "second 40")
