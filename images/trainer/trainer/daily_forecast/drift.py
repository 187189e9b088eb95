"""Test whether issued forecasts have become worse than they were meant to be, with a controlled rate of false alarms.

Two null hypotheses are tested, each at every horizon: an interval misses at most the share of outcomes that it is meant to
miss, and the absolute errors are on average not larger than the naive forecast's. The tests bet against them: the capital of a
bettor who starts with 1 has an expectation of at most 1 for as long as the hypothesis is true, whatever the distribution, so a
large capital is evidence against it. A bettor who starts anew whenever the capital falls below 1 is Page's CUSUM (1954). By the
theorem of Shin, Ramdas and Rinaldo (2023), E-detectors, arXiv 2203.03532, the mean number of sessions until the capital reaches
THRESHOLD without any drift is at least THRESHOLD.

Forecasts `horizon` sessions ahead overlap: each bet has to be settled before the next is made. So a horizon has as many bettors
as sessions, each bets on every `horizon`-th forecast, and their mean capital counts: Henzi and Ziegel (2022), Valid sequential
inference on probability forecast performance, Biometrika 109; Choe and Ramdas (2023), arXiv 2110.00115.
"""

from __future__ import annotations

import math
from datetime import date
from typing import NamedTuple

import numpy as np
import pandas as pd

from trainer.dataset import Array, Indexes

# Measured rates of false alarms and delays: docs/decisions/0032-forecasts-issued-daily.md.
THRESHOLD = 500.0
END_THRESHOLD = math.sqrt(THRESHOLD)  # a drift lasts until the capitals are below this, so that it is one and not several
MISS_FACTOR = 2.0  # the bet on a miss is most profitable if this many times more outcomes are missed than meant
STAKE = 0.25  # of the capital, on an error larger than the naive forecast's


class Evidence(NamedTuple):
    """The evidence against one null hypothesis.

    Attributes:
        capital: the mean capital of all bettors now.
        horizon: that of the bettor with the largest capital; `since`: the origin of the first forecast after the latest time
            that this bettor started anew; None without any bet.
    """

    capital: float
    horizon: int
    since: date | None


class Drift(NamedTuple):
    """The evidence of both tests, and what follows from it.

    Attributes:
        since: the origin of the first forecast that has drifted; None without a drift.
        is_new: whether the drift had not been found on the session before.
        description: what has drifted and since when, as a sentence; empty without a drift.
    """

    coverage: Evidence
    error: Evidence
    since: date | None
    is_new: bool
    description: str


def find_drift(scores: pd.DataFrame, positions: Indexes, known_since: date | None) -> Drift:
    """Return the drift of the forecasts by one source.

    Args:
        scores: their rows of the table SCORES.
        positions: the position of each row's origin among the sessions, shape (rows,).
        known_since: `since` of the drift that was found on the session before, if any.
    """
    coverage, error = find_coverage_evidence(scores, positions), find_error_evidence(scores, positions)
    evidence = max(coverage, error, key=lambda evidence: evidence.capital)
    if evidence.since is None or evidence.capital < (END_THRESHOLD if known_since else THRESHOLD):
        return Drift(coverage, error, None, False, "")
    rows = scores[scores["horizon"] == evidence.horizon]
    since = known_since or evidence.since
    if pd.Timestamp(since) > rows["origin"].max():  # those since then are not scored any more: their closes were corrected
        since = evidence.since
    rows = rows[rows["origin"] >= pd.Timestamp(since)]
    ahead = "one session" if evidence.horizon == 1 else f"{evidence.horizon} sessions"
    described = f"of {len(rows)} forecasts {ahead} ahead since {since}"
    if evidence is coverage:
        meant, covered = rows["interval"].mean(), rows["covered"].mean()
        description = f"the {meant:.0%} intervals {described} covered only {covered:.0%} of the outcomes"
    else:
        mae, mae_naive = rows["absolute_error"].mean(), rows["absolute_error_naive"].mean()
        description = f"the mean absolute error {described} is {mae:.2%}, that of the naive forecast {mae_naive:.2%}"
    return Drift(coverage, error, since, known_since is None, description)


def find_coverage_evidence(scores: pd.DataFrame, positions: Indexes) -> Evidence:
    """Return the evidence that the intervals miss more outcomes than they are meant to.

    Args:
        scores: rows of the table SCORES by one source.
        positions: the position of each row's origin among the sessions, shape (rows,).
    """
    meant = 1 - scores["interval"].to_numpy()
    bet_on = np.minimum(MISS_FACTOR * meant, (1 + meant) / 2)
    missed = scores["covered"].to_numpy() == 0
    return _find_evidence(scores, positions, np.where(missed, bet_on / meant, (1 - bet_on) / (1 - meant)))


def find_error_evidence(scores: pd.DataFrame, positions: Indexes) -> Evidence:
    """Return the evidence that the forecasts' absolute errors are larger than the naive forecast's; arguments as above.

    Two errors differ by at most the forecast change, which is known before, so their difference divided by it is from -1 to 1.
    """
    change = np.abs(np.log(scores["middle"].to_numpy() / scores["last_close"].to_numpy()))
    difference = scores["absolute_error"].to_numpy() - scores["absolute_error_naive"].to_numpy()
    share = np.divide(difference, change, out=np.zeros_like(difference), where=change > 0).clip(-1, 1)
    return _find_evidence(scores, positions, 1 + STAKE * share)


def _find_evidence(scores: pd.DataFrame, positions: Indexes, factors: Array) -> Evidence:
    """Return the evidence of bets that multiply the capital by `factors`, shape (rows,)."""
    horizons = scores["horizon"].to_numpy(dtype=np.int64)
    origins = [origin.date() for origin in scores["origin"]]
    capitals, largest = [], Evidence(0.0, 1, None)
    for horizon in np.unique(horizons).tolist():
        bettors = []
        for bettor in range(horizon):
            rows = np.flatnonzero((horizons == horizon) & (positions % horizon == bettor))
            rows = rows[np.argsort(positions[rows], kind="stable")]
            capital, start = _accumulate(factors[rows])
            bettors.append(capital)
            if len(rows) and capital > largest.capital:
                largest = Evidence(capital, horizon, origins[rows[min(start, len(rows) - 1)]])
        capitals.append(float(np.mean(bettors)))
    return largest._replace(capital=float(np.mean(capitals))) if capitals else largest


def _accumulate(factors: Array) -> tuple[float, int]:
    """Return the capital after all bets, and the first bet after the latest time that it started anew with 1."""
    capital, start = 1.0, 0
    for i, factor in enumerate(factors.tolist()):
        if capital <= 1:
            capital, start = 1.0, i
        capital *= factor
    return capital, start
