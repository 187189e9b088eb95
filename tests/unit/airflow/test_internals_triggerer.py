"""Contracts of `airflow_internals` with the installed Airflow: the triggerer's processes, and what it gives to triggers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, get_args
from uuid import uuid4

import pytest
from airflow.callbacks import database_callback_sink
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs import triggerer_job_runner
from airflow.jobs.triggerer_job_runner import ToTriggerSupervisor, TriggerCommsDecoder, TriggerRunner, TriggerRunnerSupervisor
from airflow.models.dagbag import DBDagBag
from airflow.models.trigger import Trigger, handle_event_submit
from airflow.sdk import DAG
from airflow.sdk.execution_time.supervisor import make_buffered_socket_reader
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent
from airflow_steps.airflow_internals import triggerer
from airflow_steps.airflow_internals.triggerer import StepTriggerRunner, StepTriggerSupervisor
from airflow_steps.airflow_internals.triggers import CONTINUED_STATES, TaskTrigger, UnmappedXComs
from airflow_steps.operator import StepOperator
from airflow_steps.trigger import StepTrigger

from .trigger_harness import SupervisorComms, TaskInstance

OVERRIDDEN: dict[tuple[type, str], list[str]] = {
    (TriggerRunnerSupervisor, "start"): ["job", "logger", "kwargs"],
    (TriggerRunnerSupervisor, "run_in_process"): [],
    (TriggerRunnerSupervisor, "_register_pipe_readers"): ["self", "stdout", "stderr", "requests", "logs", "data"],
    (TriggerRunnerSupervisor, "_service_subprocess"): ["self", "max_wait_time", "raise_on_timeout", "expect_signal"],
    (TriggerRunnerSupervisor, "build_trigger_workloads"): ["self", "new_trigger_ids"],
    (TriggerRunnerSupervisor, "_create_workload"): ["self", "trigger", "dag_bag", "render_log_fname", "session"],
    (TriggerRunnerSupervisor, "on_trigger_event"): ["self", "trigger_id", "event"],
    (TriggerRunnerSupervisor, "on_trigger_failure"): ["self", "trigger_id", "exc"],
    (TriggerRunner, "cancel_triggers"): ["self"],
}
CALLED: dict[tuple[Any, str], list[str]] = {
    (TriggerRunner, "cleanup_finished_triggers"): ["self"],
    (TriggerRunner, "sync_state_to_supervisor"): ["self", "finished_ids"],
    (TriggerRunner, "create_triggers"): ["self"],
    (TriggerRunnerSupervisor, "_process_log_messages_from_subprocess"): ["self"],
    (TriggerRunnerSupervisor, "_on_socket_closed"): ["self", "sock"],
    (DBDagBag, "_version_from_dag_run"): ["dag_run", "session"],
    (DBDagBag, "get_serialized_dag_model"): ["self", "version_id", "session"],
    (DBDagBag, "get_serialized_dag_model_for_run"): ["self", "dag_run", "session"],
}


def list_parameters(owner: Any, name: str) -> list[str]:
    return list(inspect.signature(inspect.unwrap(getattr(owner, name))).parameters)


@pytest.mark.parametrize(("owner", "name"), OVERRIDDEN)
def test_the_triggerer_has_the_methods_that_are_overridden(owner: type, name: str) -> None:
    assert list_parameters(owner, name) == OVERRIDDEN[owner, name], f"airflow_internals.triggerer overrides {name}"
    own = {TriggerRunnerSupervisor: StepTriggerSupervisor, TriggerRunner: StepTriggerRunner}[owner]
    assert name in vars(own)


@pytest.mark.parametrize(("owner", "name"), CALLED)
def test_the_triggerer_has_the_methods_that_are_called(owner: Any, name: str) -> None:
    assert list_parameters(owner, name) == CALLED[owner, name], f"airflow_internals calls {owner.__name__}.{name}"


def test_every_override_of_the_triggerer_has_a_contract() -> None:
    for own, base in ((StepTriggerSupervisor, TriggerRunnerSupervisor), (StepTriggerRunner, TriggerRunner)):
        overrides = {name for name, value in vars(own).items() if inspect.isroutine(value) and hasattr(base, name)}
        overrides = {name for name in overrides if not name.startswith("__")}
        assert overrides == {name for owner, name in OVERRIDDEN if owner is base}


def test_the_runner_has_the_attributes_that_a_pass_uses() -> None:
    runner = TriggerRunner()
    for name in ("triggers", "to_cancel", "events", "stop"):
        assert hasattr(runner, name), f"StepTriggerRunner uses {name}"
    assert "_reader_task" in {field.name for field in TriggerCommsDecoder.__attrs_attrs__}, "a pass ends with the connection"
    names = TriggerRunner.arun.__code__.co_names
    assert names.index("create_triggers") < names.index("cancel_triggers") < names.index("move_on_after"), (
        "StepTriggerRunner.cancel_triggers is the last call of a pass of Airflow's loop"
    )
    assert "buffer_size" in inspect.signature(make_buffered_socket_reader).parameters, "the supervisor reads 64 kB at once"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's classes, until the end of the test."""
    monkeypatch.setattr(triggerer_job_runner, "TriggerRunnerSupervisor", TriggerRunnerSupervisor)
    monkeypatch.setattr(database_callback_sink, "DatabaseCallbackSink", DatabaseCallbackSink)
    triggerer.install()


