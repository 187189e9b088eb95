"""The project's triggerer processes: what a step costs, and that none is lost or doubled."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import psutil
import pytest
import structlog
from airflow.exceptions import TaskNotFound
from airflow.executors.workloads.trigger import RunTrigger
from airflow.jobs.triggerer_job_runner import TriggerRunner, messages
from airflow.models.dagbag import DBDagBag
from airflow.models.trigger import Trigger
from airflow.providers.standard.sensors.date_time import DateTimeSensorAsync
from airflow.sdk import DAG, task
from airflow.sdk.execution_time.supervisor import PsutilTracker
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import BaseTrigger, TriggerEvent
from airflow_steps.airflow_internals import triggerer
from airflow_steps.airflow_internals.single_task_dag import SingleTaskBag, has_success_callback, select_task
from airflow_steps.airflow_internals.triggerer import StepTriggerRunner, StepTriggerSupervisor
from airflow_steps.operator import StepOperator

SETTINGS = {
    "AIRFLOW__API_AUTH__JWT_SECRET": "not-a-secret-of-anyone",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__TRIGGERER__BLOCKED_MAIN_THREAD_WARNING_THRESHOLD": "0.3",
    # The triggers of a triggerer that was killed are reassigned after so many seconds.
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "6",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "STEP_RUNNER": "triggerer",
    "COLLECTOR_IMAGE": "collector:1",
    "STEP_NAMESPACE": "steps",
    "STEP_MAX_PODS": "16",
}


def serialize_dag(monkeypatch: pytest.MonkeyPatch, steps: int, **arguments: Any) -> dict[str, Any]:
    for name in ("STEP_RUNNER", "COLLECTOR_IMAGE", "STEP_NAMESPACE"):
        monkeypatch.setenv(name, SETTINGS[name])
    with DAG("wide", schedule=None, start_date=datetime(2026, 1, 1)) as dag:  # noqa: DTZ001 as DAG files have it
        tasks = [
            StepOperator(program="collector", step="decide", task_id=f"step_{number:04}", options={}, **arguments)
            for number in range(steps)
        ]
        for task, following in pairwise(tasks):
            task >> following
    data: dict[str, Any] = DagSerialization.to_dict(dag)
    return data


def test_a_trigger_costs_the_same_in_a_dag_of_any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [len(json.dumps(select_task(serialize_dag(monkeypatch, steps), "step_0001"))) for steps in (2, 200)]
    assert sizes[1] <= sizes[0] * 1.05


def test_the_reduced_dag_has_the_task_as_airflow_serialized_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = serialize_dag(monkeypatch, 3)
    selected = select_task(data, "step_0001")
    assert selected
    whole = DagSerialization.from_dict(data).get_task("step_0001")
    [reduced] = DagSerialization.from_dict(selected).tasks
    assert reduced.start_from_trigger and reduced.start_trigger_args == whole.start_trigger_args
    assert reduced.template_fields == whole.template_fields
    assert select_task(data, "no_such_task") is None
    assert len(data["dag"]["tasks"]) == 3 and data["dag"]["tasks"][0]["__var"]["downstream_task_ids"]


@pytest.mark.parametrize(("arguments", "expected"), [({}, False), ({"on_success_callback": print}, True)])
def test_a_success_callback_is_recognized(monkeypatch: pytest.MonkeyPatch, arguments: Any, expected: bool) -> None:
    assert has_success_callback(serialize_dag(monkeypatch, 1, **arguments)) is expected


class DagBag(DBDagBag):
    """Airflow's bag with the versions of one DAG, without a database."""

    def __init__(self, latest: str, **versions: dict[str, Any]) -> None:
        super().__init__()
        self.latest, self.versions, self.reads = latest, versions, 0

    def _version_from_dag_run(self, dag_run: Any, *, session: Any) -> str:  # type: ignore[override]
        return self.latest

    def get_serialized_dag_model(self, version_id: Any, session: Any) -> Any:
        self.reads += 1
        return SimpleNamespace(data=self.versions[version_id])


@task
def list_times() -> list[str]:
    return []


def test_a_mapped_task_gets_the_tasks_that_it_is_mapped_over() -> None:
    with DAG("mapped", schedule=None, start_date=datetime(2026, 1, 1)) as dag:  # noqa: DTZ001
        DateTimeSensorAsync.partial(task_id="wait").expand(target_time=list_times())
    bag = SingleTaskBag(DagBag("v1", v1=DagSerialization.to_dict(dag)), "wait", {})
    model = bag.get_serialized_dag_model("v1", session=None)
    assert model and not model.dag.get_task("wait").start_from_trigger


