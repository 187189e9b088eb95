"""What is sent to StatsD, by Airflow's own client, as a server of the test's own receives it."""

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
from airflow_steps.pod_status import pod_name
from step_contract.result import Result

from .conftest import Program
from .fake_kubernetes import KubernetesApi
from .test_operator import TaskInstance
from .trigger_harness import Try, artifact, created, event_of, trigger

Sent = Callable[[str], str]


def told_to(port: int) -> dict[str, str]:
    return {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(port),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        "AIRFLOW__METRICS__LEGACY_NAMES_ON": "False",
    }


def set_up() -> None:
    """As Airflow's own processes set its client up when they start."""
    stats.initialize(factory=get_stats_factory(), export_legacy_names=False)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        yield server


@pytest.fixture
def sent(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sent]:
    """Waits for a datagram that begins with a name and returns the rest of it; what comes before it is kept for later."""
    for name, value in told_to(server.getsockname()[1]).items():
        monkeypatch.setenv(name, value)
    set_up()
    received: list[str] = []

    def of(name: str) -> str:
        while not (found := [one for one in received if one.startswith(f"airflow.{name}")]):
            received.append(server.recv(1000).decode())
        received.remove(found[0])
        return found[0].removeprefix(f"airflow.{name}")

    yield of
    monkeypatch.undo()
    set_up()


async def ends(api: KubernetesApi, this: Try, code: int, message: str = "", **more: Any) -> Any:
    running = asyncio.create_task(event_of(trigger(this)))
    await created(api, pod_name(this))
    await api.runs(pod_name(this))
    await api.ends(pod_name(this), code, message, **more)
    return await running


def test_a_step_tells_how_long_it_waited_started_and_ran_and_that_it_is_done(play: Any, sent: Sent, tmp_path: Path) -> None:
    this = Try(task_id="forecast.decide")

    async def scenario(api: KubernetesApi) -> Any:
        running = asyncio.create_task(event_of(trigger(this)))
        name = pod_name(this)
        await created(api, name)
        api.pods[name]["metadata"]["creationTimestamp"] = "2026-01-15T09:00:00Z"
        times = {"startedAt": "2026-01-15T09:00:03Z", "finishedAt": "2026-01-15T09:01:13Z"}
        await api.ends(name, 0, Result(artifact(tmp_path)).to_json().decode(), **times)
        return await running

    assert isinstance(play(scenario), TaskSuccessEvent)
    assert re.fullmatch(r":\d+\.\d+\|ms", sent("market_daily.steps.waited.market_daily.forecast__decide"))
    assert sent("market_daily.steps.started.market_daily.forecast__decide") == ":3000.000000|ms"
    assert sent("market_daily.steps.ran.market_daily.forecast__decide") == ":70000.000000|ms"
    assert sent("market_daily.steps.ended.market_daily.forecast__decide") == ".done:1|c"


def test_a_triggerer_tells_under_its_own_name_how_many_run_and_wait_as_long_as_any_does(
    play: Any, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "SLOTS_SECONDS", 0.05)
    tries = Try(task_id="first"), Try(task_id="second")
    mine = socket.gethostname().replace(".", "__")

    async def load(taken: int, waiting: int) -> None:
        while await asyncio.to_thread(sent, f"market_daily.slots.taken.{mine}") != f":{taken}|g":
            pass
        while await asyncio.to_thread(sent, f"market_daily.slots.waiting.{mine}") != f":{waiting}|g":
            pass

    async def scenario(api: KubernetesApi) -> None:
        running = [asyncio.create_task(event_of(trigger(this, limit=1))) for this in tries]
        for number, waiting in enumerate((1, 0)):
            await load(taken=1, waiting=waiting)
            while len(api.created) <= number:
                await asyncio.sleep(0.01)
            await api.ends(api.created[number], 65)
        await load(taken=0, waiting=0)
        await asyncio.gather(*running)

    play(scenario)
    assert sent(f"market_daily.slots.there.{mine}") == ":1|g"


@pytest.mark.parametrize(("code", "cause"), [(65, "data_wrong"), (69, "source_not_ready"), (99, "nothing_to_do"), (1, "fault")])
def test_an_end_in_a_worker_is_counted_by_its_cause(program: Program, sent: Sent, code: int, cause: str) -> None:
    program(f"sys.exit({code})")
    step = StepOperator(task_id="fetch_prices", program="collector", step="fetch-prices", options={})
    with pytest.raises(Exception, match="fetch-prices"):
        step.execute({"ti": TaskInstance()})  # type: ignore[typeddict-item]
    assert sent("market_daily.steps.ended.market_daily.fetch_prices") == f".{cause}:1|c"


def test_a_step_that_says_it_is_done_and_made_nothing_is_not_counted_as_done(program: Program, sent: Sent) -> None:
    program("sys.exit(0)")
    step = StepOperator(task_id="fetch_prices", program="collector", step="fetch-prices", options={})
    with pytest.raises(AirflowFailException):
        step.execute({"ti": TaskInstance()})  # type: ignore[typeddict-item]
    assert sent("market_daily.steps.ended.market_daily.fetch_prices") == ".data_wrong:1|c"


def test_an_end_is_counted_once_by_who_ends_the_task(play: Any, sent: Sent) -> None:
    """The triggerer where nothing is to do; what it hands to a worker the worker counts."""
    this = Try()

    async def scenario(api: KubernetesApi) -> None:
        await ends(api, this, 65)
        await ends(api, Try(try_number=2), 99)

    play(scenario)
    assert sent("market_daily.steps.ended.") == "market_daily.decide.nothing_to_do:1|c"


@pytest.mark.slow
def test_a_process_beside_airflow_sends_gauges_by_airflows_settings(sent: Sent) -> None:
    code = "from airflow_steps.metrics import *; gauge(WATCHER_ROUND, 1768467600.5); gauge(named(DAG_LATE, dag_id='a.b c'), 7)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert sent("market_daily.watcher.round") == ":1768467600.5|g"
    assert sent("market_daily.dag.a__b_c.late_seconds") == ":7|g"


def test_where_nobody_listens_or_the_server_has_no_address_a_step_ends_as_ever(
    play: Any, sent: Sent, server: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Result(artifact(tmp_path)).to_json().decode()
    server.close()
    assert isinstance(play(lambda api: ends(api, Try(), 0, done)), TaskSuccessEvent)
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_HOST", "nobody.invalid")
    set_up()
    assert isinstance(play(lambda api: ends(api, Try(), 0, done)), TaskSuccessEvent)
