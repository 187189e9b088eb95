"""Out-of-sample evaluation: walk-forward validation against baselines, and the significance of the difference."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple, TypedDict

import numpy as np

from trainer.dataset import Array, Indexes, cumulative_returns, forecast_origins, input_windows

MOVING_AVERAGE_SESSIONS = 20  # a month
# The share of models without skill that are promoted, at most: divided by the number of horizons (Bonferroni correction).
SIGNIFICANCE_LEVEL = 0.05
NORMAL = NormalDist()
# Fit a fold: (log returns up to the last target, training origins, name) -> forecaster.
# A forecaster maps (log returns, origins) to cumulative log returns, shape (origins, horizon, 3).
FitFold = Callable[[Array, Indexes, str], Callable[[Array, Indexes], Array]]


class Score(TypedDict):
    """Out-of-sample scores of one horizon. Errors are log returns, the rest are shares from 0 to 1.

    The naive forecast is no change, the drift forecast the training part's mean log return per session.

    Attributes:
        skill: 1 - mae / mae_naive.
        diebold_mariano: the statistic of the test that the model's absolute errors are smaller than the naive forecast's.
        p_value: its one-sided p-value.
        skill_drift: the skill against the drift forecast; `p_value_drift` likewise.
        directional_accuracy_low: lower end of the 95 % confidence interval; `directional_accuracy_high`: upper end.
        coverage: the share of outcomes within the prediction interval; its calibration is good if this is near the interval's
            probability.
    """

    horizon: int
    forecasts: int
    mae: float
    rmse: float
    mae_naive: float
    rmse_naive: float
    mae_drift: float
    rmse_drift: float
    mae_moving_average: float
    rmse_moving_average: float
    skill: float
    diebold_mariano: float
    p_value: float
    skill_drift: float
    p_value_drift: float
    directional_accuracy: float
    directional_accuracy_low: float
    directional_accuracy_high: float
    coverage: float


class Baselines(TypedDict):
    """Baselines besides the naive forecast: log return per session, for all origins or for each, shape (origins,)."""

    drift: float | Array
    moving_average: float | Array


class Evaluation(TypedDict):
    """Scores by fold and horizon, scores of all folds together by horizon, and the horizons with significant skill."""

    folds: list[list[Score]]
    overall: list[Score]
    significant_horizons: list[int]


class OutOfSampleForecasts(NamedTuple):
    """The origins of all test parts, and the forecasts from them as cumulative log returns, shape (origins, horizon, 3)."""

    origins: Indexes
    forecasts: Array


class DieboldMarianoTest(NamedTuple):
    """The test's statistic and its one-sided p-value, the probability of at least this statistic if there is no difference."""

    statistic: float
    p_value: float


