from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pendulum
import pytest
from airflow.sdk import DAG, Context
from airflow_steps.operator import StepOperator
from devtools import container_images

from .conftest import ROOT

PARSE = """
import json, sys
from {image}.cli import build_parser
options = build_parser().parse_args(json.load(sys.stdin))
print(json.dumps({{name: str(value) for name, value in vars(options).items()}}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["process", "worker", "triggerer"])
def test_the_dag_files_load_without_errors_warnings_and_connections(runner: str) -> None:
    """In a process that may not connect to a network, a database or Airflow's API."""
    settings = {"STEP_RUNNER": runner} | {container_images.variable_of(name): f"{name}:1" for name in container_images.PROGRAMS}
    code = f"""
import socket, warnings
def reject(*arguments, **options): raise AssertionError("the DAG file opened a connection while it was parsed")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = reject
from airflow.sdk import Connection, Variable
Connection.get = Variable.get = reject
import runpy
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    runpy.run_path({str(ROOT / "dags" / "market_daily.py")!r})
own = [str(warning) for warning in caught if warning.filename.startswith({str(ROOT)!r}) and "/.venvs/" not in warning.filename]
assert not own, own
from airflow.dag_processing.dagbag import DagBag
bag = DagBag({str(ROOT / "dags")!r})
assert not bag.import_errors, bag.import_errors
assert not bag.captured_warnings, bag.captured_warnings
assert set(bag.dags) == {{"market_daily", "market_history", "market_smoke"}}
"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_serialized_dag_starts_its_steps_from_the_trigger(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    monkeypatch.setenv("STEP_RUNNER", "triggerer")
    for program in container_images.PROGRAMS:
        monkeypatch.setenv(container_images.variable_of(program), f"{program}:1")
    serialized = DagSerialization.to_dict(DagBag(ROOT / "dags").dags["market_daily"])
    DagSerialization.validate_schema(serialized)
    tasks = DagSerialization.from_dict(serialized).task_dict.values()
    steps = [task for task in tasks if task.task_type == "StepOperator"]
    assert len(steps) == 5
    for step in steps:
        assert step.start_from_trigger and step.start_trigger_args
        assert step.start_trigger_args.next_method == "execute_complete"
        assert "pod_template_dict" in str(step.start_trigger_args.trigger_kwargs)


def test_the_edges_follow_the_data(dag: DAG) -> None:
    assert {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks} == {
        "decide": ["branch"],
        "branch": ["closed", "fetch_prices", "suspect"],
        "fetch_prices": ["fetch_headlines"],
        "fetch_headlines": ["is_training_day"],
        "closed": ["is_training_day"],
        "suspect": ["is_training_day"],
        "is_training_day": ["train"],
        "train": ["plot"],
        "plot": [],
    }


def test_every_task_has_a_timeout_and_retries(dag: DAG) -> None:
    for task in dag.tasks:
        assert task.retries and task.retries >= 1, task.task_id
        assert task.execution_timeout and timedelta(0) < task.execution_timeout <= timedelta(hours=2), task.task_id
    assert dag.dagrun_timeout and dag.max_active_runs == 1


def test_it_runs_every_day_after_the_close_in_seoul_without_catchup(dag: DAG) -> None:
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction

    timetable, run, days = coerce_to_core_timetable(dag.timetable), None, []
    restriction = TimeRestriction(earliest=pendulum.datetime(2026, 2, 27, tz="Asia/Seoul"), latest=None, catchup=True)
    for _ in range(5):
        run = timetable.next_dagrun_info(
            last_automated_data_interval=run.data_interval if run else None, restriction=restriction
        )
        assert run and run.logical_date
        days.append(run.logical_date.in_timezone("Asia/Seoul").isoformat()[:16])
    assert days == [f"2026-{day}T18:00" for day in ("02-27", "02-28", "03-01", "03-02", "03-03")]
    assert dag.catchup is False


def render_arguments(dag: DAG, logical_date: datetime) -> dict[str, list[str]]:
    """Return each step's arguments in a run of `logical_date`, by program and step."""
    commands = {}
    for task in dag.tasks:
        if isinstance(task, StepOperator):
            context: Context = {"logical_date": pendulum.instance(logical_date)}
            commands[f"{task.program} {task.step}"] = task.render_template(task.arguments, context, dag.get_template_env())
    return commands


@pytest.mark.slow
def test_every_steps_real_parser_accepts_its_rendered_arguments(dag: DAG) -> None:
    commands = render_arguments(dag, datetime(2026, 1, 15, 9, tzinfo=UTC))
    steps = ["collector decide", "collector fetch-headlines", "collector fetch-prices", "trainer plot", "trainer train"]
    assert sorted(commands) == steps
    for step, arguments in commands.items():
        image = step.partition(" ")[0]
        python = ROOT / ".venvs" / image / "bin" / "python"
        command = [str(python), "-c", PARSE.format(image=image)]
        done = subprocess.run(command, input=json.dumps(arguments), capture_output=True, text=True)
        assert done.returncode == 0, f"{step}: {done.stderr}"
        assert json.loads(done.stdout)["session"] == "2026-01-15"


@pytest.mark.parametrize(
    ("logical_date", "session"),
    [
        (datetime(2026, 1, 15, 9, 0, tzinfo=UTC), "2026-01-15"),
        (datetime(2026, 1, 15, 14, 59, tzinfo=UTC), "2026-01-15"),
        (datetime(2026, 1, 15, 15, 0, tzinfo=UTC), "2026-01-16"),
        (datetime(2025, 12, 31, 15, 0, tzinfo=UTC), "2026-01-01"),
    ],
)
def test_the_session_is_the_logical_dates_day_in_seoul(dag: DAG, logical_date: datetime, session: str) -> None:
    for arguments in render_arguments(dag, logical_date).values():
        assert arguments[arguments.index("--session") + 1] == session


def test_it_trains_on_the_1st_and_the_15th_only(dag: DAG) -> None:
    gate = cast(Any, dag.get_task("is_training_day")).python_callable
    days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(365)]
    assert {day.day for day in days if gate(day.date().isoformat())} == {1, 15}


def test_the_branch_follows_the_decision(dag: DAG) -> None:
    branch = cast(Any, dag.get_task("branch")).python_callable
    assert [branch({"state": state}) for state in ("open", "closed", "suspect")] == ["fetch_prices", "closed", "suspect"]


def test_every_task_documents_itself_and_its_failures(dag: DAG) -> None:
    docs = {task.task_id: task.doc_md for task in dag.tasks}
    assert not [task_id for task_id, doc in docs.items() if "**When it fails:** " not in (doc or "")]
    assert "overrides.csv" in (docs["suspect"] or "")


def test_the_dag_file_is_short() -> None:
    source = (ROOT / "dags" / "market_daily.py").read_text()
    code = source.count("\n") - len(ast.get_docstring(ast.parse(source), clean=False).splitlines())  # type: ignore[union-attr]
    assert code <= 120
