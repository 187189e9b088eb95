"""Calibrate prediction intervals by adaptive conformal inference, normalised by the volatility at each origin.

A network's own quantiles overfit, and hardly follow the volatility. A calibrated interval is the network's middle value, minus
and plus a multiple of the scale of a random walk with the current volatility. The multiple is a quantile of what earlier
forecasts would have needed, so that the interval covers as many outcomes as it is meant to, whatever the distribution:

- normalised nonconformity scores: Romano, Patterson and Candès (2019), Conformalized Quantile Regression, arXiv 1905.03222;
  Lei et al. (2018), Distribution-Free Predictive Inference for Regression, section 5.2.
- a quantile level that adapts to misses: Gibbs and Candès (2021), Adaptive Conformal Inference, arXiv 2106.00170.
- a level and a sliding window of scores for each horizon: Sousa, Tomé and Moreira (2022), arXiv 2207.14219.

Only outcomes that are known at a forecast's origin are used: one `horizon` sessions ahead is known `horizon` sessions later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.dataset import Array, Indexes, cumulative_returns

# Chosen on simulated series only: docs/decisions/0026-interval-calibration.md.
DECAY = 0.94
LONG_RUN_DECAY = 0.998  # half of the weight is on the last 346 sessions
LONG_RUN_WEIGHT = 0.2
MIN_VOLATILITY = 0.05  # of the root mean square of all log returns so far
STEP_SIZE = 0.01  # of the adaptive miscoverage, per outcome
MAX_SCORES = 500  # sessions, two years
MIN_SCORES = 40
HALT_SESSIONS = 5  # a week of sessions whose close is that of the one before: KOSPI and KOSDAQ have never had two in a row


def ewma_volatility(returns: Array) -> Array:
    """Return the standard deviation of a session's log return as known at each close, shape (sessions,).

    It is estimated from an exponentially weighted mean of absolute returns with the decay factor DECAY, that of RiskMetrics
    (1996) for daily returns; an outlier distorts squares more. With the weight LONG_RUN_WEIGHT, a mean with LONG_RUN_DECAY is
    added: volatility reverts to it. A halt (`find_halts`) leaves it as it is. It is at least MIN_VOLATILITY times the root mean
    square of all log returns so far: while closes hardly change for years, the means decay to nothing, and the smallest error
    would be an enormous multiple of them.

    Args:
        returns: log returns of consecutive sessions, shape (sessions - 1,). The first close has the volatility 0.
    """
    halts = find_halts(returns)[1:]
    short, long = (_weighted_means(np.abs(returns), halts, decay) for decay in (DECAY, LONG_RUN_DECAY))
    mean = (1 - LONG_RUN_WEIGHT) * short + LONG_RUN_WEIGHT * long
    minimum = MIN_VOLATILITY * np.sqrt(np.cumsum(returns**2) / np.arange(1, len(returns) + 1))
    return np.concatenate([[0.0], np.maximum(math.sqrt(math.pi / 2) * mean, minimum)])  # pi / 2: of a normal distribution


def _weighted_means(values: Array, ignored: npt.NDArray[np.bool_], decay: float) -> Array:
    """Return the mean of the values up to each one, weighted by `decay` to the power of their age; same shape.

    Those that are `ignored`, of which the first is none, are not counted, and make no other older.
    """
    means, total, weight = [], 0.0, 0.0
    for value, is_ignored in zip(values.tolist(), ignored.tolist(), strict=True):
        if not is_ignored:
            total, weight = decay * total + value, decay * weight + 1
        means.append(total / weight)
    return np.array(means)


def find_halts(returns: Array) -> npt.NDArray[np.bool_]:
    """Return at each close whether it has been the same for HALT_SESSIONS sessions or more, shape (sessions,).

    The exchange is halted, or the source repeats its last close. Such sessions show nothing about the volatility before and
    after them, and an interval that covers them shows nothing about its calibration.

    Args:
        returns: log returns of consecutive sessions, shape (sessions - 1,).
    """
    numbers = np.arange(1, len(returns) + 1)
    latest_change = np.maximum.accumulate(np.where(returns != 0, numbers, 0))
    return np.concatenate([[False], numbers - latest_change >= HALT_SESSIONS])


def forecast_scale(volatility: Array, horizon: int) -> Array:
    """Return a random walk's standard deviation at each horizon from 1, shape (origins, horizon).

    Args:
        volatility: at each origin, shape (origins,).
        horizon: sessions ahead.
    """
    scale: Array = volatility[:, None] * np.sqrt(np.arange(1, horizon + 1))
    return scale


@dataclass(frozen=True)
class Calibration:
    """What the calibration of the next forecast needs; part of a model's artifact.

    Attributes:
        interval: the nominal coverage, a probability.
        miscoverage: the share of outcomes that the interval of each horizon aims to miss now, shape (horizon,).
        scores: the latest scores, a row for each session in which an outcome of each horizon became known, at most MAX_SCORES:
            the multiple of its scale that an interval would have needed to cover the outcome; nan if there was no forecast.
            Shape (sessions, horizon).
    """

    interval: float
    miscoverage: Array
    scores: Array

    @property
    def ready(self) -> bool:
        """Whether there are enough scores; a quantile near 1 needs more of them than one in the middle."""
        required = max(MIN_SCORES, self.interval / (1 - self.interval))
        return bool(self._counts().min() >= required)

    def _counts(self) -> Indexes:
        counts: Indexes = np.sum(~np.isnan(self.scores), axis=0)
        return counts

    def multipliers(self) -> Array:
        """Return the multiple of the scale that the interval of each horizon extends to either side, shape (horizon,)."""
        counts = self._counts()
        # The conformal quantile: the smallest score that at least the wanted share of count + 1 scores do not exceed.
        ranks = np.ceil(((1 - self.miscoverage) * (counts + 1)).round(9)).astype(np.int64).clip(1, counts)
        multipliers: Array = np.sort(self.scores, axis=0)[ranks - 1, np.arange(len(ranks))]  # nan is last
        return multipliers

    def calibrate(self, forecast: Array, scale: Array) -> Array:
        """Return `forecast` with a calibrated interval around the same middle, or as it is if there are too few scores.

        Args:
            forecast: low, middle and high cumulative log return of each horizon, shape (horizon, 3).
            scale: as `forecast_scale` returns it, shape (horizon,).
        """
        if not self.ready:
            return forecast
        middle, margin = forecast[:, 1], self.multipliers() * scale
        return np.stack([middle - margin, middle, middle + margin], axis=1)

    def update(self, scores: Array, missed: Array) -> Calibration:
        """Return the calibration after a session in which an outcome of each horizon became known.

        Args:
            scores: the score of each outcome, shape (horizon,).
            missed: 1 where a calibrated interval did not cover the outcome, 0 where it did, nan where there was none.
        """
        step = STEP_SIZE * (1 - self.interval - missed)
        miscoverage = self.miscoverage + np.where(np.isnan(missed), 0.0, step)
        if np.isnan(scores).all():  # so that a halt of years does not replace what was known before it
            return Calibration(self.interval, miscoverage, self.scores)
        return Calibration(self.interval, miscoverage, np.concatenate([self.scores, scores[None]])[-MAX_SCORES:])

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as values that JSON represents exactly."""
        scores = [[None if np.isnan(score) else score for score in row] for row in self.scores.tolist()]
        return {"interval": self.interval, "miscoverage": self.miscoverage.tolist(), "scores": scores}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibration:
        """Return the calibration that `to_json` returned."""
        return cls(content["interval"], np.array(content["miscoverage"]), np.array(content["scores"], dtype=np.float64))


