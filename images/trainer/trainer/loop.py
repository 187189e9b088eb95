"""The course of a fit: which samples come when, and all that it takes to go on from where it was left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.configuration import Configuration


class Loop:
    """The batches of all epochs of a fit to `samples` samples, with optimizer and schedule.

    `epoch` and `step` count from 1 and say which batch is under way.
    """

    def __init__(self, network: nn.Module, configuration: Configuration, samples: int) -> None:
        self.network, self.samples = network, samples
        self.epochs, self.batch = configuration.epochs, configuration.batch
        self.optimizer = torch.optim.AdamW(network.parameters(), weight_decay=configuration.weight_decay)
        steps = self.epochs * -(-samples // self.batch)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, configuration.learning_rate, total_steps=steps)
        self.epoch, self.step, self.loss = 1, 1, 0.0
        self.order = torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> Iterator[Tensor]:
        """The samples of each batch, as indexes, until all epochs are over; `ended` tells that one was used."""
        while self.epoch <= self.epochs:
            if self.step == 1:
                self.order = torch.randperm(self.samples)
            yield self.order[(self.step - 1) * self.batch : self.step * self.batch]

    def ended(self, loss: float, count: int) -> float | None:
        """Goes on to the next batch, after one of `count` samples with the mean `loss`; at an epoch's end its mean loss."""
        self.loss += loss * count
        self.step += 1
        if (self.step - 1) * self.batch < self.samples:
            return None
        mean, self.loss = self.loss / self.samples, 0.0
        self.epoch, self.step = self.epoch + 1, 1
        return mean

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that `resume` needs: tensors, and numbers that JSON holds exactly."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"network/{key}": one for key, one in self.network.state_dict().items()}
        tensors |= {
            f"optimizer/{index}/{key}": one for index, values in optimizer["state"].items() for key, one in values.items()
        }
        tensors |= {"order": self.order, "generator": torch.get_rng_state()}
        numbers = {"groups": optimizer["param_groups"], "schedule": self.schedule.state_dict()}
        return tensors, numbers | {"epoch": self.epoch, "step": self.step, "loss": self.loss}

    def resume(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Goes on from a state that `state` has given."""
        self.network.load_state_dict(
            {key.removeprefix("network/"): one for key, one in tensors.items() if key.startswith("network/")}
        )
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                state.setdefault(int(index), {})[name] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": numbers["groups"]})
        self.schedule.load_state_dict(dict(numbers["schedule"]))
        self.order = tensors["order"]
        torch.set_rng_state(tensors["generator"])
        self.epoch, self.step, self.loss = numbers["epoch"], numbers["step"], numbers["loss"]
