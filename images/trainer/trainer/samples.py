"""From closes to what the network sees and what it is to say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def log_returns(closes: Array) -> Array:
    """The log return of each session after the first: ln(close / close before), without a unit."""
    return np.diff(np.log(closes))


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of log returns a session, taken from the training part alone."""

    mean: float
    deviation: float

    @classmethod
    def fit(cls, returns: Array) -> Scaler:
        """The scaler of `returns`."""
        return cls(float(returns.mean()), float(returns.std()))

    def units(self, horizon: int) -> Array:
        """What a target of each horizon 1 to `horizon` is divided by: log returns grow with the root of time."""
        return self.deviation * np.sqrt(np.arange(1, horizon + 1))


def origins(returns: Array, window: int) -> npt.NDArray[np.int64]:
    """The sessions that can be forecast from, as indexes of closes: those with `window` log returns up to them."""
    return np.arange(window, len(returns) + 1)


def windows(returns: Array, at: npt.NDArray[np.int64], window: int) -> Array:
    """For each origin the `window` log returns up to it; shape (origins, window)."""
    return np.lib.stride_tricks.sliding_window_view(returns, window)[at - window]


def targets(returns: Array, at: npt.NDArray[np.int64], horizon: int) -> Array:
    """For each origin the log return from it to 1, 2, … `horizon` sessions later; shape (origins, horizon)."""
    level = np.concatenate([[0.0], np.cumsum(returns)])
    ahead: Array = level[at[:, None] + np.arange(1, horizon + 1)] - level[at][:, None]
    return ahead
