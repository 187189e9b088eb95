"""Fit a network to log returns: the loss, the training loop, and the forecasts of the fitted model."""

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
import torch
from step_contract.errors import ConfigurationError, DataError
from torch import Tensor, nn
from tqdm import tqdm

from trainer.config import ModelConfig
from trainer.dataset import Array, Indexes, Scaler, cumulative_returns, input_windows
from trainer.model import MODELS
from trainer.threads import thread_count

if TYPE_CHECKING:
    from trainer.checkpoint import CheckpointManager

logger = logging.getLogger(__name__)

# The mean loss of an epoch is in standard deviations of the targets: the naive forecast has about 0.3 for any index.
MAX_EPOCH_LOSS = 3.0


@dataclass(frozen=True)
class FittedModel:
    """A fitted network with the scaler of its training part, and those of its features."""

    network: nn.Module
    scaler: Scaler
    config: ModelConfig
    feature_scalers: tuple[Scaler, ...] = ()

    def forecast(self, returns: Array, origins: Indexes, features: Array | None = None) -> Array:
        """Return the low, middle and high cumulative log return of each horizon, shape (origins, horizon, 3).

        Args:
            returns: log returns of consecutive sessions, shape (sessions - 1,).
            origins: indexes into the closes, shape (origins,).
            features: `dataset.feature_values`, shape (sessions - 1, features); None if the model has none.
        """
        inputs = _make_inputs(returns, features, origins, self.config.window, (self.scaler, *self.feature_scalers))
        with torch.no_grad():
            outputs = self.network(inputs).numpy().astype(np.float64)
        horizons = np.arange(1, self.config.horizon + 1)
        scaled: Array = outputs * self.scaler.target_scale(self.config.horizon)[:, None]
        return scaled + (self.scaler.mean * horizons)[:, None]


def _make_inputs(returns: Array, features: Array | None, origins: Indexes, window: int, scalers: tuple[Scaler, ...]) -> Tensor:
    """Return the scaled log returns and features of the window up to each origin, shape (origins, inputs, window)."""
    columns = [scalers[0].scale(returns)]
    for values, scaler in zip(features.T if features is not None else (), scalers[1:], strict=True):
        columns.append(np.nan_to_num(scaler.scale(values)))  # a missing value becomes the mean
    windows = [input_windows(column, origins, window) for column in columns]
    return torch.from_numpy(np.stack(windows, axis=1)).float()


def pinball_loss(forecast: Tensor, target: Tensor, quantiles: Tensor) -> Tensor:
    """Return the mean quantile loss (Koenker and Bassett, 1978), a scalar.

    Args:
        forecast: shape (samples, horizon, quantiles).
        target: shape (samples, horizon).
        quantiles: probabilities, shape (quantiles,).
    """
    error = target[:, :, None] - forecast
    return torch.maximum(quantiles * error, (quantiles - 1) * error).mean()


