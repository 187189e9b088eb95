"""One run of the DAG inside this process, told as it goes. Import it only once Airflow's environment is set."""

from __future__ import annotations

import os
import subprocess
import textwrap
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TextIO

from airflow.dag_processing.dagbag import DagBag
from airflow.listeners import hookimpl
from airflow.models.xcom import XComModel
from airflow.sdk.listener import get_listener_manager
from airflow.utils.session import create_session
from airflow_steps import failure_log
from airflow_watcher.seen import Run, Task
from embedded_slack import Channel, channel
from sqlalchemy import select
from step_contract.commit import open_artifact
from step_contract.paths import MANIFEST
from step_contract.schemas import PLOT_FILE
from step_contract.store import Store

DAGS = Path(__file__).resolve().parent.parent / "dags"
DAG_ID = "market_daily"


class Progress:
    """Tells each task's start and end, as an Airflow listener, and remembers why a task failed."""

    def __init__(self, terminal: TextIO, slack: Channel) -> None:
        self.terminal, self.slack = terminal, slack
        self.run: Run | None = None
        self.tasks: dict[str, Task] = {}
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
        if self.run is None:
            of_run, now = task_instance.get_template_context()["dag_run"], datetime.now(UTC)
            self.run = Run(of_run.dag_id, of_run.run_id, "manual", "running", now, of_run.logical_date, now, now)
        self._show(task_instance, "running")

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        self._ended(task_instance, "success", told_by(task_instance.task_id))

    @hookimpl
    def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
        self._ended(task_instance, "skipped")

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        self.errors[task_instance.task_id] = str(error)
        self._ended(task_instance, "failed")

    def _ended(self, task_instance: Any, state: str, told: str = "") -> None:
        task = task_instance.task_id
        self._show(task_instance, state)
        self.seconds[task] = time.monotonic() - self.started[task]
        self.line(task, f"{state}, {self.seconds[task]:.1f} s")
        for line in textwrap.wrap(told, width=90):
            self.line("", f"  {line}")

    def _show(self, task_instance: Any, state: str) -> None:
        """Lets Slack hear of a task's new state."""
        task = task_instance.task_id
        facts, made = pushed("facts").get(task, {}), pushed("return_value").get(task)
        manifest = made if str(made).endswith(MANIFEST) else None
        picture = bool(manifest) and PLOT_FILE in {file.name for file in open_artifact(str(manifest))[0].files}
        self.tasks[task] = Task(task, state, facts=facts, manifest=manifest, picture=picture)
        self.tell("running")

    def tell(self, state: str) -> None:
        """Lets Slack hear how the run is getting on."""
        if self.run:
            ended = datetime.now(UTC) if state in ("success", "failed") else None
            # A run of the same session before this one had the same name.
            noted = failure_log.read_failures(Store(os.environ["ARTIFACTS"]), self.run.dag, self.run.run_id)
            since = self.run.due.isoformat(timespec="seconds")
            mine = [note for note in noted if note.recorded_at >= since]
            self.slack.show(replace(self.run, state=state, ended=ended, tasks=list(self.tasks.values()), notes=mine))


def run(session: date, terminal: TextIO, history: subprocess.Popen[str], log: Path) -> int:
    """Runs the DAG for `session` and tells about it on `terminal`, and to Slack; returns the exit code."""
    with channel(log.with_suffix(".slack.html")) as (slack, place):
        return _run(session, terminal, history, log, slack, place)


def _run(session: date, terminal: TextIO, history: subprocess.Popen[str], log: Path, slack: Channel, place: str) -> int:
    bag = DagBag(DAGS)
    if DAG_ID not in bag.dags:
        for file, trace in bag.import_errors.items():
            print(f"{file} cannot be loaded:\n{trace}", file=terminal)
        return 1
    dag = bag.dags[DAG_ID]
    progress = Progress(terminal, slack)
    get_listener_manager().add_listener(progress)
    told, problem = history.communicate()
    if history.returncode:
        print(problem.strip(), file=terminal)
        return history.returncode
    print(f"history: {told.strip()}", file=terminal)

    noon = datetime.combine(session, datetime.min.time(), dag.timezone).replace(hour=12)  # any time of the day will do
    dag_run = dag.test(logical_date=noon)
    progress.tell(str(dag_run.state))

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
    print(f"slack: {place}", file=terminal)
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
    return str(pushed("facts").get(task, {}).get("summary", ""))


def picture(manifest_uri: str) -> str:
    """Where the picture of the plot's artifact lies: a path on this machine, or the object's URI."""
    manifest, _ = open_artifact(manifest_uri)
    return f"{manifest_uri.rpartition('/')[0]}/{manifest.file(PLOT_FILE).path}".removeprefix("file://")
