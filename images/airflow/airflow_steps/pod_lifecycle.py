"""The life of a step's pod in the triggerer: wait for a slot, create it, follow it until it terminates, delete it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from step_contract.errors import Termination

from airflow_steps import metrics
from airflow_steps.pod_client import (
    CREATE_TIMEOUT_SECONDS,
    PodClient,
    PodNotAdmittedError,
    PodRejectedError,
    describe_error,
)
from airflow_steps.pod_log import PodLog
from airflow_steps.pod_status import (
    POD_DELETED,
    get_durations,
    get_exit_status,
    get_pull_failure,
    get_step_phase,
    get_waiting_reason,
    has_started,
    has_terminated,
)
from airflow_steps.termination import ExitStatus

ADMISSION_RETRY_SECONDS = 2.0
READ_TIMEOUT_SECONDS = 30.0
# For the end of a log to be copied after the container has terminated, and then to be counted.
LOG_TIMEOUT_SECONDS = 30.0
SKIP_TIMEOUT_SECONDS = 15.0
# The kubelet enforces the deadline and the end of a grace period; if its node is gone, the triggerer does, this much later.
NODE_LOST_SECONDS = 60.0
# A finished pod stays until its outcome is in Airflow's database: a triggerer that dies before that adopts the pod again.
DELETE_DELAY_SECONDS = 10.0
MAX_STORED_CHECKS = 30
# Pods that such a triggerer left behind are deleted together with a later step's pod.
MAX_POD_AGE = timedelta(hours=1)
SWEEP_SECONDS = 600.0
SIDECAR_TIMEOUT_SECONDS = 30.0

log = logging.getLogger(__name__)
_background_tasks: set[asyncio.Task[None]] = set()


class PodSlots:
    """A fair semaphore: how many steps' pods one triggerer runs at once, first come, first served.

    Airflow's pools and `max_active_tasks` do not apply to tasks that start from the trigger. All triggers of a process share
    one: `PodSlots.get(limit)`.
    """

    _semaphores: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, PodSlots]] = WeakKeyDictionary()

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.acquired = 0
        self.reporting = False  # whether a task sends the metrics
        self._waiters: deque[asyncio.Future[None]] = deque()

    @classmethod
    def get(cls, limit: int) -> PodSlots:
        """Return the semaphore of this process's event loop, with the limit of the trigger that was started last."""
        slots = cls._semaphores.setdefault(asyncio.get_running_loop(), cls(limit))
        slots.limit = limit
        slots._wake_waiters()
        return slots

    @property
    def waiting(self) -> int:
        """How many steps wait for a slot."""
        return len(self._waiters)

    @property
    def available(self) -> bool:
        """Whether `acquire` returns without waiting."""
        return self.acquired < self.limit and not self._waiters

    def acquire_over_limit(self) -> None:
        """Acquire a slot even if none is available: for a pod that exists already."""
        self.acquired += 1

    async def acquire(self) -> None:
        """Acquire a slot, after all that asked before."""
        if self.available:
            self.acquired += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.release()
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def release(self) -> None:
        """Release a slot to the next waiter."""
        self.acquired -= 1
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        while self._waiters and self.acquired < self.limit:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.acquired += 1
                waiter.set_result(None)


async def create_pod(client: PodClient, pod: Mapping[str, Any], slots: PodSlots, timeout: float | None, log: Any) -> bool:
    """Acquire a slot and create the pod once the cluster admits it. Return False if it exists already.

    The slot stays acquired. Raises PodRejectedError if the cluster rejects the pod, or neither slot nor cluster had room
    within `timeout` seconds; None waits forever.
    """
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    if not slots.available:
        log.info("waiting for one of %d slots; %d steps ahead in the queue", slots.limit, slots.waiting)
    run_in_background(metrics.report_slots(slots))
    try:
        async with asyncio.timeout_at(deadline):
            await slots.acquire()
    except TimeoutError as error:
        raise PodRejectedError(f"timed out after {timeout:.0f} s waiting for one of {slots.limit} slots") from error
    try:
        return await _create_admitted_pod(client, pod, deadline, log)
    except TimeoutError as error:
        slots.release()
        raise PodRejectedError(f"timed out after {timeout:.0f} s waiting for the cluster to admit the pod: {error}") from error
    except BaseException:
        slots.release()
        raise


async def _create_admitted_pod(client: PodClient, pod: Mapping[str, Any], deadline: float | None, log: Any) -> bool:
    """Create the pod once the cluster admits it. Return False if it exists already. Raises TimeoutError with the reason."""
    reason = ""
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                try:
                    return await client.create_pod(pod)
                except PodNotAdmittedError as error:
                    if str(error) != reason:
                        log.info("waiting for the cluster to admit the pod: %s", error)
                    reason = str(error)
                    await asyncio.sleep(ADMISSION_RETRY_SECONDS)
    except TimeoutError:
        # The API server may have created the pod without a response.
        if await _exists(client, pod):
            return False
        raise TimeoutError(reason or "the Kubernetes API does not respond") from None


