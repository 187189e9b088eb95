"""Follows a step's pod to its end, within the times that it may take, and hands its log on."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from step_contract.errors import Termination

from airflow_steps.pod_client import Pods
from airflow_steps.pod_status import end_of, has_started, times_of, waits_for
from airflow_steps.termination import Ended, machine_in

LAST_LINES = 20
LOG_SECONDS = 60.0  # for the end of a log to arrive after the container's end
LATE_SECONDS = 60.0  # the kubelet ends a pod at its deadline; one whose node is gone ends here, so much later


@dataclass
class Following:
    """One pod of a step, whose `container` may take `start_seconds` to start and `run_seconds` to end (None: for ever)."""

    pods: Pods
    namespace: str
    name: str
    container: str
    start_seconds: float
    run_seconds: float | None
    log: Any
    times: tuple[timedelta, timedelta] | None = None  # to start and to end, once it has ended
    _machine: str | None = None

    async def end(self) -> Ended:
        """How the container ended; deletes a pod that does not start or does not end in time."""
        lines: deque[str] = deque(maxlen=LAST_LINES)
        reading: asyncio.Task[None] | None = None
        pod, loop = None, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                async for pod in self.pods.follow(self.namespace, self.name):
                    age = (datetime.now(UTC) - pod.metadata.creation_timestamp).total_seconds()
                    if reading is None and not has_started(pod, self.container):
                        limit.reschedule(loop.time() + self.start_seconds - age)
                    elif reading is None:
                        run_seconds = None if self.run_seconds is None else self.run_seconds + self.start_seconds + LATE_SECONDS
                        limit.reschedule(None if run_seconds is None else loop.time() + run_seconds - age)
                        reading = asyncio.create_task(self._read(lines))
                    if ended := end_of(pod, self.container):
                        self.times = times_of(pod, self.container)
                        break
                else:
                    ended = Ended(None, b"", (), "its pod was deleted")
        except TimeoutError:
            ended = await self._give_up(pod, started=reading is not None)
        finally:
            if reading:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reading, LOG_SECONDS)
        return replace(ended, last_lines=tuple(lines), machine=self._machine)

    async def _give_up(self, pod: Any, *, started: bool) -> Ended:
        if started:
            reason = "it has not ended at its limit, nor was it ended: its node does not answer"
        else:
            said = [waits_for(pod, self.container), *await self.pods.warnings(self.namespace, self.name)]
            reason = (
                f"it has not started within {self.start_seconds:.0f} s: {'; '.join(filter(None, said)) or 'no reason is known'}"
            )
        await self.pods.delete(self.namespace, self.name, grace_seconds=0 if started else None)
        return Ended(None, b"", (), reason, Termination.EVICTED if started else Termination.START_FAILED)

    async def _read(self, lines: deque[str]) -> None:
        """Hands the container's log on into the task's, as it comes."""
        async with contextlib.aclosing(self.pods.lines(self.namespace, self.name, self.container)) as log:
            async for line in log:
                lines.append(line)
                self._machine = machine_in(line) or self._machine
                self.log.info("%s", line)
