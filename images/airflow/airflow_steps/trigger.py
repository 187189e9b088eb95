"""The trigger of a step: it runs the step's pod from the triggerer, without a worker, and the pod outlives this process.

This replaces the operator's own deferrable mode (`deferrable=True`), which needs a worker before and after it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from airflow.sdk import TaskInstanceState
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from airflow.triggers.base import TaskSkippedEvent, TaskSuccessEvent, TriggerEvent
from step_contract.errors import StepError, Termination

from airflow_steps import metrics
from airflow_steps.airflow_internals import statsd_client
from airflow_steps.airflow_internals.triggers import CONTINUED_STATES, TaskTrigger
from airflow_steps.failure_log import record_termination
from airflow_steps.lineage_events import emit_completion
from airflow_steps.links import make_link_xcoms
from airflow_steps.outcome import counted, verify_outcome
from airflow_steps.pods.client import PodClient, PodRejectedError
from airflow_steps.pods.follower import PodFollower
from airflow_steps.pods.lifecycle import (
    create_pod,
    delete_pod,
    discard_pod,
    finish_pod,
    run_in_background,
)
from airflow_steps.pods.slots import PodSlots, StepSlot
from airflow_steps.pods.spec import (
    describe_command,
    increase_container_memory,
    is_later_attempt,
    make_pod,
    select_task_labels,
)
from airflow_steps.pods.status import has_terminated
from airflow_steps.termination import ExitStatus

RENDER_TIMEOUT_SECONDS = 60.0
STATE_TIMEOUT_SECONDS = 30.0
STATE_RETRY_SECONDS = 5.0
UNKNOWN = "unknown"
# The XCom with the terminations of a task's earlier attempts: a trigger cannot read the task state store.
FAILURES_KEY = "failures"
BACKFILL_PREFIX = "backfill__"  # of the ids that Airflow gives to the runs of a backfill

log = logging.getLogger(__name__)


class OutdatedAttemptError(Exception):
    """A later attempt of the task has a pod."""


class StepTrigger(TaskTrigger):
    """Creates the pod of one attempt of a step, or adopts it if it exists, and follows it until it terminates.

    A step that succeeded, its artifact verified, ends the task here. Any other termination is an event: a worker raises it as
    an exception (`StepOperator.execute_complete`), so that retries and callbacks work as for any task.

    The parameters come from `StepOperator._start_from_trigger`, and `serialize` repeats them. A new one needs a default: after
    an upgrade, triggers of the previous release are created again from the database.

    :param step: the step's name
    :param pod_template_dict: the pod, templated; name and identifying labels come from the attempt
    :param container: the name of the step's container
    :param start_timeout: seconds from the pod's creation to the container's start
    :param run_timeout: seconds that the container may run; None: no limit
    :param max_pods: how many pods this triggerer runs at once
    :param queue_timeout: seconds that the pod may wait for a slot and for admission; None: no limit
    :param bulk: whether others go first; so it is for each step of a run that a backfill made
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
        bulk: bool = False,
    ) -> None:
        super().__init__()
        self.step = step
        # The triggerer renders the fields whose names are also template fields of the operator: this name is one.
        self.pod_template_dict = pod_template_dict
        self.container = container
        self.start_timeout = start_timeout
        self.run_timeout = run_timeout
        self.max_pods = max_pods
        self.queue_timeout = queue_timeout
        self.bulk = bulk

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that create this trigger again."""
        names = ("step", "pod_template_dict", "container", "start_timeout", "run_timeout", "max_pods", "queue_timeout", "bulk")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def _render_templates(self) -> None:
        try:
            await self.render_templates(RENDER_TIMEOUT_SECONDS)
        except TimeoutError as error:
            raise AirflowException(
                f"{self.step}: its templates were not rendered within {RENDER_TIMEOUT_SECONDS:.0f} s: one of them needs what "
                "Airflow does not provide in the triggerer; set runner='worker' for this task"
            ) from error

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event, the step's outcome. Raises AirflowException if the templates cannot be rendered: a worker can."""
        if not self.can_render:
            raise AirflowException(f"{self.step}: its templates cannot be rendered: Airflow has found no DAG with this task")
        await self._render_templates()
        client, pod = await PodClient.get(), self._make_pod()
        name, ti = pod["metadata"]["name"], cast("Any", self.task_instance)
        failures = await self.read_xcom(FAILURES_KEY) if ti.try_number > 1 else None
        if change := increase_container_memory(pod, self.container, failures or []):
            self.log.info("%s", change)
        await asyncio.to_thread(statsd_client.connect)
        started = datetime.now(UTC)
        bulk = self.bulk or ti.run_id.startswith(BACKFILL_PREFIX)
        slot = StepSlot(PodSlots.get(self.max_pods), bulk=bulk)
        self.log.info("%s", describe_command(pod, self.container))
        try:
            exists = await self._find_pod(client, pod)
        except OutdatedAttemptError as error:
            self.log.warning("%s", error)
            return
        if exists:
            slot.acquire_over_limit()
            run_in_background(metrics.report_slots(slot.slots))
            self.log.info("pod %s exists: adopting it", name)
        else:
            start = time.monotonic()
            try:
                created = await create_pod(client, pod, slot, self.queue_timeout, self.log)
            except PodRejectedError as error:
                status = ExitStatus(None, b"", (), str(error), Termination.START_FAILED)
                yield (await asyncio.to_thread(self._make_event, status, started))[0]
                return
            metrics.observe_duration(metrics.STEP_QUEUE, ti, timedelta(seconds=time.monotonic() - start))
            self.log.info("pod %s created" if created else "pod %s exists: adopting it", name)
        follower = PodFollower(
            client, pod, self.container, start_timeout=self.start_timeout, run_timeout=self.run_timeout, log=self.log
        )
        try:
            status = await follower.wait()
        except BaseException:
            slot.release()
            raise
        run_in_background(finish_pod(follower, slot))
        for metric, duration in zip((metrics.STEP_START, metrics.STEP_RUN), follower.durations or (), strict=False):
            metrics.observe_duration(metric, ti, duration)
        self.log.info("terminated: %s", status.reason or f"exit code {status.code}")
        event, xcoms = await asyncio.to_thread(self._make_event, status, started)
        await self.write_xcoms(xcoms)
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
                return await asyncio.to_thread(self.get_task_state)
        except Exception as error:
            log.warning("cannot read the state of %s: %s", self.task_id, error or type(error).__name__)
            return UNKNOWN

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

    def _make_event(self, status: ExitStatus, started: datetime) -> tuple[TriggerEvent, dict[str, Any]]:
        """Return the outcome of a step that started at `started` as an event, and its XComs."""
        ti: Any = self.task_instance
        try:
            with counted(ti, failures=False):
                output = verify_outcome(self.step, status)
        except AirflowSkipException as skip:
            self.log.info("%s", skip)
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
        emit_completion(ti, output, started)
        return TaskSuccessEvent(), {"return_value": output.manifest, "facts": dict(output.facts)} | make_link_xcoms(output)
