"""A trigger run as a triggerer runs it, against a Kubernetes API of the test's own. `play` runs a scenario."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetXCom, XComResult
from airflow.triggers.base import TriggerEvent
from airflow_steps.trigger import StepTrigger
from kubernetes_asyncio.config import kube_config
from step_contract.commit import Content, commit
from step_contract.store import Store

from .fake_kubernetes import NAMESPACE, KubernetesApi


@dataclass
class Try:
    """One try, as Airflow tells a trigger of it."""

    task_id: str = "decide"
    try_number: int = 1
    id: str = "01a1"
    dag_id: str = "market_daily"
    run_id: str = "session__2026-01-15"
    map_index: int | None = -1
    state: str = "deferred"

    def get_task_states(self, **whose: Any) -> dict[str, dict[str, str]]:
        return {self.run_id: {self.task_id: self.state}}


class Comms:
    """Keeps the XComs that are sent to Airflow."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    async def asend(self, message: Any) -> Any:
        if isinstance(message, GetXCom):
            return XComResult(key=message.key, value=self.xcoms.get(message.key))
        self.xcoms[message.key] = message.value
        return None


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> Comms:
    comms = Comms()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    return comms


def trigger(this: Try, **more: Any) -> StepTrigger:
    pod = {
        "metadata": {"namespace": NAMESPACE, "labels": {}},
        "spec": {"containers": [{"name": "base", "image": "collector:1", "args": ["decide", "--session", "2026-01-15"]}]},
    }
    settings = {"start_seconds": 30, "run_seconds": 30, "limit": 8} | more
    made = StepTrigger(step="decide", pod_template_dict=pod, container="base", **settings)
    made.task_instance = this  # type: ignore[assignment]
    return made


async def event_of(made: StepTrigger) -> TriggerEvent:
    [event] = [event async for event in made.run()]
    return event


Scenario = Callable[[KubernetesApi], Awaitable[Any]]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comms: Comms) -> Callable[[Scenario], Any]:
    """Runs a scenario against a Kubernetes API of its own."""

    @asynccontextmanager
    async def served() -> AsyncIterator[KubernetesApi]:
        api = KubernetesApi()
        path = await api.start(tmp_path)
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        try:
            yield api
        finally:
            await api.stop()

    def run(scenario: Scenario) -> Any:
        async def main() -> Any:
            async with served() as api, asyncio.timeout(30):
                return await scenario(api)

        return asyncio.run(main())

    return run


async def created(api: KubernetesApi, name: str) -> None:
    while name not in api.pods:
        await asyncio.sleep(0.01)


def artifact(tmp_path: Path) -> str:
    content = Content({"decision.json": b"{}"}, rows=0, schema_version=1, facts={})
    where = Store(f"file://{tmp_path}/artifacts")
    return commit(where, "decisions", step="decide", session=date(2026, 1, 15), inputs={}, content=content).uri
