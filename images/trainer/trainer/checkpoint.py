"""Checkpoints of a training in the object store: saved at an interval of steps and on SIGTERM, and resumed from."""

from __future__ import annotations

import json
import logging
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import safetensors
import safetensors.torch
import torch
from step_contract.manifest import digest
from step_contract.store import Store
from torch import Tensor

logger = logging.getLogger(__name__)

MAX_TO_KEEP = 2  # the last may be truncated if its writer was killed
_NAME = re.compile(r"/(\d{9})-([0-9a-f]{16})\.safetensors$")


@dataclass
class Checkpoint:
    """The state of a training.

    Attributes:
        finished: the weights of each finished fit, by its name.
        fit: the name of the unfinished fit; empty between two fits.
        tensors: the unfinished fit's state, as TrainingState.state_dict returns it; `values` likewise.
    """

    finished: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    fit: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Serialize the checkpoint as one safetensors file."""
        tensors = {f"unfinished/{name}": tensor.contiguous() for name, tensor in self.tensors.items()}
        for fit, weights in self.finished.items():
            tensors |= {f"finished/{fit}/{name}": tensor.contiguous() for name, tensor in weights.items()}
        metadata = {"fit": self.fit, "values": self.values, "finished": list(self.finished)}
        return safetensors.torch.save(tensors, {"training": json.dumps(metadata)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        """Parse a checkpoint. Raises safetensors.SafetensorError, ValueError or KeyError if it is invalid."""
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["training"])
        finished: dict[str, dict[str, Tensor]] = {fit: {} for fit in metadata["finished"]}
        for path, tensor in tensors.items():
            if path.startswith("finished/"):
                _, fit, name = path.split("/", 2)
                finished[fit][name] = tensor
        prefix = "unfinished/"
        unfinished = {path.removeprefix(prefix): tensor for path, tensor in tensors.items() if path.startswith(prefix)}
        return cls(finished, metadata["fit"], unfinished, metadata["values"])


class CheckpointManager:
    """The checkpoints of one training in `directory`, saved every `interval` steps. Nothing else may write there."""

    def __init__(self, store: Store, directory: str, interval: int) -> None:
        self.store, self.directory, self.interval = store, directory, interval
        self.sigterm_received = False
        self.latest, self.step = self._load_latest()

    def _list_names(self) -> list[str]:
        return [name for name in self.store.list(self.directory) if _NAME.search(name)]

    def _load_latest(self) -> tuple[Checkpoint, int]:
        """Return the latest valid checkpoint and its step; an empty one and 0 if there is none."""
        for name in reversed(self._list_names()):
            match = _NAME.search(name)
            data = self.store.read(name)
            if match and data and digest(data)[:16] == match.group(2):
                with suppress(safetensors.SafetensorError, ValueError, KeyError):
                    checkpoint = Checkpoint.from_bytes(data)
                    step = int(match.group(1))
                    logger.info("Resuming from the checkpoint at step %d (%s)", step, checkpoint.fit or "between two fits")
                    return checkpoint, step
            logger.warning("Skipping the damaged checkpoint %s", self.store.uri(name))
        return Checkpoint(), 0

    def finished_weights(self, fit: str) -> Mapping[str, Tensor] | None:
        """Return the weights of `fit` if it is finished."""
        return self.latest.finished.get(fit)

    def unfinished(self, fit: str) -> Checkpoint | None:
        """Return the checkpoint to resume `fit` from, or None if it has not started."""
        return self.latest if self.latest.fit == fit else None

    def after_step(self, fit: str, state_dict: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]) -> None:
        """Count a step of `fit`; save its state if the interval has passed or SIGTERM was received, and exit on SIGTERM."""
        self.step += 1
        if self.step % self.interval and not self.sigterm_received:
            return
        tensors, values = state_dict()
        # A diverged state is not worth resuming from.
        has_diverged = not all(torch.isfinite(tensor).all() for tensor in tensors.values() if tensor.is_floating_point())
        if not has_diverged:
            self._save(Checkpoint(self.latest.finished, fit, tensors, values))
        if self.sigterm_received:
            outcome = "the training has diverged, so no checkpoint was saved" if has_diverged else "checkpoint saved"
            logger.info("Terminated (SIGTERM); %s at step %d", outcome, self.step)
            raise SystemExit(128 + signal.SIGTERM)

    def save_finished(self, fit: str, weights: Mapping[str, Tensor]) -> None:
        """Save the weights of `fit`, which is finished."""
        self._save(Checkpoint(self.latest.finished | {fit: dict(weights)}))

    def _save(self, checkpoint: Checkpoint) -> None:
        data = checkpoint.to_bytes()
        self.store.replace(f"{self.directory}/{self.step:09}-{digest(data)[:16]}.safetensors", data)
        self.latest = checkpoint
        for name in self._list_names()[:-MAX_TO_KEEP]:
            self.store.remove_folder(name)

    def remove_all(self) -> None:
        """Remove the checkpoints once the model is committed."""
        self.store.remove_folder(self.directory)

    @contextmanager
    def handle_sigterm(self) -> Iterator[None]:
        """In this context, SIGTERM ends the process after the current step, with a checkpoint."""

        def set_flag(number: int, frame: object) -> None:
            self.sigterm_received = True

        previous = signal.signal(signal.SIGTERM, set_flag)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
