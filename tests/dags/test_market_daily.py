from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pendulum
import pytest
import yaml
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Context
from airflow_steps.operator import StepOperator
from airflow_steps.training_days import TASK_ID
from devtools import container_images
from step_contract.facts import DecisionFacts

from .conftest import ROOT, list_group

PARSE = """
import json, sys
from {image}.cli import build_parser
options = build_parser().parse_args(json.load(sys.stdin))
print(json.dumps({{name: str(value) for name, value in vars(options).items()}}))
"""


RUNNERS = ("process", "worker", "triggerer")
# Airflow takes seconds to import: each runner has a child of one process that has imported it and nothing of the project.
LOAD = f"""
import os, socket, sys, warnings
def reject(*arguments, **options): raise AssertionError("the DAG file opened a connection while it was parsed")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = reject
from airflow.sdk import Connection, Variable
Connection.get = Variable.get = reject
import runpy
from airflow.dag_processing.dagbag import DagBag
assert not [name for name in sys.modules if name.partition(".")[0] in ("airflow_steps", "step_contract")]
def load():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runpy.run_path({str(ROOT / "dags" / "market_daily.py")!r})
    files = [warning for warning in caught if warning.filename.startswith({str(ROOT)!r}) and "/.venvs/" not in warning.filename]
    own = [str(warning) for warning in files]
    assert not own, own
    bag = DagBag({str(ROOT / "dags")!r})
    assert not bag.import_errors, bag.import_errors
    assert not bag.captured_warnings, bag.captured_warnings
    assert {{"market_daily", "market_history", "market_smoke"}} <= set(bag.dags)
for runner in {RUNNERS!r}:
    if not os.fork():
        sys.stderr = open(f"{{sys.argv[1]}}/{{runner}}", "w")
        os.environ["STEP_RUNNER"] = runner
        load()
        print("loaded", file=sys.stderr)
        sys.exit()
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Load the DAG files once for each runner; return the folder with each one's output."""
    folder = tmp_path_factory.mktemp("loaded")
    images = {container_images.variable_of(name): f"{name}:1" for name in container_images.PROGRAMS}
    done = subprocess.run([sys.executable, "-c", LOAD, str(folder)], env=os.environ | images, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_the_dag_files_load_without_errors_warnings_and_connections(runner: str, loaded: Path) -> None:
    """In a process that may not connect to a network, a database or Airflow's API."""
    assert (loaded / runner).read_text() == "loaded\n"


def test_the_serialized_dag_starts_its_steps_from_the_trigger(dag: DAG, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    monkeypatch.setenv("STEP_RUNNER", "triggerer")
    for program in container_images.PROGRAMS:
        monkeypatch.setenv(container_images.variable_of(program), f"{program}:1")
    serialized = DagSerialization.to_dict(DagBag(ROOT / "dags").dags["market_daily"])
    DagSerialization.validate_schema(serialized)
    tasks = DagSerialization.from_dict(serialized).task_dict.values()
    steps = [task for task in tasks if task.task_type == "StepOperator"]
    assert {step.task_id for step in steps} == {task.task_id for task in dag.tasks if isinstance(task, StepOperator)}
    for step in steps:
        assert step.start_from_trigger and step.start_trigger_args
        assert step.start_trigger_args.next_method == "execute_complete"
        assert "pod_template_dict" in str(step.start_trigger_args.trigger_kwargs)


def list_downstream(dag: DAG, task_id: str) -> set[str]:
    return {task.task_id for task in dag.get_task(task_id).get_flat_relatives(upstream=False)}


def test_only_an_open_day_collects(dag: DAG) -> None:
    """Whatever the steps and their order are."""
    collect, branch = list_group(dag, "collect"), dag.get_task("branch")
    opened = branch.downstream_task_ids - {"closed", "suspect"}
    assert branch.upstream_task_ids == {"decide"} and branch.downstream_task_ids >= {"closed", "suspect"}
    assert {"fetch_prices", "fetch_headlines"} <= collect
    assert collect == opened | {task_id for first in opened for task_id in list_downstream(dag, first) if task_id in collect}
    assert not collect & (list_downstream(dag, "closed") | list_downstream(dag, "suspect"))


def test_every_kind_of_day_reaches_the_training(dag: DAG) -> None:
    gate, model = dag.get_task(TASK_ID), list_group(dag, "model")
    assert gate.trigger_rule == "none_failed"
    assert gate.upstream_task_ids >= {"closed", "suspect"} and gate.upstream_task_ids & list_group(dag, "collect")
    assert {"train", "plot"} <= model <= list_downstream(dag, TASK_ID)
    assert "plot" in list_downstream(dag, "train")


def test_prices_and_headlines_do_not_wait_for_each_other_and_only_prices_for_the_training(dag: DAG) -> None:
    prices, headlines = dag.get_task("fetch_prices"), dag.get_task("fetch_headlines")
    assert prices.upstream_task_ids == headlines.upstream_task_ids == {"branch"}
    assert "train" in list_downstream(dag, "fetch_prices") and "train" not in list_downstream(dag, "fetch_headlines")
    # Airflow fails a run if one of the tasks that nothing depends on has failed.
    assert headlines in dag.leaves


def test_the_forecast_needs_the_prices_only_and_nothing_waits_for_it(dag: DAG) -> None:
    """A slow or failed training neither delays nor loses it, and it delays no training."""
    forecast = dag.get_task("forecast")
    assert forecast.upstream_task_ids == {"fetch_prices"} and forecast.trigger_rule == "all_success"
    assert forecast in dag.leaves


def test_the_forecast_takes_less_of_a_node_than_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("STEP_RUNNER", "triggerer")
    monkeypatch.setenv("TRAINER_MEMORY", "8Gi")
    monkeypatch.setenv("TRAINER_NODE_SELECTOR", "kubernetes.io/arch=amd64")
    for program in container_images.PROGRAMS:
        monkeypatch.setenv(container_images.variable_of(program), f"{program}:1")
    tasks = {task.task_id: cast(Any, task) for task in DagBag(ROOT / "dags").dags["market_daily"].tasks}
    forecast, train = tasks["forecast"], tasks["train"]
    assert train.container_resources.limits["memory"] == "8Gi"
    assert forecast.container_resources.limits["memory"] == forecast.container_resources.requests["memory"] == "1Gi"
    assert forecast.node_selector == train.node_selector == {"kubernetes.io/arch": "amd64"}


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


class RunXComs:
    """A task instance for templates, in a run whose tasks have returned the manifests `uris` by task id."""

    map_index = -1

    def __init__(self, uris: dict[str, str]) -> None:
        self.uris = uris

    def xcom_pull(self, task_ids: str, map_indexes: int) -> str | None:
        assert map_indexes == self.map_index
        return self.uris.get(task_ids)


def render_arguments(dag: DAG, logical_date: datetime, uris: dict[str, str] | None = None) -> dict[str, list[str]]:
    """Return each step's arguments in a run of `logical_date` with the XComs `uris`, by program and step."""
    commands = {}
    for task in dag.tasks:
        if isinstance(task, StepOperator):
            ti = cast("Any", RunXComs(uris or {}))
            context: Context = {"logical_date": pendulum.instance(logical_date), "params": {"remake": None}, "ti": ti}
            commands[f"{task.program} {task.step}"] = task.render_template(task.arguments, context, dag.get_template_env())
    return commands


@pytest.mark.slow
def test_every_steps_real_parser_accepts_its_rendered_arguments(dag: DAG) -> None:
    commands = render_arguments(dag, datetime(2026, 1, 15, 9, tzinfo=UTC))
    assert len(commands) == sum(isinstance(task, StepOperator) for task in dag.tasks) > 0
    for step, arguments in commands.items():
        image = step.partition(" ")[0]
        python = ROOT / ".venvs" / image / "bin" / "python"
        command = [str(python), "-c", PARSE.format(image=image)]
        done = subprocess.run(command, input=json.dumps(arguments), capture_output=True, text=True)
        assert done.returncode == 0, f"{step}: {done.stderr}"
        assert json.loads(done.stdout)["session"] == "2026-01-15"


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ({"fetch_prices": "s3://p", "train": "s3://m"}, {"forecast": "s3://p", "train": "s3://p", "plot": "s3://m"}),
        ({"train": "s3://m"}, {"forecast": "", "train": "", "plot": "s3://m"}),  # a closed day
    ],
)
def test_artifacts_are_passed_by_their_uris_in_xcom(dag: DAG, returned: dict[str, str], expected: dict[str, str]) -> None:
    commands = render_arguments(dag, datetime(2026, 1, 15, 9, tzinfo=UTC), returned)
    options = {"forecast": "--prices", "train": "--prices", "plot": "--model"}
    rendered = {step: commands[f"trainer {step}"] for step in options}
    assert {step: words[words.index(options[step]) + 1] for step, words in rendered.items()} == expected