async def _exists(client: PodClient, pod: Mapping[str, Any]) -> bool:
    """Return whether the pod exists. If the API server does not respond, the pod is deleted as soon as it does."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_SECONDS):
            return await client.read_pod(pod["metadata"]["namespace"], pod["metadata"]["name"]) is not None
    except TimeoutError:
        run_in_background(discard_pod(client, pod))
        return False


class PodFollower:
    """Follows one pod until its container terminates, and copies its log to the task's.

    Attributes:
        durations: the times to start and to terminate, once it has terminated.
    """

    def __init__(
        self,
        client: PodClient,
        pod: Mapping[str, Any],
        container: str,
        *,
        start_timeout: float,
        run_timeout: float | None,
        log: Any,
    ) -> None:
        """Follow `pod`, a manifest.

        Args:
            client: the client of the pod's cluster.
            pod: the manifest; its namespace and name are used.
            container: the step's container.
            start_timeout: seconds from the pod's creation to the container's start.
            run_timeout: seconds that the container may run; None: no limit.
            log: the logger of the trigger.
        """
        self.durations: tuple[timedelta, timedelta] | None = None
        self._client, self._container, self._log = client, container, log
        self._key = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self._start_timeout, self._run_timeout = start_timeout, run_timeout
        self._pod_log = PodLog(client, *self._key, container)
        self._copy: asyncio.Task[None] | None = None
        self._changes: AsyncGenerator[Any, None] | None = None
        self._finished = False  # whether the whole pod has terminated

    async def wait(self) -> ExitStatus:
        """Return how the container terminated. Deletes a pod that exceeds a timeout, after it was read again."""
        try:
            status = await self._wait_for_termination()
            await self._finish_log()
        except BaseException:
            if self._copy:
                self._copy.cancel()
            if self._changes:
                await self._changes.aclose()
            raise
        return replace(status, last_lines=tuple(self._pod_log.last_lines), platform=self._pod_log.platform)

    async def _wait_for_termination(self) -> ExitStatus:
        overdue, loop = False, asyncio.get_running_loop()
        while True:
            self._changes = self._client.watch_pod(*self._key)  # it reads the pod first
            try:
                async with asyncio.timeout(None) as timeout:
                    async for pod in self._changes:
                        if self._copy is None and has_started(pod, self._container):
                            self._copy = asyncio.create_task(self._pod_log.copy())
                        if status := get_exit_status(pod, self._container):
                            self._finished = has_terminated(pod)
                            self.durations = get_durations(pod, self._container)
                            return status
                        seconds = self._count_seconds_left(pod)
                        if failure := get_pull_failure(pod, self._container):
                            late = ExitStatus(None, b"", (), failure, Termination.START_FAILED)
                        elif overdue and seconds is not None and seconds <= 0:
                            late = await self._describe_late_pod(pod)
                        else:
                            overdue = False
                            timeout.reschedule(None if seconds is None else loop.time() + max(seconds, 0.0))
                            continue
                        timeout.reschedule(None)
                        if await self._delete(pod, late):
                            return late
                        break  # it has changed in the meantime
                    else:
                        return ExitStatus(None, b"", (), POD_DELETED)
            except TimeoutError:
                overdue = True
            await self._changes.aclose()

    def _count_seconds_left(self, pod: Any) -> float | None:
        """Return the seconds until the pod exceeds a timeout; None: no limit."""
        now, limits = self._client.get_time(), []
        start_deadline = pod.metadata.creation_timestamp + timedelta(seconds=self._start_timeout)
        if not has_started(pod, self._container):
            limits.append((start_deadline - now).total_seconds())
        elif self._run_timeout is not None:
            # The kubelet counts from the time at which it has accepted the pod, however late that was.
            latest_start = max(start_deadline, pod.status.start_time or start_deadline)
            limits.append(self._run_timeout + NODE_LOST_SECONDS - (now - latest_start).total_seconds())
        if pod.metadata.deletion_timestamp:  # the end of the grace period
            limits.append(NODE_LOST_SECONDS - (now - pod.metadata.deletion_timestamp).total_seconds())
        return min(limits, default=None)

    async def _describe_late_pod(self, pod: Any) -> ExitStatus:
        if pod.metadata.deletion_timestamp:
            reason = f"{POD_DELETED}, but its node does not respond"
            return ExitStatus(None, b"", (), reason, Termination.EVICTED)
        if has_started(pod, self._container):
            reason = "it exceeded its deadline and was not terminated: its node does not respond"
            return ExitStatus(None, b"", (), reason, Termination.EVICTED)
        warnings = [get_waiting_reason(pod, self._container), *await self._client.list_warnings(*self._key)]
        explanation = "; ".join(filter(None, warnings)) or "no reason is known"
        reason = f"it did not start within {self._start_timeout:.0f} s: {explanation}"
        return ExitStatus(None, b"", (), reason, Termination.START_FAILED)

    async def _delete(self, pod: Any, status: ExitStatus) -> bool:
        """Delete the pod unless it has changed since it was read. A node that does not respond confirms nothing."""
        grace_seconds = 0 if status.termination == Termination.EVICTED else None
        version = pod.metadata.resource_version
        return await self._client.delete_pod(*self._key, grace_seconds=grace_seconds, resource_version=version)

    async def _finish_log(self) -> None:
        if self._copy is None:
            return
        self._pod_log.set_terminated()
        try:
            await asyncio.wait([self._copy], timeout=LOG_TIMEOUT_SECONDS)
            self._pod_log.skip_rest(LOG_TIMEOUT_SECONDS)
            async with asyncio.timeout(SKIP_TIMEOUT_SECONDS):
                await self._copy
        except TimeoutError:
            self._pod_log.report_missing_end(LOG_TIMEOUT_SECONDS + SKIP_TIMEOUT_SECONDS)
        except Exception as error:
            # The outcome of the step does not depend on its log.
            self._log.warning("the log is incomplete: %s", describe_error(error))

    async def wait_for_sidecars(self) -> None:
        """Wait until the whole pod has terminated, which is up to a second after its container; with sidecars, for a while."""
        if self._changes is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SIDECAR_TIMEOUT_SECONDS), contextlib.aclosing(self._changes) as changes:
                if not self._finished:
                    async for pod in changes:
                        if has_terminated(pod):
                            return


async def finish_pod(follower: PodFollower, slots: PodSlots) -> None:
    """Release the slot once the followed pod has terminated."""
    try:
        await follower.wait_for_sidecars()
    finally:
        slots.release()


async def delete_pod(client: PodClient, pod: Mapping[str, Any], is_stored: Callable[[], Awaitable[bool]]) -> None:
    """Delete the finished pod, unless it is to be kept, once Airflow has stored the step's outcome.

    Until then, a triggerer that takes over the task needs it.
    """
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    for _ in range(MAX_STORED_CHECKS):
        await asyncio.sleep(DELETE_DELAY_SECONDS)
        if await is_stored():
            await client.delete_finished_pod(namespace, name)
            break
    await sweep(client, namespace)


async def discard_pod(client: PodClient, pod: Mapping[str, Any]) -> None:
    """Delete the pod, also if the API server creates it only now: a request to create it may be on its way.

    A pod whose step has finished is kept if it is to be kept.
    """
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    await _discard_existing_pod(client, namespace, name)
    await asyncio.sleep(CREATE_TIMEOUT_SECONDS)
    await _discard_existing_pod(client, namespace, name)


async def _discard_existing_pod(client: PodClient, namespace: str, name: str) -> None:
    pod = await client.read_pod(namespace, name)
    if pod is not None and get_step_phase(pod):
        await client.delete_finished_pod(namespace, name)
    elif pod is not None:
        await client.delete_pod(namespace, name)
        log.info("pod %s deleted", name)


_last_sweeps: WeakKeyDictionary[PodClient, float] = WeakKeyDictionary()


async def sweep(client: PodClient, namespace: str) -> None:
    """Delete finished pods that a triggerer left behind which died. Lists all pods, and so does it rarely.

    Not at first: after an outage of all triggerers, old pods may still be adopted.
    """
    now = asyncio.get_running_loop().time()
    if now - _last_sweeps.setdefault(client, now) >= SWEEP_SECONDS:
        _last_sweeps[client] = now
        await client.delete_old_pods(namespace, client.get_time() - MAX_POD_AGE)


def run_in_background(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine without waiting for it, whatever becomes of the trigger. An error is logged."""
    # In a context of its own: a log line after the trigger's end has no task's log to go to.
    task = asyncio.get_running_loop().create_task(coroutine, context=contextvars.Context())
    _background_tasks.add(task)  # the event loop keeps only a weak reference
    task.add_done_callback(_finish_background_task)


def _finish_background_task(task: asyncio.Task[None]) -> None:
    _background_tasks.discard(task)
    if not task.cancelled() and (error := task.exception()):
        log.error("a background task of a step failed: %s", describe_error(error), exc_info=error)
