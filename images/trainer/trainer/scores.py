"""What forecasts are scored by: the baselines with their intervals, interval scores, and the significance of differences."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple, TypedDict

import numpy as np

from trainer.calibration import ewma_volatility
from trainer.config import interval_quantiles
from trainer.dataset import Array, Indexes, input_windows

NORMAL = NormalDist()
MOVING_AVERAGE_SESSIONS = 20  # a month


class Baselines(NamedTuple):
    """What the baselines know at each origin, each of shape (origins,); `volatility` only groups the scores.

    Attributes:
        drift: mean log return per session in the training part; `std`: its standard deviation.
        sessions: the number of log returns in the training part.
        mean_absolute_return: the mean absolute log return per session in the training part.
        moving_average: mean log return per session of the last month.
        volatility: as `ewma_volatility` returns it.
    """

    drift: Array
    std: Array
    sessions: Array
    mean_absolute_return: Array
    moving_average: Array
    volatility: Array

    @classmethod
    def fit(cls, known: Array, returns: Array, origins: Indexes, window: int) -> Baselines:
        """Return the baselines at `origins`, with the training part `known` of the log `returns`."""
        same = np.ones(len(origins))
        return cls(
            drift=known.mean() * same,
            std=known.std() * same,
            sessions=len(known) * same,
            mean_absolute_return=np.abs(known).mean() * same,
            moving_average=input_windows(returns, origins, min(window, MOVING_AVERAGE_SESSIONS)).mean(axis=1),
            volatility=ewma_volatility(returns)[origins],
        )


def naive_forecast(std: Array, horizon: int, interval: float) -> Array:
    """Return the naive forecast with its normal prediction interval as cumulative log returns, shape (origins, 3).

    Source: Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd edition, section 5.5.

    Args:
        std: standard deviation of a session's log return in the training part of each origin, shape (origins,).
        horizon: sessions ahead.
        interval: the nominal coverage.
    """
    return _normal_forecast(np.zeros_like(std), std * math.sqrt(horizon), interval)


def drift_forecast(drift: Array, std: Array, sessions: Array, horizon: int, interval: float) -> Array:
    """Return the drift forecast with its interval, as `naive_forecast` does.

    Args:
        drift: mean log return per session in the training part of each origin, shape (origins,).
        std: as for `naive_forecast`.
        sessions: the number of log returns in the training part of each origin, shape (origins,).
        horizon: sessions ahead.
        interval: the nominal coverage.
    """
    return _normal_forecast(drift * horizon, std * np.sqrt(horizon * (1 + horizon / sessions)), interval)


def _normal_forecast(middle: Array, std: Array, interval: float) -> Array:
    margin = NORMAL.inv_cdf((1 + interval) / 2) * std
    return np.stack([middle - margin, middle, middle + margin], axis=1)


class IntervalScore(TypedDict):
    """Out-of-sample scores of one horizon's prediction interval.

    Attributes:
        coverage: the share of outcomes within the interval; its calibration is good if this is near the nominal coverage.
        coverage_low: lower end of the 95 % confidence interval of the coverage; `coverage_high`: upper end.
        coverage_by_volatility: the coverage in the third of the forecasts with the lowest volatility at their origin, in the
            middle third and in that with the highest.
        width: mean width, a log return.
        interval_score: the mean of the width plus 2 / (1 - nominal coverage) times the distance of an outcome outside, a log
            return; smaller is better (Winkler, 1972; Gneiting and Raftery, 2007, equation 43).
        quantile_loss: the mean pinball loss of low, middle and high value, a log return.
    """

    coverage: float
    coverage_low: float
    coverage_high: float
    coverage_by_volatility: list[float]
    width: float
    interval_score: float
    quantile_loss: float


def score_interval(forecasts: Array, outcomes: Array, volatility: Array, horizon: int, interval: float) -> IntervalScore:
    """Return the scores of the interval `horizon` sessions ahead.

    Args:
        forecasts: low, middle and high cumulative log returns of consecutive origins, shape (origins, 3).
        outcomes: cumulative log returns, shape (origins,).
        volatility: at each origin, shape (origins,).
        horizon: sessions ahead.
        interval: the nominal coverage.
    """
    low, _, high = forecasts.T
    covered = (low <= outcomes) & (outcomes <= high)
    outside = np.maximum(low - outcomes, 0) + np.maximum(outcomes - high, 0)
    coverage = float(covered.mean())
    # Forecasts overlap: only one per `horizon` sessions is an independent trial.
    coverage_low, coverage_high = wilson_interval(coverage, len(outcomes) / horizon)
    thirds = np.array_split(covered[np.argsort(volatility, kind="stable")], 3)
    errors = outcomes[:, None] - forecasts
    quantiles = np.array(interval_quantiles(interval))
    return IntervalScore(
        coverage=coverage,
        coverage_low=coverage_low,
        coverage_high=coverage_high,
        coverage_by_volatility=[float(third.mean()) for third in thirds if len(third)],
        width=float((high - low).mean()),
        interval_score=float((high - low + 2 / (1 - interval) * outside).mean()),
        quantile_loss=float(np.maximum(quantiles * errors, (quantiles - 1) * errors).mean()),
    )


class DieboldMarianoTest(NamedTuple):
    """The test's statistic and its one-sided p-value, the probability of at least this statistic if there is no difference."""

    statistic: float
    p_value: float


def diebold_mariano(losses: Array, baseline_losses: Array, horizon: int) -> DieboldMarianoTest:
    """Test whether forecasts `horizon` sessions ahead, one per session, have smaller losses than a baseline.

    Diebold and Mariano (1995) with the correction of Harvey, Leybourne and Newbold (1997). Errors of overlapping forecasts are
    correlated over `horizon` - 1 sessions, so as many autocovariances are included, with the weights of Newey and West (1987)
    if the variance would be negative otherwise. Without any difference, or with fewer than two horizons of forecasts, the
    p-value is 0.5.

    Args:
        losses: loss of each forecast in order of time, shape (forecasts,).
        baseline_losses: the baseline's, same shape.
        horizon: sessions ahead.
    """
    differences = baseline_losses - losses
    count = len(differences)
    if count < 2 * horizon or not np.ptp(differences):
        return DieboldMarianoTest(0.0, 0.5)
    centered = differences - differences.mean()
    covariances = [float(centered[lag:] @ centered[: count - lag]) / count for lag in range(horizon)]
    variance = covariances[0] + 2 * sum(covariances[1:])
    if variance <= 0:
        weighted = ((1 - lag / horizon) * covariance for lag, covariance in enumerate(covariances[1:], start=1))
        variance = covariances[0] + 2 * sum(weighted)
    if variance <= 0:
        return DieboldMarianoTest(0.0, 0.5)
    correction = math.sqrt((count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count)
    statistic = correction * float(differences.mean()) / math.sqrt(variance / count)
    return DieboldMarianoTest(statistic, 1 - NORMAL.cdf(statistic))


def wilson_interval(share: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of a `share` of `count` independent trials (Wilson, 1927); (0, 1) without trials."""
    if count <= 0:
        return 0.0, 1.0
    z = NORMAL.inv_cdf((1 + confidence) / 2)
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    margin = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, center - margin), min(1.0, center + margin)
