"""How good the forecasts are, out of sample, against those that cost nothing: walk-forward validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from trainer.dataset import Array, origins, targets, windows

MOVING_AVERAGE_SESSIONS = 20  # sessions of the moving average: a month
# Of models that are worth nothing so many are taken for better, at most, however many horizons they have (Bonferroni).
SIGNIFICANCE_LEVEL = 0.05
NORMAL = NormalDist()
Indexes = npt.NDArray[np.int64]
# From the log returns up to the last that may be known and the origins to fit, a forecaster of (origins, horizon, 3).
FitFold = Callable[[Array, Indexes, str], Callable[[Array, Indexes], Array]]


class Score(TypedDict):
    """Figures of one horizon, out of sample; errors are in log returns, the rest are shares.

    `skill` is 1 - mae / mae_naive, `p_value` how likely so much of it would be without any (Diebold and Mariano);
    `skill_drift` and `p_value_drift` are the same against the drift forecast. `directional_accuracy_low` and
    `directional_accuracy_high` are the 95 % interval of `directional_accuracy`.
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
    """The forecasts that cost nothing, beside no change: log returns a session, one for all origins or one for each."""

    drift: float | Array
    average: float | Array


class Evaluation(TypedDict):
    """Scores by fold and horizon, by horizon over all folds together, and the horizons at which it is worth something."""

    folds: list[list[Score]]
    overall: list[Score]
    significant_horizons: list[int]


class OutOfSampleForecasts(NamedTuple):
    """The forecasts of all tests, as log returns (origins, horizon, 3), and the origins that they were made from."""

    at: Indexes
    forecast: Array


class DieboldMarianoTest(NamedTuple):
    """A test's statistic and its one-sided p-value: how likely so much or more would be if there were nothing."""

    statistic: float
    p_value: float


