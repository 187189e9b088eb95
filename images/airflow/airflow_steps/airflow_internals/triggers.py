"""What the triggerer gives to a trigger that starts a task: templates, XComs, and the state of the task."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import TaskInstanceState
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

# Another triggerer has taken over the task, or a worker continues the attempt after an event or failure in the triggerer. A
# task that is killed or cleared has another state. Relies on `Trigger.submit_event` and `submit_failure`, which set SCHEDULED.
CONTINUED_STATES = (
    TaskInstanceState.DEFERRED,
    TaskInstanceState.SCHEDULED,
    TaskInstanceState.QUEUED,
    TaskInstanceState.RUNNING,
)
# Pauses before a rejected request to store an XCom is repeated.
XCOM_RETRY_SECONDS = (0.5, 2.0, 5.0)


class TaskTrigger(BaseTrigger):
    """A trigger that starts a task (`start_from_trigger`), and renders its templates in `run`.

    Relies on airflow.jobs.triggerer_job_runner:

    - `TriggerRunner.create_triggers` sets `task_instance`, a RuntimeTaskInstance if the DAG could be deserialized, otherwise
      the data of one (`can_render`);
    - `TriggerRunner.run_trigger` calls `render_template_fields` with a context before `run`. It is synchronous and not
      limited in time, and templates may pull XComs: so it only keeps the context here. If Airflow renders elsewhere,
      `render_templates` finds no context, and templates reach the pod unrendered.
    - BaseTrigger renders those attributes that are template fields of the operator and keys of `trigger_kwargs`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kept_context: Context | None = None

    @property
    def can_render(self) -> bool:
        """Whether Airflow has found a DAG with this task. Relies on what only a RuntimeTaskInstance has."""
        return hasattr(self.task_instance, "get_task_states")

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Keep the context for `render_templates`."""
        ti = UnmappedXComs(context["ti"])
        self._kept_context = cast("Context", dict(context) | {"ti": ti, "task_instance": ti})

    async def render_templates(self, timeout_seconds: float) -> None:
        """Render the template fields. Raises TimeoutError.

        Airflow 3.3.2 does not answer a request that its triggerer does not know.
        """
        if self._kept_context is not None:
            async with asyncio.timeout(timeout_seconds):
                super().render_template_fields(self._kept_context)

    async def read_xcom(self, key: str) -> Any:
        """Return an XCom of this task instance, or None. Relies on the XCom backend of airflow.sdk.execution_time."""
        return await XCom.aget_one(key=key, **self._get_xcom_key())

    async def write_xcoms(self, xcoms: Mapping[str, Any]) -> None:
        """Store XComs of this task instance.

        Airflow 3.3.2 encodes the XComs of a TaskSuccessEvent twice: a task that pulls one would get text.

        A rejected request is repeated: while the trigger moves to another triggerer, both may store the same XCom at the same
        moment, and Airflow's API, which deletes the old one before it inserts, answers one of them with a conflict.
        """
        for key, value in xcoms.items():
            for delay in XCOM_RETRY_SECONDS:
                try:
                    await XCom.aset(key, value, **self._get_xcom_key())
                    break
                except AirflowRuntimeError as error:
                    self.log.info("XCom %s is not stored yet: %s", key, error)
                    await asyncio.sleep(delay)
            else:
                await XCom.aset(key, value, **self._get_xcom_key())

    def _get_xcom_key(self) -> dict[str, Any]:
        ti: Any = self.task_instance
        return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}

    def get_task_state(self) -> str | None:
        """Return the state of this task instance; blocks.

        Relies on `RuntimeTaskInstance.get_task_states`, on whose result the states are by run id, and then by task id, to which
        Airflow adds the map index of a mapped task. Without `map_index` it has the states of all.
        """
        ti: Any = self.task_instance
        map_index = ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None
        query = {"dag_id": ti.dag_id, "task_ids": [ti.task_id], "run_ids": [ti.run_id], "map_index": map_index}
        states: dict[str, str | None] = next(iter(ti.get_task_states(**query).values()), {})
        return next(iter(states.values()), None)


class UnmappedXComs:
    """A task instance for templates, whose `xcom_pull` without `map_indexes` pulls from an unmapped task.

    Pulling from all indexes of a mapped task is a request (GetXComSequenceSlice) that Airflow 3.3.2's triggerer does not know
    and never answers. Once `ToTriggerSupervisor` in airflow.jobs.triggerer_job_runner has it, delete this class.
    """

    def __init__(self, ti: Any) -> None:
        self._ti = ti

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ti, name)

    def xcom_pull(self, *args: Any, map_indexes: Any = -1, **kwargs: Any) -> Any:
        """Pull an XCom, as the task instance does."""
        return self._ti.xcom_pull(*args, map_indexes=map_indexes, **kwargs)