def test_a_task_without_lineage_never_waits_for_the_openlineage_receiver(dag: DAG) -> None:
    """Those that are not steps run in workers, where the provider waits for it; they are excluded by their classes."""
    values = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())["config"]["openlineage"]
    light = [task for task in dag.tasks if not isinstance(task, StepOperator | EmptyOperator)]
    names = {f"{type(task).__module__}.{type(task).__name__}" for task in light}
    assert len(light) == 2 and names == set(values["disabled_for_operators"].split(";"))
    assert values["disabled"] == "True" and values["execution_timeout"] <= 2


def test_the_uri_of_the_prices_makes_no_training_wait_for_an_open_day(dag: DAG) -> None:
    assert dag.get_task("train").upstream_task_ids == {TASK_ID}


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
    facts = [DecisionFacts(state, "a session", "2026-03-20").to_facts() for state in ("open", "closed", "suspect")]
    opened, *ends = [branch(decision) for decision in facts]
    assert ends == [["closed"], ["suspect"]]
    assert {"fetch_prices", "fetch_headlines"} <= set(opened)
    assert {*opened, "closed", "suspect"} == dag.get_task("branch").downstream_task_ids


def test_every_task_documents_itself_and_its_failures(dag: DAG) -> None:
    docs = {task.task_id: task.doc_md for task in dag.tasks}
    assert not [task_id for task_id, doc in docs.items() if "**When it fails:** " not in (doc or "")]
    assert "overrides.csv" in (docs["suspect"] or "")
