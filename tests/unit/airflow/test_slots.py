"""Which steps get a slot: those of a backfill come last and hold at most a quarter of the slots."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from airflow_steps.pods.slots import BULK_SHARE, PodSlots, StepSlot
from hypothesis import given
from hypothesis import strategies as st


class Queue:
    """Steps that ask for slots of one semaphore; `running` are those that have one, in the order in which they got it."""

    def __init__(self, limit: int) -> None:
        self.slots = PodSlots(limit)
        self.running: list[str] = []
        self.steps: dict[str, tuple[StepSlot, asyncio.Task[None]]] = {}

    async def ask(self, *names: str) -> None:
        """Let steps ask in this order; those whose names begin with b are bulk steps."""
        for name in names:
            slot = StepSlot(self.slots, bulk=name.startswith("b"))
            self.steps[name] = slot, asyncio.create_task(self._run(name, slot))
            await self.settle()

    async def _run(self, name: str, slot: StepSlot) -> None:
        await slot.acquire()
        self.running.append(name)

    async def end(self, name: str) -> None:
        self.steps.pop(name)[0].release()
        self.running.remove(name)
        await self.settle()

    async def cancel(self, name: str) -> None:
        self.steps.pop(name)[1].cancel()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_a_backfill_holds_at_most_a_quarter_of_the_slots_and_others_start_at_once() -> None:
    async def scenario() -> None:
        queue = Queue(8)
        await queue.ask("b1", "b2", "b3", "b4", "daily")
        assert queue.running == ["b1", "b2", "daily"]
        assert StepSlot(queue.slots, bulk=True).describe_wait() == (
            "waiting for one of 2 slots for backfills; 2 steps ahead in the queue"
        )
        assert StepSlot(queue.slots).describe_wait() == ""
        await queue.end("b1")
        assert queue.running == ["b2", "daily", "b3"]

    play(scenario())


def test_a_step_of_the_daily_run_goes_before_steps_of_a_backfill_that_have_waited_longer() -> None:
    async def scenario() -> None:
        queue = Queue(1)
        await queue.ask("b1", "b2", "b3", "daily")
        assert queue.running == ["b1"]
        await queue.end("b1")
        assert queue.running == ["daily"]
        await queue.end("daily")
        assert queue.running == ["b2"]

    play(scenario())


def test_a_backfill_goes_on_when_the_step_before_it_no_longer_waits() -> None:
    async def scenario() -> None:
        queue = Queue(2)
        await queue.ask("d1", "d2", "d3", "b1")
        await queue.end("d2")
        assert queue.running == ["d1", "d3"]
        await queue.ask("d4")
        await queue.end("d3")
        await queue.cancel("d4") if "d4" not in queue.running else await queue.end("d4")
        assert queue.running == ["d1", "b1"]

    play(scenario())


@given(st.integers(1, 12), st.lists(st.tuples(st.sampled_from(["ask", "end", "cancel"]), st.booleans(), st.integers(0, 9))))
def test_slots_are_conserved_and_never_idle_while_a_step_may_have_one(limit: int, actions: list[tuple[str, bool, int]]) -> None:
    async def scenario() -> None:
        queue = Queue(limit)
        for number, (action, bulk, choice) in enumerate(actions):
            waiting = [name for name in queue.steps if name not in queue.running]
            if action == "ask":
                await queue.ask(f"{'b' if bulk else 'd'}{number}")
            elif action == "end" and queue.running:
                await queue.end(queue.running[choice % len(queue.running)])
            elif action == "cancel" and waiting:
                await queue.cancel(waiting[choice % len(waiting)])
            bulks = sum(name.startswith("b") for name in queue.running)
            still_waiting = [name for name in queue.steps if name not in queue.running]
            assert queue.slots.acquired == len(queue.running) <= limit
            assert bulks <= max(1, limit // BULK_SHARE)
            if len(queue.running) < limit:
                assert all(name.startswith("b") for name in still_waiting)
                assert not still_waiting or bulks == max(1, limit // BULK_SHARE)
        for _, task in queue.steps.values():
            task.cancel()

    play(scenario())
