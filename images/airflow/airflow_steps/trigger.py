"""Runs a step's pod from the triggerer: no worker waits for it, and the pod outlives this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent
from airflow.utils.state import TaskInstanceState
from step_contract.errors import ExitCode, StepError, Termination

from airflow_steps import metrics
from airflow_steps.admission import admit
from airflow_steps.afterwards import give_back, in_background, remove
from airflow_steps.failure_log import note_step_end
from airflow_steps.links import links
from airflow_steps.memory import with_memory
from airflow_steps.outcome import settle
from airflow_steps.pod_client import Pods, Refused
from airflow_steps.pod_lifecycle import Following
from airflow_steps.pod_status import command_of, pod_of, task_labels
from airflow_steps.retry_policy import KEY
from airflow_steps.slots import Slots
from airflow_steps.templates import SingleXComs
from airflow_steps.termination import Ended

if TYPE_CHECKING:
    from airflow.sdk import Context

RENDER_SECONDS = 60.0


class StepTrigger(BaseTrigger):
    """Creates the pod of one try of a step, or adopts the one that is there, and follows it to its end.

    A step that has ended well, its artifact verified, ends the task here. Any other end is an event: a worker raises it by
    its class (`StepOperator.finish`), so that retries and callbacks are as ever.

    :param step: the step's name
    :param pod_template_dict: the pod, templated; its name and identifying labels come from the try
    :param container: the step's container in it
    :param start_seconds: how long the pod may take from its creation to the start of the container
    :param run_seconds: how long it may run; None: for ever
    :param limit: how many pods this triggerer runs at once
    :param queue_seconds: how long the pod may wait for a slot and for the cluster's consent; None: as long as the task may
    """

    def __init__(
        self,
        *,
        step: str,
        pod_template_dict: dict[str, Any],
        container: str,
        start_seconds: float,
        run_seconds: float | None,
        limit: int,
        queue_seconds: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.step = step
        self.pod_template_dict = pod_template_dict
        self.container = container
        self.start_seconds = start_seconds
        self.run_seconds = run_seconds
        self.limit = limit
        self.queue_seconds = queue_seconds
        self._context: Context | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class's path and the arguments that make this trigger again."""
        names = ("step", "pod_template_dict", "container", "start_seconds", "run_seconds", "limit", "queue_seconds")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Keeps the context; `run` renders, within a bound, as templates may pull XComs."""
        this = SingleXComs(context["ti"])
        self._context = cast("Context", dict(context) | {"ti": this, "task_instance": this})

    async def _render_in_time(self) -> None:
        if self._context is None:
            return
        try:
            async with asyncio.timeout(RENDER_SECONDS):
                super().render_template_fields(self._context)
        except TimeoutError as error:
            # Airflow 3.3.2 leaves a request that its triggerer does not know without an answer.
            advice = "a template asks for what a triggerer does not get; a task with runner='worker' does"
            raise AirflowException(
                f"the templates of {self.step} were not rendered in {RENDER_SECONDS:.0f} s: {advice}"
            ) from error

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields the one event that tells how the step ended."""
        await self._render_in_time()
        pods, pod = await Pods.here(), self._pod()
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        this: Any = self.task_instance
        whose = {"dag_id": this.dag_id, "task_id": this.task_id, "run_id": this.run_id, "map_index": this.map_index}
        failures = await XCom.aget_one(key=KEY, **whose) if this.try_number > 1 else None
        if more := with_memory(pod, self.container, failures or []):
            self.log.info("%s", more)
        await asyncio.to_thread(metrics.connect)
        slots = Slots.here(self.limit)
        self.log.info("%s", command_of(pod, self.container))
        if await self._is_there(pods, pod):
            slots.seize()
            in_background(metrics.tell_load(slots))
            self.log.info("pod %s is there already: going on with it", name)
        else:
            since = time.monotonic()
            try:
                new = await admit(pods, pod, slots, self.queue_seconds, self.log)
            except Refused as refused:
                yield (await asyncio.to_thread(self._event, Ended(None, b"", (), str(refused), Termination.START_FAILED)))[0]
                return
            metrics.took(metrics.WAITED, this, timedelta(seconds=time.monotonic() - since))
            self.log.info("pod %s created" if new else "pod %s is there already: going on with it", name)
        following = Following(pods, namespace, name, self.container, self.start_seconds, self.run_seconds, self.log)
        try:
            ended = await following.end()
        except BaseException:
            slots.give_back()
            raise
        in_background(give_back(slots, pods, namespace, name))
        for what, needed in zip((metrics.STARTED, metrics.RAN), following.times or (), strict=False):
            metrics.took(what, this, needed)
        self.log.info("ended: %s", ended.reason or f"exit code {ended.code}")
        event, told = await asyncio.to_thread(self._event, ended)
        # Airflow 3.3.2 encodes the XComs of an end event twice: a task that pulled one would get text. So not with the event.
        for key, value in told.items():
            await XCom.aset(key, value, **whose)
        in_background(remove(pods, namespace, name))
        yield event

    async def on_kill(self) -> None:
        """Deletes the pod where a person has marked the task.

        Airflow calls this too when another triggerer has taken the task over: the task is then still deferred, and the pod
        the other's. A cleared task that waits again looks the same; its new try removes the pod.
        """
        metadata = self._pod()["metadata"]
        if await asyncio.to_thread(self._state) == TaskInstanceState.DEFERRED:
            self.log.info("pod %s is left to another triggerer or try", metadata["name"])
            return
        await (await Pods.here()).delete(metadata["namespace"], metadata["name"])
        self.log.info("pod %s deleted", metadata["name"])

    def _state(self) -> str | None:
        this: Any = self.task_instance
        index = this.map_index if this.map_index is not None and this.map_index >= 0 else None
        whose = {"dag_id": this.dag_id, "task_ids": [this.task_id], "run_ids": [this.run_id], "map_index": index}
        states: dict[str, str | None] = next(iter(this.get_task_states(**whose).values()), {})
        return next(iter(states.values()), None)

    async def _is_there(self, pods: Pods, pod: dict[str, Any]) -> bool:
        """Whether the pod of this try is there. Earlier tries' pods that still run are deleted."""
        metadata, there = pod["metadata"], False
        for other in await pods.of_labels(metadata["namespace"], task_labels(metadata["labels"])):
            if other.metadata.name == metadata["name"]:
                there = True
            elif other.status.phase not in ("Succeeded", "Failed"):
                self.log.info("pod %s of an earlier try is deleted", other.metadata.name)
                await pods.delete(metadata["namespace"], other.metadata.name)
        return there

    def _pod(self) -> dict[str, Any]:
        this: Any = self.task_instance
        return pod_of(self.pod_template_dict, this)

    def _event(self, ended: Ended) -> tuple[TriggerEvent, dict[str, Any]]:
        """The event that tells how the step ended, and its XComs. Counts the ends that no worker settles again."""
        this: Any = self.task_instance
        try:
            made = settle(self.step, ended)
        except AirflowSkipException as skipped:
            self.log.info("%s", skipped)
            metrics.count_end(this, ExitCode.NOTHING_TO_DO)
            return TaskSkippedEvent(), {}
        except (AirflowException, StepError) as error:
            self.log.error("%s", error)
            note_step_end(this, error)
            return TriggerEvent(ended.to_event()), {}
        self.log.info("artifact verified: %s", made.manifest)
        metrics.count_end(this, ExitCode.SUCCESS)
        told = {"return_value": made.manifest, "facts": dict(made.facts)}
        return TaskSuccessEvent(), told | links(made.manifest, made.files)