def wilson_interval(share: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a `share` of `count` independent trials (Wilson, 1927); (0, 1) for none."""
    if count <= 0:
        return 0.0, 1.0
    z = NORMAL.inv_cdf((1 + confidence) / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def diebold_mariano(losses: Array, others: Array, horizon: int) -> DieboldMarianoTest:
    """Whether forecasts `horizon` sessions ahead, made each session, lose less than `others`, from both losses in order.

    Diebold and Mariano (1995) with the correction of Harvey, Leybourne and Newbold (1997). Errors of overlapping forecasts hang
    together for `horizon` - 1 sessions: so many autocovariances count. Where these make the variance negative, they are
    weighted as Newey and West (1987) do. No difference at all, or fewer than two horizons of forecasts, shows nothing.
    """
    differences = others - losses
    count = len(differences)
    if count < 2 * horizon or not np.ptp(differences):
        return DieboldMarianoTest(0.0, 0.5)
    centred = differences - differences.mean()
    covariances = [float(centred[lag:] @ centred[: count - lag]) / count for lag in range(horizon)]
    variance = covariances[0] + 2 * sum(covariances[1:])
    if variance <= 0:
        variance = covariances[0] + 2 * sum((1 - lag / horizon) * one for lag, one in enumerate(covariances[1:], start=1))
    if variance <= 0:
        return DieboldMarianoTest(0.0, 0.5)
    correction = math.sqrt((count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count)
    statistic = correction * float(differences.mean()) / math.sqrt(variance / count)
    return DieboldMarianoTest(statistic, 1 - NORMAL.cdf(statistic))


def split(at: Indexes, folds: int, test_share: float, horizon: int) -> list[tuple[Indexes, Indexes]]:
    """The training and test origins of each fold, the training part growing.

    Between them lie `horizon` - 1 origins that are in neither: their targets reach into the test's.
    """
    known = at[:-horizon]
    tested = np.array_split(known[-max(folds, int(len(known) * test_share)) :], folds)
    return [(known[known <= test[0] - horizon], test) for test in tested]


def score(forecast: Array, came: Array, baselines: Baselines) -> list[Score]:
    """The scores by horizon of `forecast` (origins, horizon, 3) against what `came` (origins, horizon), in log returns.

    The naive forecast is no change, the drift forecast the training part's mean a session, the average that of the last
    sessions. The origins follow each other.
    """
    return [_score(forecast[:, i], came[:, i], i + 1, baselines) for i in range(came.shape[1])]


def _score(forecast: Array, came: Array, horizon: int, baselines: Baselines) -> Score:
    low, middle, high = forecast.T
    error, moved = came - middle, came != 0
    drift, average = came - baselines["drift"] * horizon, came - baselines["average"] * horizon
    test = diebold_mariano(np.abs(error), np.abs(came), horizon)
    right = float((np.sign(middle) == np.sign(came))[moved].mean()) if moved.any() else 0.0
    # Of forecasts that overlap only each horizon's first is a trial of its own.
    directional_accuracy_low, directional_accuracy_high = wilson_interval(right, moved.sum() / horizon)
    return Score(
        horizon=horizon,
        forecasts=len(came),
        mae=_mae(error),
        rmse=_rmse(error),
        mae_naive=_mae(came),
        rmse_naive=_rmse(came),
        mae_drift=_mae(drift),
        rmse_drift=_rmse(drift),
        mae_moving_average=_mae(average),
        rmse_moving_average=_rmse(average),
        skill=_skill(error, came),
        diebold_mariano=test.statistic,
        p_value=test.p_value,
        skill_drift=_skill(error, drift),
        p_value_drift=diebold_mariano(np.abs(error), np.abs(drift), horizon).p_value,
        directional_accuracy=right,
        directional_accuracy_low=directional_accuracy_low,
        directional_accuracy_high=directional_accuracy_high,
        coverage=float(((low <= came) & (came <= high)).mean()),
    )


def _skill(errors: Array, others: Array) -> float:
    return 1 - _mae(errors) / _mae(others) if others.any() else 0.0


def _mae(errors: Array) -> float:
    return float(np.abs(errors).mean())


def _rmse(errors: Array) -> float:
    return float(np.sqrt((errors**2).mean()))


def walk_forward(
    returns: Array, window: int, horizon: int, folds: int, test_share: float, fit: FitFold
) -> tuple[Evaluation, OutOfSampleForecasts]:
    """Fits and scores each fold; `fit` gets no log return that its fold's test would not have known."""
    forecasts, outcomes, drifts, averages, tested, by_fold = [], [], [], [], [], []
    for number, (train, test) in enumerate(split(origins(returns, window), folds, test_share, horizon), start=1):
        known = returns[: train[-1] + horizon]
        forecaster = fit(known, train, f"fold {number} of {folds}")
        forecasts.append(forecaster(returns, test))
        outcomes.append(targets(returns, test, horizon))
        tested.append(test)
        # Each origin keeps its own fold's drift: a mean over the folds would know later ones.
        drifts.append(np.full(len(test), known.mean()))
        averages.append(windows(returns, test, min(window, MOVING_AVERAGE_SESSIONS)).mean(axis=1))
        by_fold.append(score(forecasts[-1], outcomes[-1], Baselines(drift=drifts[-1], average=averages[-1])))
    baselines = Baselines(drift=np.concatenate(drifts), average=np.concatenate(averages))
    forecast = np.concatenate(forecasts)
    overall = score(forecast, np.concatenate(outcomes), baselines)
    evaluation = Evaluation(folds=by_fold, overall=overall, significant_horizons=significant_horizons(by_fold, overall))
    return evaluation, OutOfSampleForecasts(np.concatenate(tested), forecast)


def significant_horizons(folds: list[list[Score]], overall: list[Score]) -> list[int]:
    """The horizons at which the forecast is better than no change and than the drift, in every fold and beyond noise.

    Any of them makes the model worth having; as each horizon is a chance to be lucky, each is held to its part of
    SIGNIFICANCE_LEVEL. The drift is asked as well because an index that rises beats no change with no forecaster at all.
    """
    noise = SIGNIFICANCE_LEVEL / len(overall)
    return [
        all_folds["horizon"]
        for all_folds, *by_fold in zip(overall, *folds, strict=True)
        if max(all_folds["p_value"], all_folds["p_value_drift"]) < noise
        and all(fold["skill"] > 0 and fold["skill_drift"] > 0 for fold in by_fold)
    ]