def wilson_interval(share: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of a `share` of `count` independent trials (Wilson, 1927); (0, 1) without trials."""
    if count <= 0:
        return 0.0, 1.0
    z = NORMAL.inv_cdf((1 + confidence) / 2)
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    margin = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, center - margin), min(1.0, center + margin)


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


def split_folds(origins: Indexes, folds: int, test_share: float, horizon: int) -> list[tuple[Indexes, Indexes]]:
    """Return the training and test origins of each fold; the training part grows from fold to fold (expanding window).

    This is the validation split. The `horizon` - 1 origins between them are in neither: their targets overlap the test part.
    """
    with_targets = origins[:-horizon]
    tests = np.array_split(with_targets[-max(folds, int(len(with_targets) * test_share)) :], folds)
    return [(with_targets[with_targets <= test[0] - horizon], test) for test in tests]


def min_sessions(window: int, horizon: int, folds: int, test_share: float) -> int:
    """Return a number of sessions that gives the first fold of `split_folds` at least one training origin."""
    return window + horizon + math.ceil((window + horizon + folds) / (1 - test_share))


def score(forecasts: Array, outcomes: Array, baselines: Baselines) -> list[Score]:
    """Return the scores of each horizon.

    Args:
        forecasts: low, middle and high cumulative log returns, shape (origins, horizon, 3), of consecutive origins.
        outcomes: cumulative log returns, shape (origins, horizon).
        baselines: forecasts to compare with, besides no change.
    """
    return [_score_horizon(forecasts[:, i], outcomes[:, i], i + 1, baselines) for i in range(outcomes.shape[1])]


def _score_horizon(forecasts: Array, outcomes: Array, horizon: int, baselines: Baselines) -> Score:
    low, middle, high = forecasts.T
    errors, moved = outcomes - middle, outcomes != 0
    drift_errors = outcomes - baselines["drift"] * horizon
    moving_average_errors = outcomes - baselines["moving_average"] * horizon
    test = diebold_mariano(np.abs(errors), np.abs(outcomes), horizon)
    accuracy = float((np.sign(middle) == np.sign(outcomes))[moved].mean()) if moved.any() else 0.0
    # Forecasts overlap: only one per `horizon` sessions is an independent trial.
    accuracy_low, accuracy_high = wilson_interval(accuracy, moved.sum() / horizon)
    return Score(
        horizon=horizon,
        forecasts=len(outcomes),
        mae=_mae(errors),
        rmse=_rmse(errors),
        mae_naive=_mae(outcomes),
        rmse_naive=_rmse(outcomes),
        mae_drift=_mae(drift_errors),
        rmse_drift=_rmse(drift_errors),
        mae_moving_average=_mae(moving_average_errors),
        rmse_moving_average=_rmse(moving_average_errors),
        skill=_skill(errors, outcomes),
        diebold_mariano=test.statistic,
        p_value=test.p_value,
        skill_drift=_skill(errors, drift_errors),
        p_value_drift=diebold_mariano(np.abs(errors), np.abs(drift_errors), horizon).p_value,
        directional_accuracy=accuracy,
        directional_accuracy_low=accuracy_low,
        directional_accuracy_high=accuracy_high,
        coverage=float(((low <= outcomes) & (outcomes <= high)).mean()),
    )


def _skill(errors: Array, baseline_errors: Array) -> float:
    return 1 - _mae(errors) / _mae(baseline_errors) if baseline_errors.any() else 0.0


def _mae(errors: Array) -> float:
    return float(np.abs(errors).mean())


def _rmse(errors: Array) -> float:
    return float(np.sqrt((errors**2).mean()))


def walk_forward(
    returns: Array, window: int, horizon: int, folds: int, test_share: float, fit_fold: FitFold
) -> tuple[Evaluation, OutOfSampleForecasts]:
    """Fit and score each fold; `fit_fold` receives no log return later than the fold's first test origin."""
    forecasts, outcomes, drifts, averages, test_origins, fold_scores = [], [], [], [], [], []
    origins = forecast_origins(returns, window)
    for number, (train, test) in enumerate(split_folds(origins, folds, test_share, horizon), start=1):
        known = returns[: train[-1] + horizon]
        forecaster = fit_fold(known, train, f"fold {number} of {folds}")
        forecasts.append(forecaster(returns, test))
        outcomes.append(cumulative_returns(returns, test, horizon))
        test_origins.append(test)
        # Each origin keeps the drift of its own fold: a mean over all folds would use later returns.
        drifts.append(np.full(len(test), known.mean()))
        averages.append(input_windows(returns, test, min(window, MOVING_AVERAGE_SESSIONS)).mean(axis=1))
        fold_scores.append(score(forecasts[-1], outcomes[-1], Baselines(drift=drifts[-1], moving_average=averages[-1])))
    baselines = Baselines(drift=np.concatenate(drifts), moving_average=np.concatenate(averages))
    all_forecasts = np.concatenate(forecasts)
    overall = score(all_forecasts, np.concatenate(outcomes), baselines)
    significant = find_significant_horizons(fold_scores, overall)
    evaluation = Evaluation(folds=fold_scores, overall=overall, significant_horizons=significant)
    return evaluation, OutOfSampleForecasts(np.concatenate(test_origins), all_forecasts)


def find_significant_horizons(folds: list[list[Score]], overall: list[Score]) -> list[int]:
    """Return the horizons with skill against the naive and the drift forecast: in every fold, and significant overall.

    One such horizon is enough for a promotion. The drift forecast is included because a rising index beats the naive forecast
    without any skill.
    """
    level = SIGNIFICANCE_LEVEL / len(overall)
    return [
        total["horizon"]
        for total, *by_fold in zip(overall, *folds, strict=True)
        if max(total["p_value"], total["p_value_drift"]) < level
        and all(fold["skill"] > 0 and fold["skill_drift"] > 0 for fold in by_fold)
    ]
