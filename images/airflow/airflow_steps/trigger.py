"""The trigger of a step: it runs the step's pod from the triggerer, without a worker, and the pod outlives this process."""

from __future__ import annotations

import asyncio
import logging
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
from airflow_steps.failure_log import record_termination
from airflow_steps.links import make_link_xcoms
from airflow_steps.outcome import verify_outcome
from airflow_steps.pods.client import PodClient, PodRejectedError
from airflow_steps.pods.follower import PodFollower
from airflow_steps.pods.lifecycle import (
    create_pod,
    delete_pod,
    discard_pod,
    finish_pod,
    run_in_background,
)
from airflow_steps.pods.slots import PodSlots
from airflow_steps.pods.spec import (
    describe_command,
    increase_container_memory,
    is_later_attempt,
    make_pod,
    select_task_labels,
)
from airflow_steps.pods.status import has_terminated
from airflow_steps.termination import ExitStatus

if TYPE_CHECKING:
    from airflow.sdk import Context

RENDER_TIMEOUT_SECONDS = 60.0
STATE_TIMEOUT_SECONDS = 30.0
STATE_RETRY_SECONDS = 5.0
UNKNOWN = "unknown"
# Another triggerer has taken over the task, or a worker continues the attempt after an event or failure there. A task that is
# killed or cleared has another state.
CONTINUED_STATES = (
    TaskInstanceState.DEFERRED,
    TaskInstanceState.SCHEDULED,
    TaskInstanceState.QUEUED,
    TaskInstanceState.RUNNING,
)
# The XCom with the terminations of a task's earlier attempts: a trigger cannot read the task state store.
FAILURES_KEY = "failures"


log = logging.getLogger(__name__)


class OutdatedAttemptError(Exception):
    """A later attempt of the task has a pod."""


