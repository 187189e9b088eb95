"""The networks. To add one, write a class that takes a ModelConfig, and name it in MODELS and in model.toml."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import ModelConfig


class QuantileHead(nn.Module):
    """From features to low, middle and high value of each horizon, which cannot cross; shape (samples, horizon, 3)."""

    def __init__(self, features: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.linear = nn.Linear(features, 3 * horizon)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (samples, features) to (samples, horizon, 3)."""
        below, middle, above = self.linear(features).view(-1, self.horizon, 3).unbind(-1)
        return torch.stack([middle - functional.softplus(below), middle, middle + functional.softplus(above)], dim=-1)


class TemporalConvolutionalNetwork(nn.Module):
    """Causal convolutions over the window whose dilation doubles until they see all of it, with residual connections.

    After Bai, Kolter and Koltun (2018), An Empirical Evaluation of Generic Convolutional and Recurrent Networks. As only the
    last session's output is used, each layer is evaluated only where the next one looks: stride 2 in place of dilation.
    """

    def __init__(self, configuration: ModelConfig) -> None:
        super().__init__()
        channels = configuration.channels
        self.enter = nn.Conv1d(1, channels, kernel_size=1)
        levels = max(1, (configuration.window - 1).bit_length())
        self.missing = 2**levels - configuration.window
        self.layers = nn.ModuleList(nn.Conv1d(channels, channels, 2, stride=2) for _ in range(levels))
        self.leave = QuantileHead(channels, configuration.horizon)

    def forward(self, windows: Tensor) -> Tensor:
        """Maps scaled log returns (samples, window) to scaled low, middle and high values (samples, horizon, 3)."""
        state = self.enter(functional.pad(windows[:, None, :], (self.missing, 0)))
        for layer in self.layers:
            state = state[:, :, 1::2] + functional.gelu(layer(state))
        out: Tensor = self.leave(state[:, :, 0])
        return out


class GatedRecurrentNetwork(nn.Module):
    """A gated recurrent unit over the window."""

    def __init__(self, configuration: ModelConfig) -> None:
        super().__init__()
        self.unit = nn.GRU(1, configuration.channels, batch_first=True)
        self.leave = QuantileHead(configuration.channels, configuration.horizon)

    def forward(self, windows: Tensor) -> Tensor:
        """Maps scaled log returns (samples, window) to scaled low, middle and high values (samples, horizon, 3)."""
        states, _ = self.unit(windows[:, :, None])
        out: Tensor = self.leave(states[:, -1])
        return out


MODELS: dict[str, Callable[[ModelConfig], nn.Module]] = {"tcn": TemporalConvolutionalNetwork, "gru": GatedRecurrentNetwork}
