"""How good the forecasts are, out of sample, against those that cost nothing: walk-forward validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from trainer.samples import Array, origins, targets, windows
from trainer.significance import diebold_mariano, wilson

AVERAGED = 20  # sessions of the moving average: a month
# One model in a hundred that is worth nothing is taken for better, at most: it must be better in every fold as well.
BEYOND_NOISE = 0.01
Indexes = npt.NDArray[np.int64]
# From the log returns up to the last that may be known and the origins to fit, a forecaster of (origins, horizon, 3).
Fit = Callable[[Array, Indexes, str], Callable[[Array, Indexes], Array]]


class Score(TypedDict):
    """Figures of one horizon, out of sample; errors are in log returns, the rest are shares.

    `skill` is 1 - mae / mae_naive, `p_value` how likely so much of it would be without any (Diebold and Mariano).
    `directional_low` and `directional_high` are the 95 % interval of `directional_accuracy`.
    """

    horizon: int
    forecasts: int
    mae: float
    rmse: float
    mae_naive: float
    rmse_naive: float
    mae_drift: float
    rmse_drift: float
    mae_average: float
    rmse_average: float
    skill: float
    diebold_mariano: float
    p_value: float
    directional_accuracy: float
    directional_low: float
    directional_high: float
    coverage: float


class Baselines(TypedDict):
    """The forecasts that cost nothing, beside no change: log returns a session, one for all origins or one for each."""

    drift: float | Array
    average: float | Array


class Evaluation(TypedDict):
    """Scores by fold and horizon, and by horizon over all folds together."""

    folds: list[list[Score]]
    overall: list[Score]


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
    naive = _mae(came)
    test = diebold_mariano(np.abs(error), np.abs(came), horizon)
    right = float((np.sign(middle) == np.sign(came))[moved].mean()) if moved.any() else 0.0
    # Of forecasts that overlap only each horizon's first is a trial of its own.
    directional_low, directional_high = wilson(right, moved.sum() / horizon)
    return Score(
        horizon=horizon,
        forecasts=len(came),
        mae=_mae(error),
        rmse=_rmse(error),
        mae_naive=naive,
        rmse_naive=_rmse(came),
        mae_drift=_mae(drift),
        rmse_drift=_rmse(drift),
        mae_average=_mae(average),
        rmse_average=_rmse(average),
        skill=1 - _mae(error) / naive if naive else 0.0,
        diebold_mariano=test.statistic,
        p_value=test.p_value,
        directional_accuracy=right,
        directional_low=directional_low,
        directional_high=directional_high,
        coverage=float(((low <= came) & (came <= high)).mean()),
    )


def _mae(errors: Array) -> float:
    return float(np.abs(errors).mean())


def _rmse(errors: Array) -> float:
    return float(np.sqrt((errors**2).mean()))


def walk_forward(returns: Array, window: int, horizon: int, folds: int, test_share: float, fit: Fit) -> Evaluation:
    """Fits and scores each fold; `fit` gets no log return that its fold's test would not have known."""
    forecasts, outcomes, drifts, averages, by_fold = [], [], [], [], []
    for number, (train, test) in enumerate(split(origins(returns, window), folds, test_share, horizon), start=1):
        known = returns[: train[-1] + horizon]
        forecaster = fit(known, train, f"fold {number} of {folds}")
        forecasts.append(forecaster(returns, test))
        outcomes.append(targets(returns, test, horizon))
        # Each origin keeps its own fold's drift: a mean over the folds would know later ones.
        drifts.append(np.full(len(test), known.mean()))
        averages.append(windows(returns, test, min(window, AVERAGED)).mean(axis=1))
        by_fold.append(score(forecasts[-1], outcomes[-1], Baselines(drift=drifts[-1], average=averages[-1])))
    baselines = Baselines(drift=np.concatenate(drifts), average=np.concatenate(averages))
    return Evaluation(folds=by_fold, overall=score(np.concatenate(forecasts), np.concatenate(outcomes), baselines))


def beats_naive(evaluation: Evaluation) -> bool:
    """Whether the forecast of the last horizon is better than repeating the last close, in every fold and beyond noise."""
    better = all(fold[-1]["skill"] > 0 for fold in evaluation["folds"])
    return better and evaluation["overall"][-1]["p_value"] < BEYOND_NOISE


def in_words(evaluation: Evaluation, interval: float) -> str:
    """The evaluation in a few sentences for a person, without dressing anything up."""
    last = evaluation["overall"][-1]
    verdict = "Better than that in every fold, beyond noise." if beats_naive(evaluation) else "It does not beat that reliably."
    return (
        f"Out of sample ({last['forecasts']} forecasts, {last['horizon']} sessions ahead) it is off by {last['mae']:.2%}, "
        f"repeating the last close by {last['mae_naive']:.2%}. {verdict} "
        f"It has the direction right {last['directional_accuracy']:.0%} of the time "
        f"({last['directional_low']:.0%} to {last['directional_high']:.0%}), "
        f"and its {interval:.0%} interval held {last['coverage']:.0%} of the time."
    )