def test_runs_of_a_version_share_the_dag_that_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    source = DagBag("v1", v1=serialize_dag(monkeypatch, 2))
    dags: dict[Any, Any] = {}
    for number in range(20):
        run = SimpleNamespace(dag_id="wide", run_id=f"run {number}")
        assert SingleTaskBag(source, "step_0001", dags).get_serialized_dag_model_for_run(run, session=None)
    assert source.reads == 1


def test_a_new_version_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(dag_id="wide", run_id="run")
    dags: dict[Any, Any] = {}
    source = DagBag("v1", v1=serialize_dag(monkeypatch, 1), v2=serialize_dag(monkeypatch, 2))
    assert SingleTaskBag(source, "step_0000", dags).get_serialized_dag_model_for_run(run, session=None)
    source.latest = "v2"
    model = SingleTaskBag(source, "step_0001", dags).get_serialized_dag_model_for_run(run, session=None)
    assert model and model.dag.get_task("step_0001").start_from_trigger


def test_a_version_without_the_task_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow then uses the version that the task instance has."""
    run, source = SimpleNamespace(dag_id="wide", run_id="run"), DagBag("v1", v1=serialize_dag(monkeypatch, 1))
    assert SingleTaskBag(source, "removed", {}).get_serialized_dag_model_for_run(run, session=None) is None


def test_a_task_whose_dag_cannot_be_deserialized_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow then starts the trigger without a DAG; an exception would end the triggerer."""
    data = serialize_dag(monkeypatch, 1)
    data["dag"]["timetable"] = {"__type": "plugin.that.is.gone.Timetable", "__var": {}}
    model = SingleTaskBag(DagBag("v1", v1=data), "step_0000", {}).get_serialized_dag_model("v1", session=None)
    with pytest.raises(TaskNotFound):
        assert model and model.dag


class Supervisor(StepTriggerSupervisor):
    """A supervisor with triggers that Airflow skips, as none of their tasks waits for them, and one that it starts."""

    def fetch_trigger_details(self, trigger_ids: set[int], *, session: Any) -> dict[int, Any]:
        trigger: dict[str, Any] = {"classpath": "x", "encrypted_kwargs": "", "task_instance": None, "assets": []}
        return {trigger_id: SimpleNamespace(id=trigger_id, **trigger) for trigger_id in trigger_ids}

    def fetch_non_task_trigger_ids(self, *, session: Any) -> set[int]:
        return {99}


def test_triggers_that_are_skipped_do_not_keep_others_from_starting() -> None:
    workloads = Runner(Supervisor).supervisor.build_trigger_workloads(set(range(100)))
    assert [workload.id for workload in workloads] == [99]


def test_airflows_runner_has_what_the_project_extends() -> None:
    for name in ("cancel_triggers", "create_triggers", "cleanup_finished_triggers", "sync_state_to_supervisor"):
        assert callable(getattr(TriggerRunner, name))


class SlowToKill(BaseTrigger):
    """A trigger whose `on_kill` takes a moment, as that of any that calls an API."""

    killed = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.SlowToKill", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        await asyncio.Event().wait()
        yield TriggerEvent(None)

    async def on_kill(self) -> None:
        await asyncio.sleep(1)
        SlowToKill.killed = True


class Comms:
    """The connection to a supervisor that repeats, with each response, which triggers it wants cancelled."""

    def __init__(self, workload: RunTrigger) -> None:
        self.to_create, self.finished = [workload], False
        self._reader_task = asyncio.create_task(asyncio.Event().wait())

    async def asend(self, message: Any) -> Any:
        created, self.to_create = self.to_create, []
        self.finished = self.finished or bool(message.finished)
        return messages.TriggerStateSync(to_create=created, to_cancel=set() if created else {1})


def test_a_kill_is_not_cancelled_by_the_next_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggerer, "PASS_SECONDS", 0.02)

    async def scenario() -> None:
        runner = StepTriggerRunner()
        path, kwargs = SlowToKill().serialize()  # type: ignore[no-untyped-call]
        workload = RunTrigger(id=1, classpath=path, encrypted_kwargs=Trigger.encrypt_kwargs(kwargs), ti=None)
        runner.comms_decoder = comms = Comms(workload)  # type: ignore[assignment]
        await runner.sync_state_to_supervisor([])
        await runner.create_triggers()  # type: ignore[no-untyped-call]
        await asyncio.sleep(0.1)  # until it runs
        await runner.cancel_triggers()
        assert SlowToKill.killed and comms.finished

    asyncio.run(scenario())


