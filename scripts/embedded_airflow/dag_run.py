"""Run the DAG in this process and print its progress. Import it only after Airflow's environment variables are set."""

from __future__ import annotations

import os
import subprocess
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from airflow.dag_processing.dagbag import DagBag
from airflow.listeners import hookimpl
from airflow.models.xcom import XComModel
from airflow.sdk.listener import get_listener_manager
from airflow.utils.session import create_session
from airflow_monitor.models import FINISHED, Run, TaskInstance, name_indexes
from airflow_steps.failure_log import read_failures
from devtools.commands import ROOT
from sqlalchemy import select
from step_contract.commit import open_artifact
from step_contract.facts import SummaryFacts
from step_contract.paths import MANIFEST
from step_contract.schemas import PLOT_FILE
from step_contract.store import Store

from embedded_airflow.execution_api import drop_earlier_versions
from embedded_airflow.run_request import RunRequest
from embedded_airflow.slack_channel import Channel, open_channel

DAGS = ROOT / "dags"


Key = tuple[str, int]  # a task instance's task id and map index, -1 for a task that is not mapped


class Progress:
    """An Airflow listener that prints each task's start and end, and posts the run's state to Slack.

    Attributes:
        errors: the error of each task instance that failed.
        seconds: the duration of each task instance that finished.
    """

    def __init__(self, terminal: TextIO, slack: Channel) -> None:
        self.terminal, self.slack = terminal, slack
        self.run: Run | None = None
        self.tasks: dict[Key, TaskInstance] = {}
        self.errors: dict[Key, str] = {}
        self.started: dict[Key, float] = {}
        self.seconds: dict[Key, float] = {}

    def _print(self, name: str, text: str) -> None:
        clock = f"{datetime.now():%H:%M:%S}" if name else ""  # noqa: DTZ005 the user's time zone
        print(f"  {clock:<8}  {name:<16} {text}", file=self.terminal)

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        """Print the start; the first task starts the run."""
        self.started[get_key(task_instance)] = time.monotonic()
        self._print(format_name(get_key(task_instance)), "running")
        if self.run is None:
            dag_run, now = task_instance.get_template_context()["dag_run"], datetime.now(UTC)
            self.run = Run(dag_run.dag_id, dag_run.run_id, "manual", "running", now, dag_run.logical_date, now, now)
        self._update_task(task_instance, "running")

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        """Print the success and the step's summary."""
        self._finish(task_instance, "success", read_summary(get_key(task_instance)))

    @hookimpl
    def on_task_instance_skipped(self, previous_state: Any, task_instance: Any) -> None:
        """Print that the task was skipped."""
        self._finish(task_instance, "skipped")

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        """Print the failure and record the error."""
        self.errors[get_key(task_instance)] = str(error)
        self._finish(task_instance, "failed")

    def _finish(self, task_instance: Any, state: str, summary: str = "") -> None:
        key = get_key(task_instance)
        self._update_task(task_instance, state)
        self.seconds[key] = time.monotonic() - self.started[key]
        self._print(format_name(key), f"{state}, {self.seconds[key]:.1f} s")
        for line in textwrap.wrap(summary, width=90):
            self._print("", f"  {line}")

    def _update_task(self, task_instance: Any, state: str) -> None:
        """Record a task's state and post the run's to Slack."""
        key = get_key(task_instance)
        facts, result = read_xcoms("facts").get(key, {}), read_xcoms("return_value").get(key)
        manifest = result if str(result).endswith(MANIFEST) else None
        picture = bool(manifest) and PLOT_FILE in {file.name for file in open_artifact(str(manifest))[0].files}
        task_id, map_index = key
        self.tasks[key] = TaskInstance(task_id, state, map_index=map_index, facts=facts, manifest=manifest, has_picture=picture)
        self.post("running")

    def post(self, state: str) -> None:
        """Post the run's state to Slack."""
        if self.run:
            ended = datetime.now(UTC) if state in FINISHED else None
            # An earlier run of the same session has the same id.
            failures = read_failures(Store(os.environ["ARTIFACTS"]), self.run.dag_id, self.run.run_id)
            since = self.run.run_after.isoformat(timespec="seconds")
            failures = [failure for failure in failures if failure.recorded_at >= since]
            task_instances = name_indexes(self.tasks.values())
            self.slack.post(replace(self.run, state=state, end_date=ended, task_instances=task_instances, failures=failures))


