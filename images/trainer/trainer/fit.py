"""Fits a network to log returns and forecasts with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from step_contract.errors import ConfigurationError, DataError
from torch import Tensor, nn

from trainer.configuration import Configuration
from trainer.loop import Loop
from trainer.model import MODELS
from trainer.progress import Epochs
from trainer.samples import Array, Scaler, targets, windows
from trainer.threads import threads

if TYPE_CHECKING:
    from trainer.checkpoint import Checkpoints

Indexes = npt.NDArray[np.int64]
# The mean loss of an epoch is in units of the targets' deviation: forecasting nothing costs 0.3 of whatever index.
DIVERGED = 3.0


@dataclass(frozen=True)
class Fitted:
    """A fitted network with the scaler of its training part."""

    network: nn.Module
    scaler: Scaler
    configuration: Configuration

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


def fit(returns: Array, at: Indexes, configuration: Configuration, name: str, checkpoints: Checkpoints | None = None) -> Fitted:
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
    torch.set_num_threads(threads())
    horizon = configuration.horizon
    scaler = Scaler.fit(returns[: at[-1] + horizon])
    network = MODELS[configuration.model](configuration)
    if checkpoints and (weights := checkpoints.weights_of(name)):
        network.load_state_dict(dict(weights))
        return Fitted(network.eval(), scaler, configuration)
    seen = _scaled(windows(returns, at, configuration.window), scaler)
    drift = scaler.mean * np.arange(1, horizon + 1)
    wanted = torch.from_numpy((targets(returns, at, horizon) - drift) / scaler.units(horizon)).float()
    loop = Loop(network, configuration, len(at))
    if checkpoints and (left := checkpoints.begun(name)):
        loop.resume(left.tensors, left.numbers)
    quantiles = torch.tensor(configuration.quantiles)
    with Epochs(name, configuration.epochs, len(at), loop.epoch) as epochs:
        for batch in loop:
            loop.optimizer.zero_grad()
            loss = pinball_loss(network(seen[batch]), wanted[batch], quantiles)
            loss.backward()
            loop.optimizer.step()
            loop.schedule.step()
            where = f"step {loop.step} of epoch {loop.epoch}"
            mean = loop.ended(value := loss.item(), len(batch))
            if not math.isfinite(value) or (mean or 0) > DIVERGED:
                raise DataError(
                    f"{name}: the training diverged, the loss is {value:.4g} in {where}: lower learning_rate in the model's "
                    "configuration"
                )
            if mean is not None:
                epochs.ended(mean)
            if checkpoints:
                checkpoints.after_step(name, loop.state)
    if checkpoints:
        checkpoints.fit_ended(name, network.state_dict())
    return Fitted(network.eval(), scaler, configuration)