class TrainingState:
    """Network, optimizer, learning rate schedule and position of a fit: everything that resuming it needs.

    `epoch` and `step`, the batch within it, count from 1 and refer to the current batch.
    """

    def __init__(self, network: nn.Module, config: ModelConfig, samples: int) -> None:
        self.network, self.samples = network, samples
        self.epochs, self.batch_size = config.epochs, config.batch_size
        self.optimizer = torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay)
        total_steps = self.epochs * -(-samples // self.batch_size)
        self.scheduler = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, config.learning_rate, total_steps=total_steps)
        self.epoch, self.step, self.loss_sum = 1, 1, 0.0
        self.permutation = torch.empty(0, dtype=torch.int64)

    def batches(self) -> Iterator[Tensor]:
        """Yield the sample indexes of each batch from the current one on; call `advance` after each."""
        while self.epoch <= self.epochs:
            if self.step == 1:
                self.permutation = torch.randperm(self.samples)
            yield self.permutation[(self.step - 1) * self.batch_size : self.step * self.batch_size]

    def advance(self, loss: float, samples: int) -> float | None:
        """Move to the next batch; at the end of an epoch, return its mean loss.

        Args:
            loss: the mean loss of the current batch.
            samples: the number of samples in it.
        """
        self.loss_sum += loss * samples
        self.step += 1
        if (self.step - 1) * self.batch_size < self.samples:
            return None
        mean, self.loss_sum = self.loss_sum / self.samples, 0.0
        self.epoch, self.step = self.epoch + 1, 1
        return mean

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as tensors, and as values that JSON represents exactly."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {
            f"optimizer/{index}/{name}": tensor
            for index, parameter in optimizer["state"].items()
            for name, tensor in parameter.items()
        }
        tensors |= {"permutation": self.permutation, "rng": torch.get_rng_state()}
        values = {"param_groups": optimizer["param_groups"], "scheduler": self.scheduler.state_dict()}
        return tensors, values | {"epoch": self.epoch, "step": self.step, "loss_sum": self.loss_sum}

    def load_state_dict(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Restore a state that `state_dict` returned."""
        self.network.load_state_dict(
            {name.removeprefix("network/"): tensor for name, tensor in tensors.items() if name.startswith("network/")}
        )
        parameters: dict[int, dict[str, Tensor]] = {}
        for path, tensor in tensors.items():
            if path.startswith("optimizer/"):
                _, index, name = path.split("/")
                parameters.setdefault(int(index), {})[name] = tensor
        self.optimizer.load_state_dict({"state": parameters, "param_groups": values["param_groups"]})
        self.scheduler.load_state_dict(dict(values["scheduler"]))
        self.permutation = tensors["permutation"]
        torch.set_rng_state(tensors["rng"])
        self.epoch, self.step, self.loss_sum = values["epoch"], values["step"], values["loss_sum"]


class EpochProgress:
    """Report the progress of a fit: a progress bar on a terminal, otherwise a log line per epoch.

    Args:
        name: the fit's name.
        epochs: the number of epochs.
        samples: the number of samples in an epoch.
        first: the epoch that the fit starts at or resumes from.
    """

    def __init__(self, name: str, epochs: int, samples: int, first: int) -> None:
        self.name, self.epochs, self.samples = name, epochs, samples
        self.started, self.finished, self.skipped = time.monotonic(), first - 1, first - 1
        self.bar = tqdm(total=epochs, initial=self.skipped, desc=name, unit=" epochs", disable=None, file=sys.stderr)

    def __enter__(self) -> EpochProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.close()

    def update(self, loss: float) -> None:
        """Report a finished epoch with its mean loss, the remaining time and the throughput."""
        self.finished += 1
        epoch_seconds = (time.monotonic() - self.started) / (self.finished - self.skipped)
        self.bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self.bar.update()
        if self.bar.disable:
            remaining, rate = epoch_seconds * (self.epochs - self.finished), self.samples / max(epoch_seconds, 1e-9)
            message = "%s: epoch %d of %d, loss=%.4f, remaining_seconds=%.0f, samples_per_second=%.0f"
            logger.info(message, self.name, self.finished, self.epochs, loss, remaining, rate)


def fit(
    returns: Array,
    origins: Indexes,
    config: ModelConfig,
    name: str,
    checkpoints: CheckpointManager | None = None,
    features: Array | None = None,
) -> FittedModel:
    """Fit a network to forecast from `origins`; the scaler uses the log returns up to the last target only.

    The same arguments give the same weights on the same machine, even if the fit was interrupted and resumed.

    Args:
        returns: log returns of consecutive sessions, shape (sessions - 1,).
        origins: indexes into the closes, shape (origins,), ascending.
        config: the model's configuration.
        name: identifies the fit in logs and checkpoints.
        checkpoints: where to save and resume; None disables checkpoints.
        features: `dataset.feature_values`, shape (sessions - 1, features); None for none.

    Raises:
        ConfigurationError: the model is unknown.
        DataError: the training diverged.
    """
    if config.model not in MODELS:
        raise ConfigurationError(f"unknown model {config.model!r}: must be one of {', '.join(sorted(MODELS))}")
    torch.manual_seed(config.seed)
    # Same as use_deterministic_algorithms, which would import the compiler first: four seconds.
    torch.set_deterministic_debug_mode("error")
    # The number of threads determines the order of summation, and with it the last digits of the weights.
    torch.set_num_threads(thread_count())
    horizon = config.horizon
    scaler = Scaler.fit(returns[: origins[-1] + horizon])
    known = features[: origins[-1] + horizon].T if features is not None else ()
    feature_scalers = tuple(Scaler.fit_feature(values) for values in known)
    network = MODELS[config.model](config, 1 + len(feature_scalers))
    if checkpoints and (weights := checkpoints.finished_weights(name)):
        network.load_state_dict(dict(weights))
        return FittedModel(network.eval(), scaler, config, feature_scalers)
    inputs = _make_inputs(returns, features, origins, config.window, (scaler, *feature_scalers))
    drift = scaler.mean * np.arange(1, horizon + 1)
    targets = cumulative_returns(returns, origins, horizon) - drift
    scaled_targets = torch.from_numpy(targets / scaler.target_scale(horizon)).float()
    state = TrainingState(network, config, len(origins))
    if checkpoints and (checkpoint := checkpoints.unfinished(name)):
        state.load_state_dict(checkpoint.tensors, checkpoint.values)
    quantiles = torch.tensor(config.quantiles)
    with EpochProgress(name, config.epochs, len(origins), state.epoch) as progress:
        for batch in state.batches():
            state.optimizer.zero_grad()
            loss = pinball_loss(network(inputs[batch]), scaled_targets[batch], quantiles)
            loss.backward()
            state.optimizer.step()
            state.scheduler.step()
            position = f"step {state.step} of epoch {state.epoch}"
            epoch_loss = state.advance(batch_loss := loss.item(), len(batch))
            if not math.isfinite(batch_loss) or (epoch_loss or 0) > MAX_EPOCH_LOSS:
                raise DataError(
                    f"{name}: training diverged with loss {batch_loss:.4g} in {position}: "
                    "lower learning_rate in the model's configuration"
                )
            if epoch_loss is not None:
                progress.update(epoch_loss)
            if checkpoints:
                checkpoints.after_step(name, state.state_dict)
    if checkpoints:
        checkpoints.save_finished(name, network.state_dict())
    return FittedModel(network.eval(), scaler, config, feature_scalers)