class StepTrigger(BaseTrigger):
    """Creates the pod of one attempt of a step, or adopts it if it exists, and follows it until it terminates.

    A step that succeeded, its artifact verified, ends the task here. Any other termination is an event: a worker raises it as
    an exception (`StepOperator.execute_complete`), so that retries and callbacks work as for any task.

    :param step: the step's name
    :param pod_template_dict: the pod, templated; name and identifying labels come from the attempt
    :param container: the name of the step's container
    :param start_timeout: seconds from the pod's creation to the container's start
    :param run_timeout: seconds that the container may run; None: no limit
    :param max_pods: how many pods this triggerer runs at once
    :param queue_timeout: seconds that the pod may wait for a slot and for admission; None: no limit
    """

    def __init__(
        self,
        *,
        step: str,
        pod_template_dict: dict[str, Any],
        container: str,
        start_timeout: float,
        run_timeout: float | None,
        max_pods: int,
        queue_timeout: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.step = step
        # The triggerer renders the fields whose names are also template fields of the operator: this name is one.
        self.pod_template_dict = pod_template_dict
        self.container = container
        self.start_timeout = start_timeout
        self.run_timeout = run_timeout
        self.max_pods = max_pods
        self.queue_timeout = queue_timeout
        self._context: Context | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that create this trigger again."""
        names = ("step", "pod_template_dict", "container", "start_timeout", "run_timeout", "max_pods", "queue_timeout")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Keep the context. `run` renders the templates, with a timeout, as they may pull XComs."""
        ti = UnmappedXComs(context["ti"])
        self._context = cast("Context", dict(context) | {"ti": ti, "task_instance": ti})

    async def _render_templates(self) -> None:
        if self._context is None:
            return
        try:
            async with asyncio.timeout(RENDER_TIMEOUT_SECONDS):
                super().render_template_fields(self._context)
        except TimeoutError as error:
            # Airflow 3.3.2 does not answer a request that its triggerer does not know.
            raise AirflowException(
                f"{self.step}: its templates were not rendered within {RENDER_TIMEOUT_SECONDS:.0f} s: one of them needs what "
                "Airflow does not provide in the triggerer; set runner='worker' for this task"
            ) from error

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, the step's outcome. Raises AirflowException if the templates cannot be rendered: a worker can."""
        if not hasattr(self.task_instance, "get_task_states"):
            raise AirflowException(f"{self.step}: its templates cannot be rendered: Airflow has found no DAG with this task")
        await self._render_templates()
        client, pod = await PodClient.get(), self._make_pod()
        name, ti = pod["metadata"]["name"], cast("Any", self.task_instance)
        failures = await XCom.aget_one(key=FAILURES_KEY, **self._get_xcom_key()) if ti.try_number > 1 else None
        if change := increase_container_memory(pod, self.container, failures or []):
            self.log.info("%s", change)
        await asyncio.to_thread(metrics.connect)
        slots = PodSlots.get(self.max_pods)
        self.log.info("%s", describe_command(pod, self.container))
        try:
            exists = await self._find_pod(client, pod)
        except OutdatedAttemptError as error:
            self.log.warning("%s", error)
            return
        if exists:
            slots.acquire_over_limit()
            run_in_background(metrics.report_slots(slots))
            self.log.info("pod %s exists: adopting it", name)
        else:
            start = time.monotonic()
            try:
                created = await create_pod(client, pod, slots, self.queue_timeout, self.log)
            except PodRejectedError as error:
                status = ExitStatus(None, b"", (), str(error), Termination.START_FAILED)
                yield (await asyncio.to_thread(self._make_event, status))[0]
                return
            metrics.observe_duration(metrics.STEP_QUEUE, ti, timedelta(seconds=time.monotonic() - start))
            self.log.info("pod %s created" if created else "pod %s exists: adopting it", name)
        follower = PodFollower(
            client, pod, self.container, start_timeout=self.start_timeout, run_timeout=self.run_timeout, log=self.log
        )
        try:
            status = await follower.wait()
        except BaseException:
            slots.release()
            raise
        run_in_background(finish_pod(follower, slots))
        for metric, duration in zip((metrics.STEP_START, metrics.STEP_RUN), follower.durations or (), strict=False):
            metrics.observe_duration(metric, ti, duration)
        self.log.info("terminated: %s", status.reason or f"exit code {status.code}")
        event, xcoms = await asyncio.to_thread(self._make_event, status)
        # Airflow 3.3.2 encodes the XComs of a TaskSuccessEvent twice: a task that pulls one would get text.
        for xcom_key, value in xcoms.items():
            await XCom.aset(xcom_key, value, **self._get_xcom_key())
        run_in_background(delete_pod(client, pod, self._is_outcome_stored))
        yield event

    async def on_kill(self) -> None:
        """Delete the pod if a person has cleared the task or set its state. Returns at once: Airflow soon cancels this call.

        Airflow also calls this when another triggerer has taken over the task, which is then still deferred: the pod belongs
        to that one. A cleared task that waits again looks the same; its next attempt deletes the pod.
        """
        run_in_background(self._discard_pod())

    async def _discard_pod(self) -> None:
        pod = self._make_pod()
        while (state := await self._find_task_state()) is UNKNOWN:
            await asyncio.sleep(STATE_RETRY_SECONDS)
        if state in CONTINUED_STATES:
            self.log.info("pod %s is left to another triggerer, attempt or a worker", pod["metadata"]["name"])
        else:
            await discard_pod(await PodClient.get(), pod)

    async def _is_outcome_stored(self) -> bool:
        return await self._find_task_state() not in (UNKNOWN, TaskInstanceState.DEFERRED)

    async def _find_task_state(self) -> str | None:
        """Return the state of the task; UNKNOWN if Airflow does not answer."""
        try:
            async with asyncio.timeout(STATE_TIMEOUT_SECONDS):
                return await asyncio.to_thread(self._get_task_state)
        except Exception as error:
            log.warning("cannot read the state of %s: %s", self.task_id, error or type(error).__name__)
            return UNKNOWN

    def _get_task_state(self) -> str | None:
        ti: Any = self.task_instance
        map_index = ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None
        query = {"dag_id": ti.dag_id, "task_ids": [ti.task_id], "run_ids": [ti.run_id], "map_index": map_index}
        states: dict[str, str | None] = next(iter(ti.get_task_states(**query).values()), {})
        return next(iter(states.values()), None)

    def _get_xcom_key(self) -> dict[str, Any]:
        ti: Any = self.task_instance
        return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": ti.map_index}

    async def _find_pod(self, client: PodClient, pod: dict[str, Any]) -> bool:
        """Return whether the attempt's pod exists. Deletes the pods of earlier attempts that have not terminated.

        Raises OutdatedAttemptError if a later attempt has a pod: Airflow no longer waits for this one.
        """
        metadata, ti = pod["metadata"], cast("Any", self.task_instance)
        pods = await client.list_pods(metadata["namespace"], select_task_labels(metadata["labels"]))
        others = [other for other in pods if other.metadata.name != metadata["name"]]
        if later := [other.metadata.name for other in others if is_later_attempt(other, ti)]:
            raise OutdatedAttemptError(f"attempt {ti.try_number} is outdated: a later one has pod {later[0]}")
        for other in others:
            if not has_terminated(other):
                self.log.info("deleting pod %s of an earlier attempt", other.metadata.name)
                await client.delete_pod(metadata["namespace"], other.metadata.name)
        return len(others) < len(pods)

    def _make_pod(self) -> dict[str, Any]:
        ti: Any = self.task_instance
        return make_pod(self.pod_template_dict, ti)

    def _make_event(self, status: ExitStatus) -> tuple[TriggerEvent, dict[str, Any]]:
        """Return the step's outcome as an event, and its XComs. Counts the outcomes that no worker will count."""
        ti: Any = self.task_instance
        try:
            output = verify_outcome(self.step, status)
        except AirflowSkipException as skip:
            self.log.info("%s", skip)
            metrics.count_termination(ti, ExitCode.NOTHING_TO_DO)
            return TaskSkippedEvent(), {}
        except (AirflowException, StepError) as error:
            self.log.error("%s", error)
            record_termination(ti, error)
            return TriggerEvent(status.to_event()), {}
        except Exception:
            # A worker verifies the artifact again, and its exception is the task's.
            self.log.exception("the artifact cannot be verified")
            return TriggerEvent(status.to_event()), {}
        self.log.info("artifact verified: %s", output.manifest)
        metrics.count_termination(ti, ExitCode.SUCCESS)
        return TaskSuccessEvent(), {"return_value": output.manifest, "facts": dict(output.facts)} | make_link_xcoms(output)


class UnmappedXComs:
    """A task instance for templates, whose `xcom_pull` without `map_indexes` pulls from an unmapped task.

    Pulling from all indexes of a mapped task is a request that Airflow 3.3.2's triggerer does not know and never answers.
    """

    def __init__(self, ti: Any) -> None:
        self._ti = ti

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ti, name)

    def xcom_pull(self, *args: Any, map_indexes: Any = -1, **kwargs: Any) -> Any:
        """Pull an XCom, as the task instance does."""
        return self._ti.xcom_pull(*args, map_indexes=map_indexes, **kwargs)
