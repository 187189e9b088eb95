"""Schedules steps with Airflow's own scheduling of a run, on a real database.

A program: reads Airflow's settings from the environment, prints each task's state in two runs as JSON on its last line. The
task of the first run has failed before the second run is scheduled.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pendulum
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType

DAG_FILE = """
from datetime import datetime
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Asset
from airflow_steps.indexes import add_for_each_index
from airflow_steps.operator import StepOperator

CASES = {
    "plain": {},
    "mapped": {},
    "in_a_mapped_group": {},
    "pool": {"pool": "small"},
    "max_active_tis_per_dag": {"max_active_tis_per_dag": 1},
    "outlets": {"outlets": [Asset("s3://market/models")]},
    "on_execute_callback": {"on_execute_callback": print},
    "on_success_callback": {"on_success_callback": print},
    "on_skipped_callback": {"on_skipped_callback": print},
    "post_execute": {"post_execute": print},
    "executor": {"executor": "LocalExecutor"},
    "queue": {"queue": "other"},
    "depends_on_past": {"depends_on_past": True},
    "wait_for_downstream": {"wait_for_downstream": True},
    "start_date": {"start_date": datetime(2026, 3, 21)},
    "end_date": {"end_date": datetime(2026, 3, 20)},
    "trigger_rule": {"trigger_rule": "one_failed"},
}
for name, arguments in CASES.items():
    with DAG(name, schedule=None, start_date=datetime(2026, 1, 1)):
        first = EmptyOperator(task_id="first", trigger_rule="always")
        common = {"task_id": "step", "program": "collector", "step": "decide"}
        if name == "mapped":
            step = StepOperator.partial(**common).expand(options=[{"symbol": "KS11"}, {"symbol": "KQ11"}])
        elif name == "in_a_mapped_group":
            add_for_each_index(["KS11", "KQ11"], lambda: StepOperator(**common, options={}), tooltip="")
        else:
            step = StepOperator(**common, options={}, **arguments)
        if name == "trigger_rule":
            first >> step
"""
BUNDLE_NAME = "dags-folder"


def write_dags(folder: Path) -> list[str]:
    """Write the DAGs to the database, as the DAG processor does. Return their ids."""
    folder.mkdir(parents=True)
    (folder / "steps.py").write_text(DAG_FILE)
    bag = DagBag(folder, bundle_path=folder, bundle_name=BUNDLE_NAME)
    assert not bag.import_errors, bag.import_errors
    with create_session() as session:
        session.add(DagBundleModel(name=BUNDLE_NAME))
        session.flush()
        sync_bag_to_db(bag, BUNDLE_NAME, None, session=session)
    return list(bag.dags)


def schedule_run(dag_id: str, day: int) -> list[str]:
    """Create the day's run and schedule its tasks, as the scheduler does. Return the states of the step's task instances."""
    date = pendulum.datetime(2026, 3, day, tz="UTC")
    with create_session() as session:
        dag = SerializedDagModel.get(dag_id, session=session).dag  # type: ignore[union-attr]
        run: DagRun = dag.create_dagrun(
            run_id=f"day-{day}",
            logical_date=date,
            data_interval=(date, date),
            run_after=date,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=session,
        )
        run.dag = dag
        for _ in range(2):  # once more for tasks that follow on others
            schedulable, _callback = run.update_state(session=session, execute_callbacks=False)
            run.schedule_tis(schedulable, session=session)
            session.flush()
            session.expire_all()
            run.dag = dag
        tis = [ti for ti in run.get_task_instances(session=session) if ti.task_id == "step"]
        states = [str(ti.state) for ti in tis]
        for ti in tis:
            ti.set_state(TaskInstanceState.FAILED, session=session)
    return states


def main(folder: Path) -> None:
    """Print the states, by DAG and day."""
    states = {dag_id: [schedule_run(dag_id, day) for day in (20, 21)] for dag_id in write_dags(folder)}
    print(json.dumps(states))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
