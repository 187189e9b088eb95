"""Fits a network to log returns and forecasts with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from step_contract.exit_codes import ConfigurationWrong, DataWrong
from torch import Tensor, nn

from trainer.configuration import Configuration
from trainer.model import MODELS
from trainer.progress import Epochs
from trainer.samples import Array, Scaler, targets, windows

Indexes = npt.NDArray[np.int64]


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


def fit(returns: Array, at: Indexes, configuration: Configuration, name: str) -> Fitted:
    """A network fitted to forecast from the origins `at`, with a scaler of the log returns up to the last target alone.

    The same arguments give the same network on the same machine. Raises DataWrong when the loss is no number any more.
    """
    if configuration.model not in MODELS:
        known = ", ".join(sorted(MODELS))
        raise ConfigurationWrong(f"the model {configuration.model!r} is not known: it must be one of {known}")
    torch.manual_seed(configuration.seed)
    # The same as use_deterministic_algorithms, which would load the compiler first and take four seconds for it.
    torch.set_deterministic_debug_mode("error")
    # So small a network is slower on several threads, and the order of sums would depend on how many there are.
    torch.set_num_threads(1)
    horizon = configuration.horizon
    scaler = Scaler.fit(returns[: at[-1] + horizon])
    seen = _scaled(windows(returns, at, configuration.window), scaler)
    drift = scaler.mean * np.arange(1, horizon + 1)
    wanted = torch.from_numpy((targets(returns, at, horizon) - drift) / scaler.units(horizon)).float()
    network = MODELS[configuration.model](configuration)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=configuration.weight_decay)
    steps = configuration.epochs * -(-len(at) // configuration.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, configuration.learning_rate, total_steps=steps)
    quantiles = torch.tensor(configuration.quantiles)
    with Epochs(name, configuration.epochs, len(at)) as epochs:
        for epoch in range(1, configuration.epochs + 1):
            total = 0.0
            for batch in torch.split(torch.randperm(len(at)), configuration.batch):
                optimizer.zero_grad()
                loss = pinball_loss(network(seen[batch]), wanted[batch], quantiles)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(batch)
            if not np.isfinite(total):
                raise DataWrong(
                    f"{name}: the loss is {total} in epoch {epoch}: lower learning_rate in the model's configuration"
                )
            epochs.ended(total / len(at))
    return Fitted(network.eval(), scaler, configuration)