def start_calibration(returns: Array, window: int, horizon: int, interval: float) -> Calibration:
    """Return the calibration before the first forecast, from the scores of drift forecasts in the training part.

    A network's forecasts for its own training part would be too accurate; those of the drift, a single number, hardly are.

    Args:
        returns: log returns up to the first origin, shape (sessions - 1,).
        window: the number of log returns before the first score.
        horizon: sessions ahead.
        interval: the nominal coverage.
    """
    origins = np.arange(window, len(returns))
    drift = returns.mean() * np.arange(1, horizon + 1)
    volatility = ewma_volatility(returns)[origins]
    scores = _score(returns, origins, np.tile(drift, (len(origins), 1)), forecast_scale(volatility, horizon))
    # While closes are constant, an error says nothing about later ones.
    is_constant = volatility < MIN_VOLATILITY * np.sqrt(np.mean(returns**2))
    scores[is_constant] = np.nan
    known = _by_session(scores)[: len(origins)]
    known = known[~np.isnan(known).all(axis=1)]
    return Calibration(interval, np.full(horizon, 1 - interval), known[-MAX_SCORES:])


class CalibratedForecasts(NamedTuple):
    """Forecasts, shape (origins, horizon, 3), `uncalibrated` of which are as they were, and the state after them."""

    forecasts: Array
    uncalibrated: int
    calibration: Calibration


