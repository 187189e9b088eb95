"""Airflow's triggerer, with a cost for each step that does not depend on how many steps its DAG has.

    python -m airflow_steps.triggerer        # instead of `airflow triggerer`, with the same options

Airflow 3.3.2 reads, deserializes and sends the whole serialized DAG with each trigger that starts a task; of a DAG with 1,000
steps, a second is spent and 30 MB are held for each. Here a trigger gets the DAG with its own task only. Triggers start in small
groups, so that neither process is busy for longer than a heartbeat, and a step's start and end are passed on at once instead of
once a second. docs/decisions/0025-own-triggerer-process.md has the reasons and the figures.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import attrs
from airflow.__main__ import main as run_airflow
from airflow.callbacks.database_callback_sink import DatabaseCallbackSink
from airflow.jobs import triggerer_job_runner
from airflow.jobs.triggerer_job_runner import TriggerRunner, TriggerRunnerSupervisor
from airflow.serialization.serialized_objects import DagSerialization
from airflow.triggers.base import TaskSuccessEvent

GROUP_SIZE = 32  # triggers that start together
PASS_SECONDS = 0.2
# Airflow's own loop is returned to this often: it checks the connection to the supervisor and logs the number of triggers.
RETURN_SECONDS = 30.0


class SingleTaskModel:
    """A serialized DAG reduced to one of its tasks, in place of Airflow's SerializedDagModel.

    The task has no neighbours and no task groups: a trigger renders its own templates, whatever they pull.
    """

    def __init__(self, data: dict[str, Any], task_id: str) -> None:
        self.data = select_task(data, task_id)

    @property
    def dag(self) -> Any:
        """The deserialized DAG."""
        return DagSerialization.from_dict(self.data)


def select_task(data: dict[str, Any], task_id: str) -> dict[str, Any]:
    """Return the serialized DAG with the task `task_id` only, or without tasks if it has none of that id."""
    dag = {key: value for key, value in data["dag"].items() if key != "task_group"}
    dag["tasks"] = [
        task | {"__var": {key: value for key, value in task["__var"].items() if key != "downstream_task_ids"}}
        for task in data["dag"]["tasks"]
        if task["__var"]["task_id"] == task_id
    ]
    return data | {"dag": dag}


class SingleTaskBag:
    """Airflow's DBDagBag for one trigger: it returns the model of the trigger's DAG with the trigger's task only.

    `models` keeps the models that were read, by run: reading one again costs as much as the DAG is long.
    """

    def __init__(self, dag_bag: Any, task_id: str, models: dict[Any, Any]) -> None:
        self._dag_bag, self._task_id, self._models = dag_bag, task_id, models

    def get_serialized_dag_model_for_run(self, dag_run: Any, *, session: Any) -> SingleTaskModel | None:
        """Return the model of the version that the run uses."""
        key = dag_run.dag_id, dag_run.run_id
        if key not in self._models:
            self._models[key] = self._dag_bag.get_serialized_dag_model_for_run(dag_run, session=session)
        return self._reduce(self._models[key])

    def get_serialized_dag_model(self, version_id: Any, session: Any) -> SingleTaskModel | None:
        """Return the model of the version."""
        if version_id not in self._models:
            self._models[version_id] = self._dag_bag.get_serialized_dag_model(version_id=version_id, session=session)
        return self._reduce(self._models[version_id])

    def _reduce(self, model: Any) -> SingleTaskModel | None:
        return None if model is None else SingleTaskModel(model.data, self._task_id)


@attrs.define(kw_only=True)
class StepTriggerSupervisor(TriggerRunnerSupervisor):
    """The process that reads triggers from the database and stores their events."""

    _models: dict[Any, Any] = attrs.field(factory=dict, init=False)
    # Triggers of tasks without callbacks for success.
    _quiet_triggers: set[int] = attrs.field(factory=set, init=False)

    @classmethod
    def run_in_process(cls) -> None:
        """Run the triggers, in the child process."""
        StepTriggerRunner().run()

    def build_trigger_workloads(self, new_trigger_ids: set[int]) -> list[Any]:
        """Return the first new triggers; Airflow asks for the others in the next pass."""
        try:
            return super().build_trigger_workloads(set(sorted(new_trigger_ids)[:GROUP_SIZE]))
        finally:
            self._models.clear()

    def _create_workload(self, trigger: Any, dag_bag: Any, render_log_fname: Any, session: Any) -> Any:
        if trigger.task_instance is None:
            return super()._create_workload(trigger, dag_bag, render_log_fname, session)
        bag = SingleTaskBag(dag_bag, trigger.task_instance.task_id, self._models)
        workload = super()._create_workload(trigger, bag, render_log_fname, session)
        if workload and workload.dag_data and not has_success_callback(workload.dag_data):
            self._quiet_triggers.add(trigger.id)
        return workload

    def on_trigger_event(self, trigger_id: int, event: Any) -> None:
        """Store an event. A task without a callback for success costs no parse of its DAG file for that callback."""
        if trigger_id in self._quiet_triggers and isinstance(event, TaskSuccessEvent):
            with patch.object(DatabaseCallbackSink, "send"):
                super().on_trigger_event(trigger_id, event)
        else:
            super().on_trigger_event(trigger_id, event)
        self._quiet_triggers.discard(trigger_id)


def has_success_callback(data: dict[str, Any]) -> bool:
    """Return whether one of the serialized DAG's tasks has a callback for success."""
    return any(task["__var"].get("has_on_success_callback") for task in data["dag"]["tasks"])


class Events(deque[Any]):
    """The events that triggers have yielded; `wake` is set when one is added."""

    def __init__(self, wake: asyncio.Event, events: Iterable[Any] = ()) -> None:
        super().__init__(events)
        self._wake = wake

    def append(self, event: Any) -> None:
        """Add an event."""
        super().append(event)
        self._wake.set()


class StepTriggerRunner(TriggerRunner):
    """The process that runs the triggers."""

    def __init__(self) -> None:
        super().__init__()
        self._wake = asyncio.Event()
        self.events = Events(self._wake)

    async def cancel_triggers(self) -> None:
        """Cancel triggers, then pass events and triggers on until none runs.

        This is the last call in a pass of Airflow's loop, which then sleeps for a second.
        """
        await super().cancel_triggers()
        return_at = time.monotonic() + RETURN_SECONDS
        while self.triggers and not self.stop and not self.comms_decoder._reader_task.done() and time.monotonic() < return_at:
            with suppress(TimeoutError):
                async with asyncio.timeout(PASS_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            await self.sync_state_to_supervisor(await self.cleanup_finished_triggers())
            await self.create_triggers()
            await super().cancel_triggers()


def main(arguments: list[str]) -> None:
    """Run `airflow triggerer` with the processes above."""
    with patch.object(triggerer_job_runner, "TriggerRunnerSupervisor", StepTriggerSupervisor):
        sys.argv = ["airflow", "triggerer", *arguments]
        run_airflow()


if __name__ == "__main__":
    main(sys.argv[1:])
