"""How many steps' pods one triggerer runs at once: Airflow's own limits do not hold for tasks that start from the trigger."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import ClassVar
from weakref import WeakKeyDictionary


class Slots:
    """Slots that are handed out first come, first served. One for all triggers of a process: `Slots.here(limit)`."""

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Slots]] = WeakKeyDictionary()

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self.told = False  # whether somebody tells how many are taken
        self._waiting: deque[asyncio.Future[None]] = deque()

    @classmethod
    def here(cls, limit: int) -> Slots:
        """The slots of this process's event loop."""
        return cls._of_loops.setdefault(asyncio.get_running_loop(), cls(limit))

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    @property
    def free(self) -> bool:
        """Whether a slot can be taken without waiting."""
        return self.taken < self.limit and not self._waiting

    def seize(self) -> None:
        """Takes a slot whether one is free or not: for a pod that runs already."""
        self.taken += 1

    async def take(self) -> None:
        """Takes a slot, after all that came before."""
        if self.free:
            self.taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def give_back(self) -> None:
        """Gives a slot back, and the next in line its turn."""
        self.taken -= 1
        while self._waiting and self.taken < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.taken += 1
                turn.set_result(None)
