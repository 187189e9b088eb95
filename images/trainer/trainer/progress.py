"""Tells how far a fit has come: a bar on a terminal, otherwise a line an epoch."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

log = logging.getLogger(__name__)


class Epochs:
    """The `count` epochs of the fit `name`, each over `samples` samples, from the epoch `first` on."""

    def __init__(self, name: str, count: int, samples: int, first: int) -> None:
        self.name, self.count, self.samples = name, count, samples
        self.started, self.done, self.before = time.monotonic(), first - 1, first - 1
        self.bar = tqdm(total=count, initial=self.before, desc=name, unit=" epochs", disable=None, file=sys.stderr)

    def __enter__(self) -> Epochs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()

    def ended(self, loss: float) -> None:
        """Tells that an epoch ended with the mean `loss`, how long the rest will take and how fast it goes."""
        self.done += 1
        each = (time.monotonic() - self.started) / (self.done - self.before)
        self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self.bar.update()
        if self.bar.disable:
            left, pace = each * (self.count - self.done), self.samples / max(each, 1e-9)
            told = "%s: epoch %d of %d, loss %.4f, %.0f s left, %.0f samples/s"
            log.info(told, self.name, self.done, self.count, loss, left, pace)
