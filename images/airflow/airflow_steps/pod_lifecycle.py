"""The life of a step's pod in the triggerer: wait for a slot, create it, follow it until it terminates, delete it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from step_contract.errors import Termination

from airflow_steps import metrics
from airflow_steps.pod_client import PodClient, PodNotAdmittedError, PodRejectedError
from airflow_steps.pod_status import (
    POD_DELETED,
    get_durations,
    get_exit_status,
    get_waiting_reason,
    has_started,
    has_terminated,
)
from airflow_steps.termination import MAX_LAST_LINES, ExitStatus, parse_platform

ADMISSION_RETRY_SECONDS = 2.0
LOG_TIMEOUT_SECONDS = 60.0  # for the end of a log to arrive after the container terminated
NODE_LOST_SECONDS = 60.0  # the kubelet enforces the deadline; if its node is gone, the triggerer does, this much later
# A finished pod stays until its outcome is in Airflow's database: a triggerer that dies before that adopts the pod again.
DELETE_DELAY_SECONDS = 10.0
# Pods that such a triggerer left behind are deleted together with a later step's pod.
MAX_POD_AGE = timedelta(hours=1)
PHASE_TIMEOUT_SECONDS = 60.0

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
        """Return the semaphore of this process's event loop."""
        return cls._semaphores.setdefault(asyncio.get_running_loop(), cls(limit))

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
    start, last_reason = time.monotonic(), ""
    if not slots.available:
        log.info("waiting for one of %d slots; %d steps ahead in the queue", slots.limit, slots.waiting)
    run_in_background(metrics.report_slots(slots))
    try:
        async with asyncio.timeout(timeout):
            await slots.acquire()
    except TimeoutError as error:
        raise PodRejectedError(f"timed out after {timeout:.0f} s waiting for one of {slots.limit} slots") from error
    try:
        while True:
            try:
                return await client.create_pod(pod)
            except PodNotAdmittedError as reason:
                if timeout is not None and time.monotonic() - start > timeout:
                    message = f"timed out after {timeout:.0f} s waiting for the cluster to admit the pod: {reason}"
                    raise PodRejectedError(message) from reason
                if str(reason) != last_reason:
                    log.info("waiting for the cluster to admit the pod: %s", reason)
                last_reason = str(reason)
                await asyncio.sleep(ADMISSION_RETRY_SECONDS)
    except BaseException:
        slots.release()
        raise


@dataclass
class PodFollower:
    """Follows one pod until its container terminates, and copies its log to the task's.

    Attributes:
        start_timeout: seconds from the pod's creation to the container's start.
        run_timeout: seconds that the container may run; None: no limit.
        durations: the times to start and to terminate, once it has terminated.
    """

    client: PodClient
    namespace: str
    name: str
    container: str
    start_timeout: float
    run_timeout: float | None
    log: Any
    durations: tuple[timedelta, timedelta] | None = None
    _platform: str | None = None

    async def wait(self) -> ExitStatus:
        """Return how the container terminated. Deletes a pod that exceeds a timeout."""
        lines: deque[str] = deque(maxlen=MAX_LAST_LINES)
        log_task: asyncio.Task[None] | None = None
        pod, loop = None, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as timeout:
                async for pod in self.client.watch_pod(self.namespace, self.name):
                    age = (datetime.now(UTC) - pod.metadata.creation_timestamp).total_seconds()
                    if log_task is None and not has_started(pod, self.container):
                        timeout.reschedule(loop.time() + self.start_timeout - age)
                    elif log_task is None:
                        if self.run_timeout is None:
                            timeout.reschedule(None)
                        else:
                            deadline = self.start_timeout + self.run_timeout + NODE_LOST_SECONDS
                            timeout.reschedule(loop.time() + deadline - age)
                        log_task = asyncio.create_task(self._copy_log(lines))
                    if status := get_exit_status(pod, self.container):
                        self.durations = get_durations(pod, self.container)
                        break
                else:
                    status = ExitStatus(None, b"", (), POD_DELETED)
        except TimeoutError:
            status = await self._delete_late_pod(pod, started=log_task is not None)
        finally:
            if log_task:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(log_task, LOG_TIMEOUT_SECONDS)
        return replace(status, last_lines=tuple(lines), platform=self._platform)

    async def _delete_late_pod(self, pod: Any, *, started: bool) -> ExitStatus:
        if started:
            reason = "it exceeded its deadline and was not terminated: its node does not respond"
        else:
            warnings = [get_waiting_reason(pod, self.container), *await self.client.list_warnings(self.namespace, self.name)]
            explanation = "; ".join(filter(None, warnings)) or "no reason is known"
            reason = f"it did not start within {self.start_timeout:.0f} s: {explanation}"
        await self.client.delete_pod(self.namespace, self.name, grace_seconds=0 if started else None)
        return ExitStatus(None, b"", (), reason, Termination.EVICTED if started else Termination.START_FAILED)

    async def _copy_log(self, lines: deque[str]) -> None:
        async with contextlib.aclosing(self.client.stream_log(self.namespace, self.name, self.container)) as log:
            async for line in log:
                lines.append(line)
                self._platform = parse_platform(line) or self._platform
                self.log.info("%s", line)


async def release_slot(slots: PodSlots, client: PodClient, namespace: str, name: str) -> None:
    """Release the slot once the whole pod has terminated, which is up to a second after its container."""
    try:
        async with asyncio.timeout(PHASE_TIMEOUT_SECONDS):
            async for pod in client.watch_pod(namespace, name):
                if has_terminated(pod):
                    break
    except TimeoutError:
        pass
    finally:
        slots.release()


async def delete_pod(client: PodClient, namespace: str, name: str) -> None:
    """Delete the finished pod, unless it is to be kept, once Airflow has stored its outcome."""
    await asyncio.sleep(DELETE_DELAY_SECONDS)
    await client.delete_finished_pod(namespace, name)
    await client.delete_old_pods(namespace, datetime.now(UTC) - MAX_POD_AGE)


def run_in_background(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine without waiting for it."""
    task = asyncio.create_task(coroutine)
    _background_tasks.add(task)  # the event loop keeps only a weak reference
    task.add_done_callback(_background_tasks.discard)