class Runner:
    """The sockets of a runner, and its supervisor."""

    def __init__(self, supervisor: type[StepTriggerSupervisor] = StepTriggerSupervisor) -> None:
        (stdin, stdout, stderr, self.logs), self._peers = zip(*(socket.socketpair() for _ in range(4)), strict=True)
        self.stdin, _, _, self.log_writer = self._peers
        process: Any = PsutilTracker(psutil.Process())
        self.supervisor = supervisor(
            id=uuid4(), pid=os.getpid(), stdin=stdin, process=process, process_log=structlog.get_logger(), capacity=1
        )
        self.supervisor._register_pipe_readers(stdout, stderr, stdin, self.logs, data={})

    def close(self) -> None:
        for peer in self._peers:
            peer.close()

    def log(self, lines: int) -> None:
        line = json.dumps({"event": "x" * 250, "level": "debug"}).encode() + b"\n"
        self.log_writer.sendall(line * lines)


def test_one_pass_of_the_supervisor_reads_many_log_lines() -> None:
    runner = Runner()
    runner.log(100)
    runner.supervisor._service_subprocess(0.1)
    with pytest.raises(BlockingIOError):
        runner.logs.recv(1, socket.MSG_DONTWAIT)


def test_the_end_of_the_runner_is_noticed_at_once() -> None:
    """Until the supervisor ends, other triggerers do not take over its triggers."""
    with psutil.Popen(["sleep", "100"]) as process:
        runner = Runner()
        runner.supervisor._process = cast("Any", PsutilTracker(process))
        runner.close()
        started = time.monotonic()
        runner.supervisor.kill(signal.SIGTERM, escalation_delay=10)
        assert time.monotonic() - started < 5


def test_a_large_response_and_a_long_log_do_not_wait_for_each_other() -> None:
    runner, response = Runner(), messages.TriggerStateSync(to_create=[], to_cancel=set(range(500_000)))
    sending = threading.Thread(target=lambda: runner.supervisor.send_msg(response, request_id=1), daemon=True)
    logging = threading.Thread(target=lambda: runner.log(5_000), daemon=True)
    sending.start()
    logging.start()
    logging.join(20)
    assert not logging.is_alive()
    length = int.from_bytes(runner.stdin.recv(4, socket.MSG_WAITALL), "big")
    assert len(runner.stdin.recv(length, socket.MSG_WAITALL)) == length > 1_000_000
    sending.join(20)
    assert not sending.is_alive()


