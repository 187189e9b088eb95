"""What Airflow's client sends to StatsD, as a server in the test receives it."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory
from airflow.triggers.base import TaskSuccessEvent
from airflow_steps import metrics
from airflow_steps.operator import StepOperator
from airflow_steps.pods.spec import make_pod_name
from step_contract.result import Result

from .conftest import Program
from .fake_kubernetes import KubernetesApi
from .test_operator import WorkerTaskInstance
from .trigger_harness import TaskInstance, commit_artifact, make_trigger, run_trigger, wait_for_pod

Sent = Callable[[str], str]


def make_settings(port: int) -> dict[str, str]:
    return {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(port),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        "AIRFLOW__METRICS__LEGACY_NAMES_ON": "False",
    }


def initialize_client() -> None:
    """Initialize the client as Airflow's own processes do when they start."""
    stats.initialize(factory=get_stats_factory(), export_legacy_names=False)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


@pytest.fixture
def sent(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """Waits for the datagram of a metric and returns the rest of it; other datagrams are kept for later calls."""
    for name, value in make_settings(server.getsockname()[1]).items():
        monkeypatch.setenv(name, value)
    initialize_client()
    received: list[str] = []

    def receive(name: str) -> str:
        while not (matches := [datagram for datagram in received if datagram.startswith(f"airflow.{name}")]):
            received.append(server.recv(1000).decode())
        received.remove(matches[0])
        return matches[0].removeprefix(f"airflow.{name}")

    yield receive
    monkeypatch.undo()
    initialize_client()


async def run_step(api: KubernetesApi, ti: TaskInstance, code: int, message: str = "", **more: Any) -> Any:
    running = asyncio.create_task(run_trigger(make_trigger(ti)))
    await wait_for_pod(api, make_pod_name(ti))
    await api.start_container(make_pod_name(ti))
    await api.terminate_container(make_pod_name(ti), code, message, **more)
    return await running


def test_a_successful_step_sends_its_durations_and_outcome(play: Any, sent: Sent, tmp_path: Path) -> None:
    ti = TaskInstance(task_id="forecast.decide")

    async def scenario(api: KubernetesApi) -> Any:
        running = asyncio.create_task(run_trigger(make_trigger(ti)))
        name = make_pod_name(ti)
        await wait_for_pod(api, name)
        api.pods[name]["metadata"]["creationTimestamp"] = "2026-01-15T09:00:00Z"
        times = {"startedAt": "2026-01-15T09:00:03Z", "finishedAt": "2026-01-15T09:01:13Z"}
        await api.terminate_container(name, 0, Result(commit_artifact(tmp_path)).to_json().decode(), **times)
        return await running

    assert isinstance(play(scenario), TaskSuccessEvent)
    assert re.fullmatch(r":\d+\.\d+\|ms", sent("market_daily.step.queue.market_daily.forecast__decide"))
    assert sent("market_daily.step.start.market_daily.forecast__decide") == ":3000.000000|ms"
    assert sent("market_daily.step.run.market_daily.forecast__decide") == ":70000.000000|ms"
    assert sent("market_daily.step.attempts.market_daily.forecast__decide") == ".success:1|c"


def test_a_triggerer_reports_its_slots_while_any_is_in_use(play: Any, sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "POD_SLOTS_SECONDS", 0.05)
    tis = TaskInstance(task_id="first"), TaskInstance(task_id="second")
    triggerer = socket.gethostname().replace(".", "__")

    async def wait_for_slots(acquired: int, waiting: int) -> None:
        while await asyncio.to_thread(sent, f"market_daily.pod_slots.acquired.{triggerer}") != f":{acquired}|g":
            pass
        while await asyncio.to_thread(sent, f"market_daily.pod_slots.waiting.{triggerer}") != f":{waiting}|g":
            pass

    async def scenario(api: KubernetesApi) -> None:
        running = [asyncio.create_task(run_trigger(make_trigger(ti, max_pods=1))) for ti in tis]
        for number, waiting in enumerate((1, 0)):
            await wait_for_slots(acquired=1, waiting=waiting)
            while len(api.created) <= number:
                await asyncio.sleep(0.01)
            await api.terminate_container(api.created[number], 65)
        await wait_for_slots(acquired=0, waiting=0)
        await asyncio.gather(*running)

    play(scenario)
    assert sent(f"market_daily.pod_slots.limit.{triggerer}") == ":1|g"


@pytest.mark.parametrize(
    ("code", "outcome"), [(65, "invalid_data"), (69, "source_unavailable"), (99, "nothing_to_do"), (1, "error")]
)
def test_a_worker_counts_the_outcome(program: Program, sent: Sent, code: int, outcome: str) -> None:
    program(f"sys.exit({code})")
    step = StepOperator(program="collector", step="fetch-prices", options={})
    with pytest.raises(Exception, match="fetch-prices"):
        step.execute({"ti": WorkerTaskInstance()})  # type: ignore[typeddict-item]
    assert sent("market_daily.step.attempts.market_daily.fetch_prices") == f".{outcome}:1|c"


def test_success_without_an_artifact_is_not_counted_as_success(program: Program, sent: Sent) -> None:
    program("sys.exit(0)")
    step = StepOperator(program="collector", step="fetch-prices", options={})
    with pytest.raises(AirflowFailException):
        step.execute({"ti": WorkerTaskInstance()})  # type: ignore[typeddict-item]
    assert sent("market_daily.step.attempts.market_daily.fetch_prices") == ".invalid_data:1|c"


def test_an_attempt_is_counted_once(play: Any, sent: Sent) -> None:
    """The triggerer counts a step without work; what it hands to a worker, the worker counts."""
    ti = TaskInstance()

    async def scenario(api: KubernetesApi) -> None:
        await run_step(api, ti, 65)
        await run_step(api, TaskInstance(try_number=2), 99)

    play(scenario)
    assert sent("market_daily.step.attempts.") == "market_daily.decide.nothing_to_do:1|c"


@pytest.mark.slow
def test_the_monitor_sends_gauges_with_airflows_settings(sent: Sent) -> None:
    code = "from airflow_monitor.metrics import *; from airflow_steps.metrics import format_name; "
    code += "from airflow_steps.airflow_internals.statsd_client import set_gauge; "
    code += "set_gauge(LAST_POLL, 1768467600.5); set_gauge(format_name(DAG_LATE, dag_id='a.b c'), 7)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert sent("market_daily.monitor.last_poll") == ":1768467600.5|g"
    assert sent("market_daily.dag.a__b_c.late_seconds") == ":7|g"


def test_an_unreachable_server_does_not_fail_a_step(
    play: Any, sent: Sent, server: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Result(commit_artifact(tmp_path)).to_json().decode()
    server.close()
    assert isinstance(play(lambda api: run_step(api, TaskInstance(), 0, result)), TaskSuccessEvent)
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "nobody.invalid")
    initialize_client()
    assert isinstance(play(lambda api: run_step(api, TaskInstance(), 0, result)), TaskSuccessEvent)
