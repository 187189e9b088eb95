"""Forecast without a model: the naive or the drift forecast, with an interval that is calibrated as a model's is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trainer.calibration import calibrate_forecasts, start_calibration
from trainer.dataset import Array, Indexes, cumulative_returns
from trainer.scores import diebold_mariano, drift_forecast, naive_forecast

NAIVE, DRIFT = "naive", "drift"
PREFIX = "baseline: "  # of a baseline's name wherever a source of forecasts is named
MIN_RETURNS = 20  # a month: with fewer log returns, not even a standard deviation is known
SIGNIFICANCE_LEVEL = 0.05


class Forecast(NamedTuple):
    """A forecast from the last close, and who made it.

    Attributes:
        name: the kind of network, or `naive` or `drift`.
        interval: the nominal coverage.
        values: low, middle and high cumulative log return, shape (horizon, 3).
        raw: the same before calibration; equal to `values` if there were too few outcomes to calibrate it.
        is_calibrated: whether there were enough.
    """

    name: str
    interval: float
    values: Array
    raw: Array
    is_calibrated: bool


def forecast_baseline(returns: Array, horizon: int, interval: float) -> Forecast:
    """Return the forecast of the better baseline from the last close.

    The drift forecast, the mean log return so far, is used if its absolute errors at the last horizon have been significantly
    smaller than the naive forecast's (`diebold_mariano`), otherwise the naive forecast: without evidence, the simpler one.

    Args:
        returns: log returns of consecutive sessions, shape (sessions - 1,), at least MIN_RETURNS.
        horizon: sessions ahead.
        interval: the nominal coverage.
    """
    origins = np.arange(MIN_RETURNS, len(returns) + 1)
    naive, drift = _forecast_baselines(returns, origins, horizon, interval)
    name, forecasts = (DRIFT, drift) if _is_better(drift, returns, origins, horizon) else (NAIVE, naive)
    # The first half only starts the calibration: its level then adapts to the outcomes of the second.
    first = (len(origins) - 1) // 2
    start = start_calibration(returns[: origins[first]], MIN_RETURNS, horizon, interval)
    calibrated = calibrate_forecasts(start, returns, origins[first:], forecasts[first:])
    return Forecast(name, interval, calibrated.forecasts[-1], forecasts[-1], calibrated.calibration.ready)


def _forecast_baselines(returns: Array, origins: Indexes, horizon: int, interval: float) -> tuple[Array, Array]:
    """Return the naive and the drift forecast from each origin, which know the log returns up to it.

    Returns:
        Two arrays of shape (origins, horizon, 3).
    """
    mean, square = (np.cumsum(values)[origins - 1] / origins for values in (returns, returns**2))
    std = np.sqrt(np.maximum(square - mean**2, 0))
    horizons = range(1, horizon + 1)
    naive = np.stack([naive_forecast(std, h, interval) for h in horizons], axis=1)
    drift = np.stack([drift_forecast(mean, std, origins.astype(np.float64), h, interval) for h in horizons], axis=1)
    return naive, drift


def _is_better(forecasts: Array, returns: Array, origins: Indexes, horizon: int) -> bool:
    """Return whether the forecasts were significantly better than no change at the last horizon, by the known outcomes."""
    known = max(len(origins) - horizon, 0)
    outcomes = cumulative_returns(returns, origins[:known], horizon)[:, -1]
    errors = np.abs(outcomes - forecasts[:known, -1, 1])
    return diebold_mariano(errors, np.abs(outcomes), horizon).p_value < SIGNIFICANCE_LEVEL