def calibrate_forecasts(calibration: Calibration, returns: Array, origins: Indexes, forecasts: Array) -> CalibratedForecasts:
    """Calibrate the forecasts from consecutive origins, each with the outcomes that were known then.

    Args:
        calibration: the state at the first origin.
        returns: all known log returns, shape (sessions - 1,).
        origins: indexes into the closes, shape (origins,).
        forecasts: low, middle and high cumulative log returns, shape (origins, horizon, 3).
    """
    count, horizon, _ = forecasts.shape
    halts = find_halts(returns)[origins]
    outcomes = _known_outcomes(returns, origins, horizon)
    scale = forecast_scale(ewma_volatility(returns)[origins], horizon)
    scores = _by_session(_score(returns, origins, forecasts[:, :, 1], scale))
    calibrated, missed, uncalibrated = np.empty_like(forecasts), np.full((count + horizon, horizon), np.nan), 0
    horizons = np.arange(horizon)
    for i in range(min(len(returns) - int(origins[0]), count + horizon - 1) + 1):
        if i > 0:
            # The outcome h + 1 sessions ahead of the origin i - h - 1 is known now; a negative index is an empty last row.
            calibration = calibration.update(scores[i - 1], missed[i - 1 - horizons, horizons])
        if i < count:
            calibrated[i] = calibration.calibrate(forecasts[i], scale[i])
            if calibration.ready and not halts[i]:
                low, _, high = calibrated[i].T
                missed[i] = np.where(np.isnan(outcomes[i]), np.nan, (outcomes[i] < low) | (outcomes[i] > high))
            uncalibrated += not calibration.ready
    return CalibratedForecasts(calibrated, uncalibrated, calibration)


def _known_outcomes(returns: Array, origins: Indexes, horizon: int) -> Array:
    """Return `cumulative_returns`, nan where they are not known yet."""
    return cumulative_returns(np.append(returns, np.full(horizon, np.nan)), origins, horizon)


def _score(returns: Array, origins: Indexes, middle: Array, scale: Array) -> Array:
    """Return the error of each `middle` value over its scale, shape (origins, horizon); nan if it is not known or in a halt."""
    errors = np.abs(_known_outcomes(returns, origins, middle.shape[1]) - middle)
    errors[find_halts(returns)[origins]] = np.nan
    return np.divide(errors, scale, out=np.full_like(errors, np.nan), where=scale > 0)


def _by_session(scores: Array) -> Array:
    """Arrange the scores of consecutive origins by the session in which they become known, the first after the first origin.

    Args:
        scores: shape (origins, horizon).

    Returns:
        Shape (origins + horizon - 1, horizon), nan where no score becomes known.
    """
    count, horizon = scores.shape
    by_session = np.full((count + horizon - 1, horizon), np.nan)
    for i in range(horizon):
        by_session[i : i + count, i] = scores[:, i]
    return by_session
