"""How many steps' pods a triggerer runs at once, and which go first."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import ClassVar

from airflow_steps.pods.event_loop import PerEventLoop

BULK_SHARE = 4


class PodSlots:
    """A semaphore: how many steps' pods one triggerer runs at once, first come, first served.

    Bulk steps, those of a backfill, come after all others and hold at most a quarter of the slots: a backfill of many months
    must not delay the evening's run, also if two triggerers share the quota.

    Airflow's pools and `max_active_tasks` do not apply to tasks that start from the trigger. All triggers of a process share
    one: `PodSlots.get(limit)`, of which each takes a `StepSlot`. The namespace's quota has the same number and counts pods
    (docs/decisions/0010-concurrency-limits.md).
    """

    _shared: ClassVar[PerEventLoop[PodSlots]] = PerEventLoop()

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reporting = False  # whether a task sends the metrics
        # By whether the step is a bulk step.
        self._acquired = {False: 0, True: 0}
        self._waiters: dict[bool, deque[asyncio.Future[None]]] = {False: deque(), True: deque()}

    @classmethod
    def get(cls, limit: int) -> PodSlots:
        """Return the semaphore of this process's event loop, with the limit of the trigger that was started last."""
        slots = cls._shared.get() or cls._shared.set_default(cls(limit))
        slots.limit = limit
        slots._wake_waiters()
        return slots

    @property
    def acquired(self) -> int:
        """How many slots are in use."""
        return sum(self._acquired.values())

    @property
    def waiting(self) -> int:
        """How many steps wait for a slot."""
        return sum(map(len, self._waiters.values()))

    def limit_of(self, bulk: bool) -> int:
        """Return how many slots such steps may hold at once."""
        return max(1, self.limit // BULK_SHARE) if bulk else self.limit

    def count_ahead(self, bulk: bool) -> int:
        """Return how many steps that wait would get a slot before such a step."""
        return self.waiting if bulk else len(self._waiters[False])

    def has_room(self, bulk: bool) -> bool:
        """Return whether such a step may have a slot that no other waits for."""
        has_share = self._acquired[bulk] < self.limit_of(bulk)
        return self.acquired < self.limit and has_share and not self.count_ahead(bulk)

    def take(self, bulk: bool) -> None:
        """Count a slot as acquired, whether there is room or not."""
        self._acquired[bulk] += 1

    async def wait(self, bulk: bool) -> None:
        """Acquire a slot, after all that asked before and, for a bulk step, all others that wait."""
        if self.has_room(bulk):
            self.take(bulk)
            return
        waiters = self._waiters[bulk]
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.give_back(bulk)
            elif waiter in waiters:
                waiters.remove(waiter)
                self._wake_waiters()  # it may have been the only one before a bulk step
            raise

    def give_back(self, bulk: bool) -> None:
        """Release a slot to the next waiter."""
        self._acquired[bulk] -= 1
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        for bulk in (False, True):
            waiters = self._waiters[bulk]
            while waiters and self.acquired < self.limit and self._acquired[bulk] < self.limit_of(bulk):
                waiter = waiters.popleft()
                if not waiter.done():
                    self._acquired[bulk] += 1
                    waiter.set_result(None)


class StepSlot:
    """The slot of one step; `bulk` for a step of a backfill.

    `lifecycle` acquires and releases it, and `trigger` does for a pod that exists already.
    """

    def __init__(self, slots: PodSlots, *, bulk: bool = False) -> None:
        self.slots, self.bulk = slots, bulk

    def describe_wait(self) -> str:
        """Return what the step waits for; empty if `acquire` returns without waiting."""
        if self.slots.has_room(self.bulk):
            return ""
        kind = " for backfills" if self.bulk else ""
        limit, ahead = self.slots.limit_of(self.bulk), self.slots.count_ahead(self.bulk)
        return f"waiting for one of {limit} slots{kind}; {ahead} steps ahead in the queue"

    def acquire_over_limit(self) -> None:
        """Acquire the slot even if none is available: for a pod that exists already."""
        self.slots.take(self.bulk)

    async def acquire(self) -> None:
        """Acquire the slot as soon as it is the step's turn."""
        await self.slots.wait(self.bulk)

    def release(self) -> None:
        """Release the slot to the next waiter."""
        self.slots.give_back(self.bulk)
