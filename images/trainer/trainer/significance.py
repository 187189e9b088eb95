"""Whether a difference is more than noise: intervals of shares, tests of forecasts."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from trainer.samples import Array

NORMAL = NormalDist()


class Significance(NamedTuple):
    """A test's statistic and its one-sided p-value: how likely so much or more would be if there were nothing."""

    statistic: float
    p_value: float


def wilson(share: float, count: float, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a `share` of `count` independent trials (Wilson, 1927); (0, 1) for none."""
    if count <= 0:
        return 0.0, 1.0
    z = NORMAL.inv_cdf((1 + confidence) / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def diebold_mariano(losses: Array, others: Array, horizon: int) -> Significance:
    """Whether forecasts `horizon` sessions ahead, made each session, lose less than `others`, from both losses in order.

    Diebold and Mariano (1995) with the correction of Harvey, Leybourne and Newbold (1997). Errors of overlapping forecasts hang
    together for `horizon` - 1 sessions: so many autocovariances count. Where these make the variance negative, they are
    weighted as Newey and West (1987) do. No difference at all, or fewer than two horizons of forecasts, shows nothing.
    """
    differences = others - losses
    count = len(differences)
    if count < 2 * horizon or not np.ptp(differences):
        return Significance(0.0, 0.5)
    centred = differences - differences.mean()
    covariances = [float(centred[lag:] @ centred[: count - lag]) / count for lag in range(horizon)]
    variance = covariances[0] + 2 * sum(covariances[1:])
    if variance <= 0:
        variance = covariances[0] + 2 * sum((1 - lag / horizon) * one for lag, one in enumerate(covariances[1:], start=1))
    if variance <= 0:
        return Significance(0.0, 0.5)
    correction = math.sqrt((count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count)
    statistic = correction * float(differences.mean()) / math.sqrt(variance / count)
    return Significance(statistic, 1 - NORMAL.cdf(statistic))
