"""Where an interrupted training goes on: its state, in the object store, every so many steps and when it is told to end."""

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

log = logging.getLogger(__name__)

MAX_TO_KEEP = 2  # checkpoints: the last may be cut off by the end of its writer
_NAME = re.compile(r"/(\d{9})-([0-9a-f]{16})\.safetensors$")


@dataclass
class State:
    """The state of a training: the weights of each fit that is done, by its name, and of the one that is not.

    `tensors` and `numbers` are all that the unfinished fit `name` needs to go on as if it had never stopped.
    """

    done: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    name: str = ""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The state as one safetensors file."""
        tensors = {f"now/{key}": one.contiguous() for key, one in self.tensors.items()}
        for name, weights in self.done.items():
            tensors |= {f"done/{name}/{key}": one.contiguous() for key, one in weights.items()}
        about = {"name": self.name, "numbers": self.numbers, "done": list(self.done)}
        return safetensors.torch.save(tensors, {"training": json.dumps(about)})

    @classmethod
    def from_bytes(cls, data: bytes) -> State:
        """The state that was stored as `data`; raises safetensors.SafetensorError or ValueError when it is none."""
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["training"])
        done: dict[str, dict[str, Tensor]] = {name: {} for name in about["done"]}
        for key, tensor in tensors.items():
            if key.startswith("done/"):
                _, name, parameter = key.split("/", 2)
                done[name][parameter] = tensor
        now = {key.removeprefix("now/"): tensor for key, tensor in tensors.items() if key.startswith("now/")}
        return cls(done, about["name"], now, about["numbers"])


class CheckpointManager:
    """The checkpoints of one training in `directory`, one every `every` steps. Nothing else writes there."""

    def __init__(self, store: Store, directory: str, every: int) -> None:
        self.store, self.directory, self.every = store, directory, every
        self.sigterm_received = False
        self.state, self.steps = self._load_latest()

    def _list_names(self) -> list[str]:
        return [name for name in self.store.list(self.directory) if _NAME.search(name)]

    def _load_latest(self) -> tuple[State, int]:
        for name in reversed(self._list_names()):
            found = _NAME.search(name)
            data = self.store.read(name)
            if found and data and digest(data)[:16] == found.group(2):
                with suppress(safetensors.SafetensorError, ValueError, KeyError):
                    state = State.from_bytes(data)
                    log.info(
                        "going on from the checkpoint after %d steps, in %s", int(found.group(1)), state.name or "a fit's end"
                    )
                    return state, int(found.group(1))
            log.warning("the checkpoint %s is damaged and passed over", self.store.uri(name))
        return State(), 0

    def finished_weights(self, fit: str) -> Mapping[str, Tensor] | None:
        """The weights of `fit` if it is done."""
        return self.state.done.get(fit)

    def unfinished(self, fit: str) -> State | None:
        """The state in which `fit` was left, if it was."""
        return self.state if self.state.name == fit else None

    def after_step(self, fit: str, state: Callable[[], tuple[dict[str, Tensor], dict[str, Any]]]) -> None:
        """Saves the `state` of `fit` where it is time to; ends the process once it is saved where it was told to end."""
        self.steps += 1
        if self.steps % self.every and not self.sigterm_received:
            return
        tensors, numbers = state()
        # What has gone astray is no state to go on from.
        if all(torch.isfinite(one).all() for one in tensors.values() if one.is_floating_point()):
            self._save(State(self.state.done, fit, tensors, numbers))
        if self.sigterm_received:
            log.info("told to end: the state after %d steps is kept", self.steps)
            raise SystemExit(128 + signal.SIGTERM)

    def finish_fit(self, fit: str, weights: Mapping[str, Tensor]) -> None:
        """Keeps the weights of `fit`, which is done."""
        self._save(State(self.state.done | {fit: dict(weights)}))

    def _save(self, state: State) -> None:
        data = state.to_bytes()
        self.store.replace(f"{self.directory}/{self.steps:09}-{digest(data)[:16]}.safetensors", data)
        self.state = state
        for name in self._list_names()[:-MAX_TO_KEEP]:
            self.store.remove_folder(name)

    def clear(self) -> None:
        """Removes the checkpoints: the training is done."""
        self.store.remove_folder(self.directory)

    @contextmanager
    def handle_sigterm(self) -> Iterator[None]:
        """Within, a SIGTERM ends the process only after the next step, with its state kept."""

        def told(number: int, frame: object) -> None:
            self.sigterm_received = True

        before = signal.signal(signal.SIGTERM, told)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
