"""How good the forecasts are, out of sample, against those that cost nothing: walk-forward validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from trainer.samples import Array, origins, targets

Indexes = npt.NDArray[np.int64]
# From the log returns up to the last that may be known and the origins to fit, a forecaster of (origins, horizon, 3).
Fit = Callable[[Array, Indexes, str], Callable[[Array, Indexes], Array]]


class Score(TypedDict):
    """Figures of one horizon; errors are in log returns, the rest are shares. `skill` is 1 - mae / mae_naive."""

    horizon: int
    forecasts: int
    mae: float
    rmse: float
    mae_naive: float
    rmse_naive: float
    mae_drift: float
    rmse_drift: float
    skill: float
    directional_accuracy: float
    coverage: float


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


def score(forecast: Array, came: Array, drift: float | Array) -> list[Score]:
    """The scores by horizon of `forecast` (origins, horizon, 3) against what `came` (origins, horizon), in log returns.

    The naive forecast is no change; the drift forecast is `drift`, the training part's mean, a session: one for all origins
    or one for each.
    """
    scores = []
    for i in range(came.shape[1]):
        low, middle, high = forecast[:, i].T
        error, moved = came[:, i] - middle, came[:, i] != 0
        drifted = came[:, i] - drift * (i + 1)
        naive = float(np.abs(came[:, i]).mean())
        scores.append(
            Score(
                horizon=i + 1,
                forecasts=len(came),
                mae=float(np.abs(error).mean()),
                rmse=float(np.sqrt((error**2).mean())),
                mae_naive=naive,
                rmse_naive=float(np.sqrt((came[:, i] ** 2).mean())),
                mae_drift=float(np.abs(drifted).mean()),
                rmse_drift=float(np.sqrt((drifted**2).mean())),
                skill=1 - float(np.abs(error).mean()) / naive if naive else 0.0,
                directional_accuracy=float((np.sign(middle) == np.sign(came[:, i]))[moved].mean()) if moved.any() else 0.0,
                coverage=float(((low <= came[:, i]) & (came[:, i] <= high)).mean()),
            )
        )
    return scores


def walk_forward(returns: Array, window: int, horizon: int, folds: int, test_share: float, fit: Fit) -> Evaluation:
    """Fits and scores each fold; `fit` gets no log return that its fold's test would not have known."""
    forecasts, outcomes, by_fold, drifts = [], [], [], []
    for number, (train, test) in enumerate(split(origins(returns, window), folds, test_share, horizon), start=1):
        known = returns[: train[-1] + horizon]
        forecaster = fit(known, train, f"fold {number} of {folds}")
        forecasts.append(forecaster(returns, test))
        outcomes.append(targets(returns, test, horizon))
        # Each origin keeps its own fold's drift: a mean over the folds would know later ones.
        drifts.append(np.full(len(test), known.mean()))
        by_fold.append(score(forecasts[-1], outcomes[-1], drifts[-1]))
    overall = score(np.concatenate(forecasts), np.concatenate(outcomes), np.concatenate(drifts))
    return Evaluation(folds=by_fold, overall=overall)


def beats_naive(evaluation: Evaluation) -> bool:
    """Whether the forecast of the last horizon is better than repeating the last close, in every fold."""
    return all(fold[-1]["skill"] > 0 for fold in evaluation["folds"])


def in_words(evaluation: Evaluation, interval: float) -> str:
    """The evaluation in a sentence for a person, without dressing anything up."""
    last = evaluation["overall"][-1]
    verdict = "Better than that in every fold." if beats_naive(evaluation) else "It does not beat that reliably."
    return (
        f"Out of sample ({last['forecasts']} forecasts, {last['horizon']} sessions ahead) it is off by {last['mae']:.2%}, "
        f"repeating the last close by {last['mae_naive']:.2%}. {verdict} "
        f"Its {interval:.0%} interval held {last['coverage']:.0%} of the time."
    )