@pytest.fixture
def run_triggerers(
    create_database: Callable[[], str], run_program: Callable[..., Any], tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Runs real triggerers with a DAG of many steps, in a database of their own; returns what was measured."""

    def run(*options: str, **more: str) -> dict[str, Any]:
        settings = SETTINGS | {"ARTIFACTS": f"file://{tmp_path}/artifacts"} | more
        arguments = ("run_triggerers.py", tmp_path, create_database(), settings, str(tmp_path))
        outcome: dict[str, Any] = run_program(*arguments, *options)
        return outcome

    return run


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_steps_deferred_at_once_survive_the_death_of_a_triggerer(run_triggerers: Any) -> None:
    outcome = run_triggerers("--steps=40", "--triggerers=2", "--kill=1", "--timeout=240")
    assert outcome["ends"] == []
    assert outcome["deferred"] == 40 and outcome["states"] == {"success": 40}, outcome
    assert outcome["created"] == outcome["distinct"] == 40
    assert outcome["peak_pods"] <= 32


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_step_that_prints_zero_bytes_does_not_stop_the_triggerer(run_triggerers: Any) -> None:
    """Postgres stores no U+0000 in JSON."""
    outcome = run_triggerers("--steps=2", "--code=65", r"--line=a\0b", "--lines=3", "--timeout=240")
    assert outcome["ends"] == []
    assert outcome["states"] == {"scheduled": 2}


NASTY = "-a 'b' \"c\" `d` --symbol=X $HOME 로직 변경: 반올림\n{{ run_id }} {% raw %} {y} %s \\ "


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("reason", [NASTY + "x" * (500 - len(NASTY)), None], ids=["nasty", "none"])
def test_a_runs_param_reaches_the_pod_as_it_is(reason: str | None, run_triggerers: Any) -> None:
    conf = json.dumps({"remake": reason})
    outcome = run_triggerers("--steps=1", "--triggerers=1", f"--conf={conf}", "--timeout=120")
    assert outcome["states"] == {"success": 1}, outcome
    [arguments] = outcome["arguments"]
    assert arguments[arguments.index("--remake") + 1] == (reason or "")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("returned", ["file:///earlier/manifest.json", ""])
def test_a_step_gets_the_manifest_that_another_has_returned_or_nothing(returned: str, run_triggerers: Any) -> None:
    """In the triggerer, and also if the other was skipped: a text None would be an invalid URI."""
    outcome = run_triggerers("--steps=2", "--triggerers=1", "--seconds=5", f"--returned={returned}", "--timeout=120")
    assert outcome["states"] == {"success": 2}, outcome
    [arguments] = [words for words in outcome["arguments"] if "--prices" in words]
    assert arguments[arguments.index("--prices") + 1] == returned


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_steps_of_several_indexes_start_from_the_triggerer_with_their_own_options(run_triggerers: Any) -> None:
    uri = "file:///earlier/manifest.json"
    outcome = run_triggerers("--steps=2", "--indexes=3", "--triggerers=1", "--seconds=5", f"--returned={uri}", "--timeout=120")
    assert outcome["deferred"] == 6 and outcome["states"] == {"success": 6}, outcome
    assert outcome["created"] == outcome["distinct"] == 6
    options = [dict(zip(words[1::2], words[2::2], strict=True)) for words in outcome["arguments"]]
    assert sorted(pod["--symbol"] for pod in options) == [f"INDEX{number}" for number in (0, 0, 1, 1, 2, 2)]
    prices = {pod["--symbol"]: pod["--prices"] for pod in options if "--prices" in pod}
    assert prices == {"INDEX0": "", "INDEX1": "", "INDEX2": uri}


class Receiver:
    """A receiver of OpenLineage events on HTTP, which answers after `delay` seconds."""

    def __init__(self, delay: float = 0) -> None:
        self.events: list[dict[str, Any]] = []
        received = self.events

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                data = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                received.append(json.loads(data))
                time.sleep(delay)
                with suppress(OSError):
                    self.send_response(200)
                    self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.block_on_close = True, False
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def settings(self) -> dict[str, str]:
        transport = {"type": "http", "url": f"http://127.0.0.1:{self.server.server_port}", "timeout": 3}
        return {"AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport), "AIRFLOW__OPENLINEAGE__NAMESPACE": "market-daily"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_steps_that_end_in_the_triggerer_are_openlineage_events(run_triggerers: Any, tmp_path: Path) -> None:
    receiver = Receiver()
    outcome = run_triggerers("--steps=2", "--triggerers=1", "--timeout=120", "--linger=5", **receiver.settings)
    receiver.server.shutdown()
    assert outcome["states"] == {"success": 2}, outcome
    events = [event for event in receiver.events if event["job"]["name"] == "wide.step_0000"]
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    assert len({event["run"]["runId"] for event in events}) == 1 and events[1]["job"]["namespace"] == "market-daily"
    assert events[1]["run"]["facets"]["parent"]["job"]["name"] == "wide"
    [dataset] = events[1]["outputs"]
    assert (dataset["namespace"], dataset["name"]) == ("file", f"{tmp_path}/artifacts/decisions/manifest.json")
    names = [(source["namespace"], source["name"]) for source in events[1]["inputs"]]
    assert names == [("https://host", "/2026.csv")]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_silent_openlineage_receiver_delays_no_step(run_triggerers: Any) -> None:
    receiver = Receiver(delay=600)
    outcome = run_triggerers("--steps=20", "--triggerers=1", "--timeout=120", **receiver.settings)
    receiver.server.shutdown()
    assert outcome["states"] == {"success": 20}, outcome
    # One event after another, each with its timeout of 3 s, would take two minutes.
    assert receiver.events and outcome["seconds"] < 90, outcome


@pytest.mark.parametrize(
    ("reason", "valid"),
    [
        (None, True),
        ("", True),
        ("a reason\n$HOME", True),
        ("x" * 501, False),
        ("$(AWS_SECRET_ACCESS_KEY)", False),
        ("US$$", False),
        (1, False),
    ],
)
def test_airflow_rejects_a_reason_that_no_step_accepts_or_that_kubernetes_would_expand(reason: Any, valid: bool) -> None:
    from airflow.sdk.exceptions import ParamValidationError
    from airflow_steps import remake

    if valid:
        assert remake.PARAM.resolve(reason) == reason
    else:
        with pytest.raises(ParamValidationError):
            remake.PARAM.resolve(reason)
