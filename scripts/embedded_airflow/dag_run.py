"""Run the DAG in this process and print its progress. Import it only after Airflow's environment variables are set."""

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
from airflow_monitor.models import FINISHED, Run, TaskInstance
from airflow_steps.failure_log import read_failures
from devtools.commands import ROOT
from sqlalchemy import select
from step_contract.commit import open_artifact
from step_contract.facts import SummaryFacts
from step_contract.paths import MANIFEST
from step_contract.schemas import PLOT_FILE
from step_contract.store import Store

from embedded_airflow.execution_api import drop_earlier_versions
from embedded_airflow.slack_channel import Channel, open_channel

DAGS = ROOT / "dags"
DAG_ID = "market_daily"


class Progress:
    """An Airflow listener that prints each task's start and end, and posts the run's state to Slack.

    Attributes:
        errors: the error of each task that failed.
        seconds: the duration of each task that finished.
    """

    def __init__(self, terminal: TextIO, slack: Channel) -> None:
        self.terminal, self.slack = terminal, slack
        self.run: Run | None = None
        self.tasks: dict[str, TaskInstance] = {}
        self.errors: dict[str, str] = {}
        self.started: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def _print(self, task_id: str, text: str) -> None:
        clock = f"{datetime.now():%H:%M:%S}" if task_id else ""  # noqa: DTZ005 the user's time zone
        print(f"  {clock:<8}  {task_id:<16} {text}", file=self.terminal)

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """Print the start; the first task starts the run."""
        self.started[task_instance.task_id] = time.monotonic()
        self._print(task_instance.task_id, "running")
        if self.run is None:
            dag_run, now = task_instance.get_template_context()["dag_run"], datetime.now(UTC)
            self.run = Run(dag_run.dag_id, dag_run.run_id, "manual", "running", now, dag_run.logical_date, now, now)
        self._update_task(task_instance, "running")

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """Print the success and the step's summary."""
        self._finish(task_instance, "success", read_summary(task_instance.task_id))

    @hookimpl
    def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
        """Print that the task was skipped."""
        self._finish(task_instance, "skipped")

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """Print the failure and record the error."""
        self.errors[task_instance.task_id] = str(error)
        self._finish(task_instance, "failed")

    def _finish(self, task_instance: Any, state: str, summary: str = "") -> None:
        task_id = task_instance.task_id
        self._update_task(task_instance, state)
        self.seconds[task_id] = time.monotonic() - self.started[task_id]
        self._print(task_id, f"{state}, {self.seconds[task_id]:.1f} s")
        for line in textwrap.wrap(summary, width=90):
            self._print("", f"  {line}")

    def _update_task(self, task_instance: Any, state: str) -> None:
        """Record a task's state and post the run's to Slack."""
        task_id = task_instance.task_id
        facts, result = read_xcoms("facts").get(task_id, {}), read_xcoms("return_value").get(task_id)
        manifest = result if str(result).endswith(MANIFEST) else None
        picture = bool(manifest) and PLOT_FILE in {file.name for file in open_artifact(str(manifest))[0].files}
        self.tasks[task_id] = TaskInstance(task_id, state, facts=facts, manifest=manifest, has_picture=picture)
        self.post("running")

    def post(self, state: str) -> None:
        """Post the run's state to Slack."""
        if self.run:
            ended = datetime.now(UTC) if state in FINISHED else None
            # An earlier run of the same session has the same id.
            failures = read_failures(Store(os.environ["ARTIFACTS"]), self.run.dag_id, self.run.run_id)
            since = self.run.run_after.isoformat(timespec="seconds")
            failures = [failure for failure in failures if failure.recorded_at >= since]
            task_instances = list(self.tasks.values())
            self.slack.post(replace(self.run, state=state, end_date=ended, task_instances=task_instances, failures=failures))


def run(session: date, terminal: TextIO, history: subprocess.Popen[str], log: Path) -> int:
    """Run the DAG for `session`, print its progress on `terminal` and post it to Slack; return the exit code.

    Args:
        history: the process that collects the sessions before.
        log: the file that Airflow's log is written to.
    """
    with open_channel(log.with_suffix(".slack.html")) as (slack, location):
        return _run(session, terminal, history, log, slack, location)


def _run(session: date, terminal: TextIO, history: subprocess.Popen[str], log: Path, slack: Channel, location: str) -> int:
    bag = DagBag(DAGS)
    if DAG_ID not in bag.dags:
        for file, trace in bag.import_errors.items():
            print(f"cannot import {file}:\n{trace}", file=terminal)
        return 1
    dag = bag.dags[DAG_ID]
    progress = Progress(terminal, slack)
    get_listener_manager().add_listener(progress)
    summary, errors = history.communicate()
    if history.returncode:
        print(errors.strip(), file=terminal)
        return history.returncode
    print(f"history: {summary.strip()}", file=terminal)

    drop_earlier_versions()
    noon = datetime.combine(session, datetime.min.time(), dag.timezone).replace(hour=12)  # any time of the session's day
    dag_run = dag.test(logical_date=noon, run_conf={"remake": os.environ.get("REMAKE")})
    progress.post(str(dag_run.state))

    with create_session() as database:
        tis = {ti.task_id: ti for ti in dag_run.get_task_instances(session=database)}
    manifests = {task: uri for task, uri in read_xcoms("return_value").items() if str(uri).endswith(MANIFEST)}
    root = Store(os.environ["ARTIFACTS"]).root
    print(f"\n{'task':<17}{'state':<17}{'seconds':>7}  artifact", file=terminal)
    for task in dag.topological_sort():
        ti = tis[task.task_id]
        seconds = f"{progress.seconds[task.task_id]:.1f}" if task.task_id in progress.seconds else ""
        artifact = manifests.get(task.task_id, "").removeprefix(f"{root}/")
        print(f"{task.task_id:<17}{ti.state or 'not run':<17}{seconds:>7}  {artifact}", file=terminal)
    print(f"\nsession {session}: {dag_run.state}; artifacts: {root}; log: {log}", file=terminal)
    for error in progress.errors.values():
        print(error, file=terminal)
    print(f"slack: {location}", file=terminal)
    if "plot" in manifests:
        print(f"plot: {locate_plot(manifests['plot'])}", file=terminal)
    return 0 if dag_run.state == "success" else 1


def read_xcoms(key: str) -> dict[str, Any]:
    """Return the XCom `key` of each task that has pushed it."""
    with create_session() as database:
        rows = database.execute(select(XComModel.task_id, XComModel.value).where(XComModel.key == key)).all()
        return {row.task_id: XComModel.deserialize_value(row) for row in rows}


def read_summary(task_id: str) -> str:
    """Return the summary of the task's step; empty if the task is not a step."""
    facts = SummaryFacts.from_facts(read_xcoms("facts").get(task_id, {}))
    return facts.summary if facts else ""


def locate_plot(manifest_uri: str) -> str:
    """Return the path of the plot's picture on this machine, or the object's URI."""
    manifest, _ = open_artifact(manifest_uri)
    return f"{manifest_uri.rpartition('/')[0]}/{manifest.file(PLOT_FILE).path}".removeprefix("file://")
