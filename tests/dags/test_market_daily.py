from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pendulum
import pytest
import yaml
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import DownstreamTasksSkipped
from airflow.sdk.execution_time.context import set_current_context
from airflow_steps.operator import StepOperator
from devtools import container_images
from step_contract.facts import DecisionFacts
from step_contract.training_days import TASK_ID

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
    branch, collected = dag.get_task("branch"), {"fetch_prices", "fetch_headlines", "forecast"}
    assert branch.upstream_task_ids == {"decide"} and branch.downstream_task_ids == {"open", "closed", "suspect"}
    assert collected <= list_downstream(dag, "open")
    assert not collected & (list_downstream(dag, "closed") | list_downstream(dag, "suspect"))


def test_every_kind_of_day_reaches_the_training(dag: DAG) -> None:
    gate, model = dag.get_task(TASK_ID), list_group(dag, "model")
    assert gate.trigger_rule == "none_failed"
    assert gate.upstream_task_ids == {"closed", "suspect", "fetch_prices"}
    assert {"train", "plot"} <= model <= list_downstream(dag, TASK_ID)
    assert "plot" in list_downstream(dag, "train")


def test_prices_and_headlines_do_not_wait_for_each_other_and_only_prices_for_the_training(dag: DAG) -> None:
    prices, headlines = dag.get_task("fetch_prices"), dag.get_task("fetch_headlines")
    assert prices.upstream_task_ids == headlines.upstream_task_ids == {"open"}
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

    def __init__(self, uris: dict[str, str], map_index: int) -> None:
        self.uris, self.map_index = uris, map_index

    def xcom_pull(self, task_ids: str, map_indexes: int) -> str | None:
        assert map_indexes == self.map_index
        return self.uris.get(task_ids)


def render_arguments(
    dag: DAG, logical_date: datetime, uris: dict[str, str] | None = None, map_index: int = -1
) -> dict[str, list[str]]:
    """Return each step's arguments in a run of `logical_date` with the XComs `uris`, by program and step."""
    commands = {}
    for task in dag.tasks:
        if isinstance(task, StepOperator):
            ti = cast("Any", RunXComs(uris or {}, map_index))
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


def run_function(dag: DAG, task_id: str, argument: Any, map_index: int = -1) -> list[tuple[str, int]]:
    """Run a task's function; return the task ids and map indexes that it skips."""
    task = cast(Any, dag.get_task(task_id))
    context = cast("Context", {"task": task, "ti": SimpleNamespace(map_index=map_index)})
    with set_current_context(context):
        try:
            task.python_callable(argument)
        except DownstreamTasksSkipped as skip:
            return cast("list[tuple[str, int]]", skip.tasks)
    return []


def test_it_trains_on_the_1st_and_the_15th_only(dag: DAG) -> None:
    days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number) for number in range(365)]
    skipped = {day: run_function(dag, TASK_ID, day.date().isoformat()) for day in days}
    assert {day.day for day, tasks in skipped.items() if not tasks} == {1, 15}
    assert {tuple(tasks) for tasks in skipped.values() if tasks} == {(("train", -1),)}


@pytest.mark.parametrize("map_index", [-1, 1])
def test_the_branch_follows_the_decision(dag: DAG, map_index: int) -> None:
    states = {"open", "closed", "suspect"}
    for state in states:
        facts = DecisionFacts(state, "a session", "2026-03-20").to_facts()
        assert run_function(dag, "branch", facts, map_index) == sorted((other, map_index) for other in states - {state})


@pytest.fixture(scope="module")
def wide_dag() -> DAG:
    """Return market_daily with two indexes."""
    from airflow.dag_processing.dagbag import DagBag

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SYMBOL")
        patch.setenv("SYMBOLS", "KS11,KQ11")
        return DagBag(ROOT / "dags").dags["market_daily"]


def test_several_indexes_have_the_same_tasks_all_mapped_but_the_headlines(dag: DAG, wide_dag: DAG) -> None:
    assert set(wide_dag.task_ids) == set(dag.task_ids)
    assert list_group(wide_dag, "index") == set(dag.task_ids) - {"fetch_headlines"}
    for task_id in dag.task_ids:
        one, several = dag.get_task(task_id), wide_dag.get_task(task_id)
        assert one.downstream_task_ids == several.downstream_task_ids and one.trigger_rule == several.trigger_rule


def test_each_index_has_its_own_symbol_and_artifacts(dag: DAG, wide_dag: DAG) -> None:
    for map_index, symbol in enumerate(("KS11", "KQ11")):
        uris = {"fetch_prices": f"s3://{symbol}/p", "train": f"s3://{symbol}/m"}
        commands = render_arguments(wide_dag, datetime(2026, 1, 15, 9, tzinfo=UTC), uris, map_index)
        expected = render_arguments(dag, datetime(2026, 1, 15, 9, tzinfo=UTC), uris)
        assert commands == {step: [symbol if word == "KS11" else word for word in words] for step, words in expected.items()}


def test_an_index_adds_little_to_what_the_trigger_is_given(wide_dag: DAG, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments of a trigger are in the serialized DAG, of which each trigger reads its task."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    monkeypatch.setenv("STEP_RUNNER", "triggerer")
    monkeypatch.delenv("SYMBOL")
    for program in container_images.PROGRAMS:
        monkeypatch.setenv(container_images.variable_of(program), f"{program}:1")
    sizes = []
    for count in (2, 50):
        monkeypatch.setenv("SYMBOLS", ",".join(f"INDEX{number:02}" for number in range(count)))
        serialized = DagSerialization.to_dict(DagBag(ROOT / "dags").dags["market_daily"])
        sizes.append(len(json.dumps(serialized)))
    steps = sum(isinstance(task, StepOperator) for task in wide_dag.tasks)
    assert (sizes[1] - sizes[0]) / 48 / steps < 100  # bytes for each index and step


def test_every_task_documents_itself_and_its_failures(dag: DAG) -> None:
    docs = {task.task_id: task.doc_md for task in dag.tasks}
    assert not [task_id for task_id, doc in docs.items() if "**When it fails:** " not in (doc or "")]
    assert "overrides.csv" in (docs["suspect"] or "")
