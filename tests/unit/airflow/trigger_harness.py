"""Runs a trigger as a triggerer does, against a fake Kubernetes API. `play` runs a scenario."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, GetXCom, XComResult
from airflow.triggers.base import TriggerEvent
from airflow_steps.pods.client import DELETE_PHASES
from airflow_steps.trigger import StepTrigger
from kubernetes_asyncio.config import kube_config
from step_contract.commit import Content, commit
from step_contract.store import Store

from .fake_kubernetes import NAMESPACE, KubernetesApi


@dataclass
class TaskInstance:
    """An attempt of a task, as the triggerer sees it."""

    task_id: str = "decide"
    try_number: int = 1
    id: str = "01a1"
    dag_id: str = "market_daily"
    run_id: str = "session__2026-01-15"
    map_index: int | None = -1
    state: str = "deferred"
    lookups: int = 0

    def get_task_states(self, **query: Any) -> dict[str, dict[str, str]]:
        self.lookups += 1
        return {self.run_id: {self.task_id: self.state}}


class SupervisorComms:
    """Keeps the XComs that are sent to Airflow's supervisor, after it has rejected as many as `conflicts`."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}
        self.conflicts = 0

    async def asend(self, message: Any) -> Any:
        if isinstance(message, GetXCom):
            return XComResult(key=message.key, value=self.xcoms.get(message.key))
        if self.conflicts:
            self.conflicts -= 1
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 409}))
        self.xcoms[message.key] = message.value
        return None


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> SupervisorComms:
    comms = SupervisorComms()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    return comms


def make_trigger(ti: TaskInstance, *, on_finish: str = "", **more: Any) -> StepTrigger:
    pod = {
        "metadata": {"namespace": NAMESPACE, "labels": {}, "annotations": {DELETE_PHASES: on_finish}},
        "spec": {"containers": [{"name": "base", "image": "collector:1", "args": ["decide", "--session", "2026-01-15"]}]},
    }
    settings = {"start_timeout": 30, "run_timeout": 30, "max_pods": 8} | more
    trigger = StepTrigger(step="decide", pod_template_dict=pod, container="base", **settings)
    trigger.task_instance = ti  # type: ignore[assignment]
    return trigger


async def run_trigger(trigger: StepTrigger) -> TriggerEvent:
    [event] = [event async for event in trigger.run()]
    return event


Scenario = Callable[[KubernetesApi], Awaitable[Any]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comms: SupervisorComms) -> Callable[[Scenario], Any]:
    """Runs a scenario against a fake Kubernetes API of its own."""

    @asynccontextmanager
    async def serve() -> AsyncIterator[KubernetesApi]:
        api = KubernetesApi()
        path = await api.start(tmp_path)
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        try:
            yield api
        finally:
            await api.stop()

    def run(scenario: Scenario) -> Any:
        async def main() -> Any:
            async with serve() as api, asyncio.timeout(30):
                return await scenario(api)

        return asyncio.run(main())

    return run


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; `play` limits how long."""
    while not condition():
        await asyncio.sleep(0.01)


async def wait_for_pod(api: KubernetesApi, name: str) -> None:
    await wait_until(lambda: name in api.pods)


def commit_artifact(tmp_path: Path) -> str:
    content = Content({"decision.json": b"{}"}, rows=0, schema_version=1, facts={})
    store = Store(f"file://{tmp_path}/artifacts")
    return commit(store, "decisions", step="decide", session=date(2026, 1, 15), inputs={}, content=content).uri