def test_airflows_triggerer_starts_the_projects_processes(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    class Stop(Exception):
        pass

    def start(**options: Any) -> None:
        started.append(options)
        raise Stop

    monkeypatch.setattr(StepTriggerSupervisor, "start", start)
    monkeypatch.setattr(triggerer_job_runner.TriggererJobRunner, "register_signals", lambda self: None)
    job: Any = SimpleNamespace(id=1, job_type="", heartrate=1)
    with pytest.raises(Stop):
        triggerer_job_runner.TriggererJobRunner(job, capacity=1)._execute()
    assert started, "python -m airflow_steps.triggerer would run Airflow's own, slow for wide DAGs"


def test_a_class_that_airflow_no_longer_looks_up_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggerer_job_runner.TriggererJobRunner, "_execute", lambda self: None)
    with pytest.raises(RuntimeError, match=r"does not use TriggerRunnerSupervisor\. Adapt .*; until then, start `airflow"):
        triggerer.install()


class FinishedTask:
    """A task instance whose trigger has fired, and the session of its database."""

    def __init__(self) -> None:
        self.added: list[Any] = []
        self.state: Any = "deferred"
        self.next_kwargs: Any = None
        self.trigger_id: int | None = 1
        self.dag_model = SimpleNamespace(relative_fileloc="f.py", bundle_name="b")
        self.dag_run = SimpleNamespace(bundle_version=None)

    def add(self, row: Any) -> None:
        self.added.append(row)

    def flush(self) -> None:
        """Nothing is written."""

    def set_state(self, state: Any, session: Any) -> None:
        self.state = state


@pytest.mark.parametrize(("has_callback", "expected"), [(True, 1), (False, 0)])
def test_a_success_without_callback_requests_none(
    installed: None, monkeypatch: pytest.MonkeyPatch, has_callback: bool, expected: int
) -> None:
    task = FinishedTask()

    def send(self: Any, callback: Any, *, session: Any) -> None:
        session.add(callback)

    monkeypatch.setattr(DatabaseCallbackSink, "send", send)
    monkeypatch.setattr("airflow.callbacks.callback_requests.TaskCallbackRequest", SimpleNamespace)
    monkeypatch.setattr(
        Trigger,
        "submit_event",
        lambda trigger_id, event: handle_event_submit(event, task_instance=task, session=task),  # type: ignore[arg-type]
    )
    supervisor: Any = StepTriggerSupervisor.__new__(StepTriggerSupervisor)
    supervisor._quiet_triggers = set() if has_callback else {1}
    supervisor.on_trigger_event(1, TaskSuccessEvent())
    assert (task.state, len(task.added)) == ("success", expected), "each success would cost a parse of the DAG file"


