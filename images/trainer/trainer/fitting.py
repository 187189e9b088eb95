"""Fits a network to log returns and forecasts with it."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from step_contract.errors import ConfigurationError, DataError
from torch import Tensor, nn
from tqdm import tqdm

from trainer.config import ModelConfig
from trainer.dataset import Array, Scaler, targets, windows
from trainer.model import MODELS
from trainer.threads import thread_count

if TYPE_CHECKING:
    from trainer.checkpoint import CheckpointManager

log = logging.getLogger(__name__)

Indexes = npt.NDArray[np.int64]
# The mean loss of an epoch is in units of the targets' deviation: forecasting nothing costs 0.3 of whatever index.
DIVERGENCE_LOSS = 3.0


@dataclass(frozen=True)
class FittedModel:
    """A fitted network with the scaler of its training part."""

    network: nn.Module
    scaler: Scaler
    configuration: ModelConfig

    def forecast(self, returns: Array, at: Indexes) -> Array:
        """Low, middle and high cumulative log return of each horizon from each origin; shape (origins, horizon, 3)."""
        seen = _scaled(windows(returns, at, self.configuration.window), self.scaler)
        with torch.no_grad():
            out = self.network(seen).numpy().astype(np.float64)
        horizons = np.arange(1, self.configuration.horizon + 1)
        scaled: Array = out * self.scaler.units(self.configuration.horizon)[:, None]
        return scaled + (self.scaler.mean * horizons)[:, None]


def _scaled(values: Array, scaler: Scaler) -> Tensor:
    return torch.from_numpy((values - scaler.mean) / scaler.deviation).float()


def pinball_loss(forecast: Tensor, target: Tensor, quantiles: Tensor) -> Tensor:
    """The mean quantile loss (Koenker and Bassett, 1978) of (samples, horizon, 3) against (samples, horizon)."""
    error = target[:, :, None] - forecast
    return torch.maximum(quantiles * error, (quantiles - 1) * error).mean()


class TrainingLoop:
    """The batches of all epochs of a fit to `samples` samples, with optimizer and schedule.

    `epoch` and `step` count from 1 and say which batch is under way.
    """

    def __init__(self, network: nn.Module, configuration: ModelConfig, samples: int) -> None:
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


class EpochProgress:
    """The `count` epochs of the fit `name`, each over `samples` samples, from the epoch `first` on."""

    def __init__(self, name: str, count: int, samples: int, first: int) -> None:
        self.name, self.count, self.samples = name, count, samples
        self.started, self.done, self.before = time.monotonic(), first - 1, first - 1
        self.bar = tqdm(total=count, initial=self.before, desc=name, unit=" epochs", disable=None, file=sys.stderr)

    def __enter__(self) -> EpochProgress:
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


def fit(
    returns: Array, at: Indexes, configuration: ModelConfig, name: str, checkpoints: CheckpointManager | None = None
) -> FittedModel:
    """A network fitted to forecast from the origins `at`, with a scaler of the log returns up to the last target alone.

    The same arguments give the same network on the same machine, however often it was interrupted and went on from
    `checkpoints`. Raises DataError when the loss is no number any more or grows out of all bounds.
    """
    if configuration.model not in MODELS:
        known = ", ".join(sorted(MODELS))
        raise ConfigurationError(f"the model {configuration.model!r} is not known: it must be one of {known}")
    torch.manual_seed(configuration.seed)
    # The same as use_deterministic_algorithms, which would load the compiler first and take four seconds for it.
    torch.set_deterministic_debug_mode("error")
    # The order of sums, and so the last digits of the weights, depend on how many there are.
    torch.set_num_threads(thread_count())
    horizon = configuration.horizon
    scaler = Scaler.fit(returns[: at[-1] + horizon])
    network = MODELS[configuration.model](configuration)
    if checkpoints and (weights := checkpoints.finished_weights(name)):
        network.load_state_dict(dict(weights))
        return FittedModel(network.eval(), scaler, configuration)
    seen = _scaled(windows(returns, at, configuration.window), scaler)
    drift = scaler.mean * np.arange(1, horizon + 1)
    wanted = torch.from_numpy((targets(returns, at, horizon) - drift) / scaler.units(horizon)).float()
    loop = TrainingLoop(network, configuration, len(at))
    if checkpoints and (left := checkpoints.unfinished(name)):
        loop.resume(left.tensors, left.numbers)
    quantiles = torch.tensor(configuration.quantiles)
    with EpochProgress(name, configuration.epochs, len(at), loop.epoch) as epochs:
        for batch in loop:
            loop.optimizer.zero_grad()
            loss = pinball_loss(network(seen[batch]), wanted[batch], quantiles)
            loss.backward()
            loop.optimizer.step()
            loop.schedule.step()
            where = f"step {loop.step} of epoch {loop.epoch}"
            mean = loop.ended(value := loss.item(), len(batch))
            if not math.isfinite(value) or (mean or 0) > DIVERGENCE_LOSS:
                raise DataError(
                    f"{name}: the training diverged, the loss is {value:.4g} in {where}: lower learning_rate in the model's "
                    "configuration"
                )
            if mean is not None:
                epochs.ended(mean)
            if checkpoints:
                checkpoints.after_step(name, loop.state)
    if checkpoints:
        checkpoints.finish_fit(name, network.state_dict())
    return FittedModel(network.eval(), scaler, configuration)
