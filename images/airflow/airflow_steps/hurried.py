"""The object store for those who may not wait for it: a callback that a task's end waits for, the watcher."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from step_contract.exit_codes import PassingFault
from step_contract.store import Store

PAUSE_SECONDS = 30.0


class HurriedStore(Store):
    """A Store that tries each thing once, for seconds, and after a fault asks nothing for a while."""

    def __init__(self, root: str) -> None:
        super().__init__(root, hurried=True)
        self._again = 0.0

    @contextmanager
    def _told(self, what: str, path: str) -> Iterator[None]:
        if time.monotonic() < self._again:
            raise PassingFault(f"cannot {what} {self.uri(path)}: the store did not answer a moment ago")
        try:
            with super()._told(what, path):
                yield
        except PassingFault as fault:
            # What is there already is no fault of the store's.
            if not isinstance(fault.__cause__, FileExistsError):
                self._again = time.monotonic() + PAUSE_SECONDS
            raise