def test_a_task_that_continues_after_its_trigger_is_scheduled() -> None:
    task: Any = FinishedTask()
    handle_event_submit(TriggerEvent({"code": 1}), task_instance=task, session=task)
    assert task.state in CONTINUED_STATES, "StepTrigger.on_kill would delete the pod of an attempt that a worker continues"


class Recorder(TaskTrigger):
    """A trigger that records in which order it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "", {}

    def render_template_fields(self, context: Any, jinja_env: Any = None) -> None:
        self.calls.append("render_template_fields")

    async def run(self) -> AsyncIterator[TriggerEvent]:
        self.calls.append("run")
        yield TriggerEvent(None)


def test_templates_are_rendered_before_a_trigger_runs() -> None:
    async def run() -> list[str]:
        runner, trigger = TriggerRunner(), Recorder()
        runner.triggers[1] = {"task": None, "is_watcher": False, "name": "recorder", "events": 0}  # type: ignore[typeddict-item]
        await runner.run_trigger(1, trigger, context={"ti": None})  # type: ignore[arg-type]
        return trigger.calls

    assert asyncio.run(run()) == ["render_template_fields", "run"], (
        "StepTrigger.run would create a pod with unrendered templates"
    )


def test_a_trigger_gets_a_task_whose_templates_it_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEP_RUNNER", "triggerer")
    monkeypatch.setenv("COLLECTOR_IMAGE", "collector:1")
    with DAG("contract", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        step = StepOperator(program="collector", step="decide", options={"session": "{{ task.task_id }}"})
    assert step.start_trigger_args and step.start_trigger_args.trigger_kwargs
    trigger = StepTrigger(**step.start_trigger_args.trigger_kwargs)
    data = TaskInstanceDTO(
        id=uuid4(),
        dag_version_id=uuid4(),
        task_id="decide",
        dag_id="contract",
        run_id="run",
        try_number=1,
        map_index=-1,
        pool_slots=1,
        queue="",
        priority_weight=1,
    )
    trigger.task_instance = data  # type: ignore[assignment]
    assert not trigger.can_render, "StepTrigger.run fails instead of creating a pod with unrendered templates"
    monkeypatch.setattr("airflow.api_fastapi.execution_api.datamodels.taskinstance.DagRun.__init__", lambda self, **data: None)
    ti = TriggerRunner.create_runtime_ti(data, DagSerialization.to_dict(dag), {})
    trigger.task_instance = ti  # type: ignore[assignment]
    assert trigger.can_render
    assert trigger.template_fields == ("pod_template_dict",), "the pod's template would not be rendered"
    trigger.render_template_fields({"ti": ti, "task": ti.task})
    assert "{{" in str(trigger.pod_template_dict)
    asyncio.run(trigger.render_templates(5))
    assert trigger.pod_template_dict["spec"]["containers"][0]["args"] == ["decide", "--session", "decide"]


def test_a_triggers_xcoms_are_read_as_they_were_written(comms: SupervisorComms) -> None:
    async def exchange() -> Any:
        trigger = Recorder()
        trigger.task_instance = TaskInstance()  # type: ignore[assignment]
        await trigger.write_xcoms({"facts": {"rows": 3}})
        return await trigger.read_xcom("facts")

    assert asyncio.run(exchange()) == {"rows": 3}, "a step's manifest and facts are XComs that its trigger writes"


def test_the_triggerer_cannot_pull_from_all_indexes_of_a_mapped_task() -> None:
    requests = {request.__name__ for request in get_args(get_args(ToTriggerSupervisor)[0])}
    assert {"GetXCom", "SetXCom", "GetTaskStates"} <= requests, "a trigger would wait forever for the response"
    assert "GetXComSequenceSlice" not in requests, f"{UnmappedXComs.__name__} is no longer needed: delete it"
