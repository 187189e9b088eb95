"""The networks. To add one, write a class that takes a ModelConfig and the number of inputs of a session, add it to MODELS and
name it in model.toml. An input is the log return or a feature (`dataset.FEATURES`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.config import ModelConfig


class QuantileHead(nn.Module):
    """Map features to the low, middle and high value of each horizon, which cannot cross."""

    def __init__(self, features: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.linear = nn.Linear(features, 3 * horizon)

    def forward(self, features: Tensor) -> Tensor:
        """Map (samples, features) to (samples, horizon, 3)."""
        below, middle, above = self.linear(features).view(-1, self.horizon, 3).unbind(-1)
        return torch.stack([middle - functional.softplus(below), middle, middle + functional.softplus(above)], dim=-1)


class TemporalConvolutionalNetwork(nn.Module):
    """Causal convolutions with residual connections whose receptive field doubles with each layer until it covers the window.

    Source: Bai, Kolter and Koltun (2018), An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
    Modeling. As only the last session's output is used, stride 2 replaces dilation: each layer computes what the next needs.
    """

    def __init__(self, config: ModelConfig, inputs: int = 1) -> None:
        super().__init__()
        channels = config.channels
        self.input_projection = nn.Conv1d(inputs, channels, kernel_size=1)
        levels = max(1, (config.window - 1).bit_length())
        self.padding = 2**levels - config.window
        self.layers = nn.ModuleList(nn.Conv1d(channels, channels, 2, stride=2) for _ in range(levels))
        self.head = QuantileHead(channels, config.horizon)

    def forward(self, windows: Tensor) -> Tensor:
        """Map scaled inputs (samples, inputs, window) to scaled low, middle and high values (samples, horizon, 3)."""
        hidden = self.input_projection(functional.pad(windows, (self.padding, 0)))
        for layer in self.layers:
            hidden = hidden[:, :, 1::2] + functional.gelu(layer(hidden))
        output: Tensor = self.head(hidden[:, :, 0])
        return output


class GatedRecurrentNetwork(nn.Module):
    """A gated recurrent unit (GRU) over the window."""

    def __init__(self, config: ModelConfig, inputs: int = 1) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, config.channels, batch_first=True)
        self.head = QuantileHead(config.channels, config.horizon)

    def forward(self, windows: Tensor) -> Tensor:
        """Map scaled inputs (samples, inputs, window) to scaled low, middle and high values (samples, horizon, 3)."""
        hidden, _ = self.gru(windows.transpose(1, 2))
        output: Tensor = self.head(hidden[:, -1])
        return output


MODELS: dict[str, Callable[..., nn.Module]] = {
    "tcn": TemporalConvolutionalNetwork,
    "gru": GatedRecurrentNetwork,
}
