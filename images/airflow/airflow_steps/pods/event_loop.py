"""Objects that all triggers of a process share: one for each event loop, as they hold its futures and connections."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")


class PerEventLoop(Generic[T]):
    """An object for each event loop; it is dropped with its loop."""

    def __init__(self) -> None:
        self._objects: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._objects)

    def get(self) -> T | None:
        """Return the running loop's object, or None if it has none yet."""
        return self._objects.get(asyncio.get_running_loop())

    def set_default(self, value: T) -> T:
        """Make `value` the running loop's object unless it has one. Return the loop's object."""
        return self._objects.setdefault(asyncio.get_running_loop(), value)
