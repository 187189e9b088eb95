"""Out-of-sample evaluation: walk-forward validation against baselines, and the significance of the difference."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple, TypedDict

import numpy as np

from trainer.calibration import Calibration, calibrate_forecasts, start_calibration
from trainer.config import ModelConfig
from trainer.dataset import Array, Indexes, cumulative_returns, forecast_origins
from trainer.scores import (
    Baselines,
    IntervalScore,
    diebold_mariano,
    drift_forecast,
    naive_forecast,
    score_interval,
    wilson_interval,
)

# The share of models without skill that are promoted, at most: divided by the number of horizons (Bonferroni correction).
SIGNIFICANCE_LEVEL = 0.05
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
        mase: mean absolute scaled error: the absolute error over the training part's mean absolute log return per session
            (Hyndman and Koehler, 2006); `mase_naive`: the naive forecast's.
        coverage: the share of outcomes within the prediction interval.
        intervals: more about it, and about those to compare it with.
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
    mase: float
    mase_naive: float
    coverage: float
    intervals: IntervalScores


class IntervalScores(TypedDict):
    """Scores of the calibrated interval, of the network's own before calibration, and of the baselines' intervals."""

    calibrated: IntervalScore
    raw: IntervalScore
    naive: IntervalScore
    drift: IntervalScore


class Evaluation(TypedDict):
    """Scores by fold and horizon, scores of all folds together by horizon, and the horizons with significant skill.

    `uncalibrated_forecasts` counts the forecasts whose interval is the network's own, as too few outcomes were known.
    """

    folds: list[list[Score]]
    overall: list[Score]
    significant_horizons: list[int]
    uncalibrated_forecasts: int


class OutOfSampleForecasts(NamedTuple):
    """The forecasts from the origins of all test parts, as cumulative log returns, shape (origins, horizon, 3).

    `raw` is what the networks forecast, `forecasts` has calibrated intervals, `calibration` is the state after all outcomes.
    """

    origins: Indexes
    raw: Array
    forecasts: Array
    calibration: Calibration


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


def score(forecasts: Array, raw: Array, outcomes: Array, baselines: Baselines, interval: float) -> list[Score]:
    """Return the scores of each horizon.

    Args:
        forecasts: low, middle and high cumulative log returns, shape (origins, horizon, 3), of consecutive origins.
        raw: the same before calibration.
        outcomes: cumulative log returns, shape (origins, horizon).
        baselines: forecasts to compare with, besides no change.
        interval: the nominal coverage.
    """
    horizons = range(outcomes.shape[1])
    return [_score_horizon(forecasts[:, i], raw[:, i], outcomes[:, i], i + 1, baselines, interval) for i in horizons]


def _score_horizon(forecasts: Array, raw: Array, outcomes: Array, horizon: int, baselines: Baselines, interval: float) -> Score:
    middle = forecasts[:, 1]
    errors, moved = outcomes - middle, outcomes != 0
    drift_errors = outcomes - baselines.drift * horizon
    moving_average_errors = outcomes - baselines.moving_average * horizon
    test = diebold_mariano(np.abs(errors), np.abs(outcomes), horizon)
    accuracy = float((np.sign(middle) == np.sign(outcomes))[moved].mean()) if moved.any() else 0.0
    # Forecasts overlap: only one per `horizon` sessions is an independent trial.
    accuracy_low, accuracy_high = wilson_interval(accuracy, moved.sum() / horizon)
    naive = naive_forecast(baselines.std, horizon, interval)
    drift = drift_forecast(baselines.drift, baselines.std, baselines.sessions, horizon, interval)

    def score_of(forecasts: Array) -> IntervalScore:
        return score_interval(forecasts, outcomes, baselines.volatility, horizon, interval)

    intervals = IntervalScores(calibrated=score_of(forecasts), raw=score_of(raw), naive=score_of(naive), drift=score_of(drift))
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
        mase=_mae(errors / baselines.mean_absolute_return),
        mase_naive=_mae(outcomes / baselines.mean_absolute_return),
        coverage=intervals["calibrated"]["coverage"],
        intervals=intervals,
    )


def _skill(errors: Array, baseline_errors: Array) -> float:
    return 1 - _mae(errors) / _mae(baseline_errors) if baseline_errors.any() else 0.0


def _mae(errors: Array) -> float:
    return float(np.abs(errors).mean())


def _rmse(errors: Array) -> float:
    return float(np.sqrt((errors**2).mean()))


def walk_forward(returns: Array, config: ModelConfig, fit_fold: FitFold) -> tuple[Evaluation, OutOfSampleForecasts]:
    """Fit, calibrate and score each fold; `fit_fold` receives no log return later than the fold's first test origin.

    An interval is calibrated with the outcomes that were known at its origin, those of earlier folds included.
    """
    window, horizon, interval = config.window, config.horizon, config.interval
    origins = forecast_origins(returns, window)
    parts = split_folds(origins, config.folds, config.test_share, horizon)
    raws, baselines = [], []
    for number, (train, test) in enumerate(parts, start=1):
        known = returns[: train[-1] + horizon]
        raws.append(fit_fold(known, train, f"fold {number} of {config.folds}")(returns, test))
        # Each origin keeps the drift of its own fold: a mean over all folds would use later returns.
        baselines.append(Baselines.fit(known, returns, test, window))
    tested, raw = np.concatenate([test for _, test in parts]), np.concatenate(raws)
    calibration = start_calibration(returns[: tested[0]], window, horizon, interval)
    calibrated = calibrate_forecasts(calibration, returns, tested, raw)
    outcomes = cumulative_returns(returns, tested, horizon)

    def score_part(part: slice, baselines: Baselines) -> list[Score]:
        return score(calibrated.forecasts[part], raw[part], outcomes[part], baselines, interval)

    ends = np.cumsum([len(test) for _, test in parts]).tolist()
    slices = [slice(start, end) for start, end in pairwise([0, *ends])]
    fold_scores = [score_part(part, fold) for part, fold in zip(slices, baselines, strict=True)]
    overall = score_part(slice(None), Baselines(*map(np.concatenate, zip(*baselines, strict=True))))
    evaluation = Evaluation(
        folds=fold_scores,
        overall=overall,
        significant_horizons=find_significant_horizons(fold_scores, overall),
        uncalibrated_forecasts=calibrated.uncalibrated,
    )
    return evaluation, OutOfSampleForecasts(tested, raw, calibrated.forecasts, calibrated.calibration)


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
