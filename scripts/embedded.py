"""One run of the DAG inside this process, told as it goes. Import it only once Airflow's environment is set."""

from __future__ import annotations

import os
import subprocess
import textwrap
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any, TextIO

from airflow.dag_processing.dagbag import DagBag
from airflow.listeners import hookimpl
from airflow.models.xcom import XComModel
from airflow.sdk.listener import get_listener_manager
from airflow.utils.session import create_session
from sqlalchemy import select
from step_contract.commit import open_artifact
from step_contract.paths import MANIFEST
from step_contract.store import Store
from step_contract.tables import PLOT_FILE

DAGS = Path(__file__).resolve().parent.parent / "dags"
DAG_ID = "market_daily"


class Progress:
    """Tells each task's start and end, as an Airflow listener, and remembers why a task failed."""

    def __init__(self, terminal: TextIO) -> None:
        self.terminal = terminal
        self.errors: dict[str, str] = {}
        self.started: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def line(self, task: str, what: str) -> None:
        clock = f"{datetime.now():%H:%M:%S}" if task else ""  # noqa: DTZ005 the user's own clock
        print(f"  {clock:<8}  {task:<16} {what}", file=self.terminal)

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        self.started[task_instance.task_id] = time.monotonic()
        self.line(task_instance.task_id, "running")

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        self._ended(task_instance.task_id, "success", told_by(task_instance.task_id))

    @hookimpl
    def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
        self._ended(task_instance.task_id, "skipped")

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        self.errors[task_instance.task_id] = str(error)
        self._ended(task_instance.task_id, "failed")

    def _ended(self, task: str, state: str, told: str = "") -> None:
        self.seconds[task] = time.monotonic() - self.started[task]
        self.line(task, f"{state}, {self.seconds[task]:.1f} s")
        for line in textwrap.wrap(told, width=90):
            self.line("", f"  {line}")


def run(session: date, terminal: TextIO, history: subprocess.Popen[str], log: Path) -> int:
    """Runs the DAG for `session` and tells about it on `terminal`; returns the exit code."""
    bag = DagBag(DAGS)
    if DAG_ID not in bag.dags:
        print(f"dags/ cannot be loaded: {bag.import_errors}", file=terminal)
        return 1
    dag = bag.dags[DAG_ID]
    progress = Progress(terminal)
    get_listener_manager().add_listener(progress)
    told, problem = history.communicate()
    if history.returncode:
        print(problem.strip(), file=terminal)
        return history.returncode
    print(f"history: {told.strip()}", file=terminal)

    noon = datetime.combine(session, datetime.min.time(), dag.timezone).replace(hour=12)  # any time of the day will do
    dag_run = dag.test(logical_date=noon)

    with create_session() as database:
        instances = {instance.task_id: instance for instance in dag_run.get_task_instances(session=database)}
    manifests = {task: uri for task, uri in pushed("return_value").items() if str(uri).endswith(MANIFEST)}
    root = Store(os.environ["ARTIFACTS"]).root
    print(f"\n{'task':<17}{'state':<17}{'seconds':>7}  artifact", file=terminal)
    for task in dag.topological_sort():
        instance = instances[task.task_id]
        seconds = f"{progress.seconds[task.task_id]:.1f}" if task.task_id in progress.seconds else ""
        artifact = manifests.get(task.task_id, "").removeprefix(f"{root}/")
        print(f"{task.task_id:<17}{instance.state or 'not run':<17}{seconds:>7}  {artifact}", file=terminal)
    print(f"\nsession {session}: {dag_run.state}; artifacts: {root}; log: {log}", file=terminal)
    for error in progress.errors.values():
        print(error, file=terminal)
    if "plot" in manifests:
        print(f"plot: {picture(manifests['plot'])}", file=terminal)
    return 0 if dag_run.state == "success" else 1


def pushed(key: str) -> dict[str, Any]:
    """What each task of the run has pushed as the XCom `key`."""
    with create_session() as database:
        rows = database.execute(select(XComModel.task_id, XComModel.value).where(XComModel.key == key)).all()
        return {row.task_id: XComModel.deserialize_value(row) for row in rows}


def told_by(task: str) -> str:
    """What the task's step has to tell a person; empty for a task that is no step."""
    return str(pushed("facts").get(task, {}).get("told", ""))


def picture(manifest_uri: str) -> str:
    """Where the picture of the plot's artifact lies: a path on this machine, or the object's URI."""
    manifest, _ = open_artifact(manifest_uri)
    return f"{manifest_uri.rpartition('/')[0]}/{manifest.file(PLOT_FILE).path}".removeprefix("file://")
