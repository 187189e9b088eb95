"""Follows one pod until its step has terminated: its status, its deadlines and its log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from step_contract.errors import Termination

from airflow_steps.pods.client import PodClient, describe_error
from airflow_steps.pods.log import PodLog
from airflow_steps.pods.status import (
    POD_DELETED,
    get_durations,
    get_exit_status,
    get_pull_failure,
    get_waiting_reason,
    has_started,
    has_terminated,
)
from airflow_steps.termination import ExitStatus

# For the end of a log to be copied after the container has terminated, and then to be counted.
LOG_TIMEOUT_SECONDS = 30.0
SKIP_TIMEOUT_SECONDS = 15.0
# The kubelet enforces the deadline and the end of a grace period; if its node is gone, the triggerer does, this much later.
NODE_LOST_SECONDS = 60.0
SIDECAR_TIMEOUT_SECONDS = 30.0


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