def get_key(task_instance: Any) -> Key:
    """Return what identifies a task instance within its run."""
    return task_instance.task_id, -1 if task_instance.map_index is None else task_instance.map_index


def format_name(key: Key) -> str:
    """Return a task instance's name, as Airflow shows it."""
    task_id, map_index = key
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def run(request: RunRequest, terminal: TextIO, histories: Sequence[subprocess.Popen[str]], log: Path) -> int:
    """Run the DAG, print its progress on `terminal` and post it to Slack; return the exit code.

    Args:
        request: what to run.
        terminal: where the progress is printed.
        histories: the processes that collect the sessions before, one for each index.
        log: the file that Airflow's log is written to.
    """
    with open_channel(log.with_suffix(".slack.html")) as (slack, location):
        return _run(request, terminal, histories, log, slack, location)


def _run(
    request: RunRequest,
    terminal: TextIO,
    histories: Sequence[subprocess.Popen[str]],
    log: Path,
    slack: Channel,
    location: str,
) -> int:
    bag = DagBag(DAGS)
    if request.dag_id not in bag.dags:
        for file, trace in bag.import_errors.items():
            print(f"cannot import {file}:\n{trace}", file=terminal)
        for history in histories:
            history.kill()
        return 1
    dag = bag.dags[request.dag_id]
    progress = Progress(terminal, slack)
    get_listener_manager().add_listener(progress)
    for history in histories:
        summary, errors = history.communicate()
        if not history.returncode:
            print(f"history: {summary.strip()}", file=terminal)
            continue
        print(errors.strip(), file=terminal)
        if len(histories) == 1:  # of several indexes, one that fails does not stop the others
            return history.returncode

    drop_earlier_versions()
    noon = datetime.combine(request.day, datetime.min.time(), dag.timezone).replace(hour=12)  # any time of the day
    dag_run = dag.test(logical_date=noon, run_conf={"remake": os.environ.get("REMAKE"), **request.conf})
    progress.post(str(dag_run.state))

    with create_session() as database:
        states = {get_key(ti): ti.state for ti in dag_run.get_task_instances(session=database)}
    manifests = {key: uri for key, uri in read_xcoms("return_value").items() if str(uri).endswith(MANIFEST)}
    root = Store(os.environ["ARTIFACTS"]).root
    width = max(map(len, map(format_name, states))) + 2
    print(f"\n{'task':<{width}}{'state':<17}{'seconds':>7}  artifact", file=terminal)
    order = [task.task_id for task in dag.topological_sort()]
    for key in sorted(states, key=lambda key: (max(key[1], 0), order.index(key[0]))):
        seconds = f"{progress.seconds[key]:.1f}" if key in progress.seconds else ""
        artifact = manifests.get(key, "").removeprefix(f"{root}/")
        print(f"{format_name(key):<{width}}{states[key] or 'not run':<17}{seconds:>7}  {artifact}", file=terminal)
    print(f"\n{request.name}: {dag_run.state}; artifacts: {root}; log: {log}", file=terminal)
    for error in progress.errors.values():
        print(error, file=terminal)
    print(f"slack: {location}", file=terminal)
    for key, uri in sorted(manifests.items()):
        if key[0] == "plot":
            print(f"plot: {locate_plot(uri)}", file=terminal)
    return 0 if dag_run.state == "success" else 1


def read_xcoms(key: str) -> dict[Key, Any]:
    """Return the XCom `key` of each task instance that has pushed it."""
    with create_session() as database:
        columns = (XComModel.task_id, XComModel.map_index, XComModel.value)
        rows = database.execute(select(*columns).where(XComModel.key == key)).all()
        return {(row.task_id, row.map_index): XComModel.deserialize_value(row) for row in rows}


def read_summary(key: Key) -> str:
    """Return the summary of a task instance's step; empty if the task is not a step."""
    facts = SummaryFacts.from_facts(read_xcoms("facts").get(key, {}))
    return facts.summary if facts else ""


def locate_plot(manifest_uri: str) -> str:
    """Return the path of the plot's picture on this machine, or the object's URI."""
    manifest, _ = open_artifact(manifest_uri)
    return f"{manifest_uri.rpartition('/')[0]}/{manifest.file(PLOT_FILE).path}".removeprefix("file://")
