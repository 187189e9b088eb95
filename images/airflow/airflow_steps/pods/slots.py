"""How many steps' pods a triggerer runs at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import ClassVar

from airflow_steps.pods.event_loop import PerEventLoop


class PodSlots:
    """A fair semaphore: how many steps' pods one triggerer runs at once, first come, first served.

    Airflow's pools and `max_active_tasks` do not apply to tasks that start from the trigger. All triggers of a process share
    one: `PodSlots.get(limit)`. `lifecycle` acquires and releases slots, and `trigger` does for a pod that exists already. The
    namespace's quota has the same number and counts pods (docs/decisions/0010-concurrency-limits.md).
    """

    _shared: ClassVar[PerEventLoop[PodSlots]] = PerEventLoop()

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.acquired = 0
        self.reporting = False  # whether a task sends the metrics
        self._waiters: deque[asyncio.Future[None]] = deque()

    @classmethod
    def get(cls, limit: int) -> PodSlots:
        """Return the semaphore of this process's event loop, with the limit of the trigger that was started last."""
        slots = cls._shared.get() or cls._shared.set_default(cls(limit))
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
