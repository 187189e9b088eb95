from __future__ import annotations

import numpy as np
import pytest
from trainer.significance import diebold_mariano, wilson


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.5, 100, 0.4038, 0.5962), (0.9, 10, 0.5958, 0.9821), (0.0, 10, 0.0, 0.2775), (1.0, 10, 0.7225, 1.0), (0.5, 0, 0.0, 1.0)],
)
def test_the_interval_of_a_share_is_wilsons(share: float, count: float, low: float, high: float) -> None:
    assert wilson(share, count) == pytest.approx((low, high), abs=1e-4)


def test_a_forecast_that_is_better_throughout_is_beyond_noise_and_one_that_is_worse_is_not() -> None:
    noise = np.random.default_rng(0).normal(0, 0.001, 200)
    assert diebold_mariano(0.01 + noise, np.full(200, 0.012), 1).p_value < 1e-6
    assert diebold_mariano(np.full(200, 0.012), 0.01 + noise, 1).p_value > 1 - 1e-6


@pytest.mark.parametrize("horizon", [1, 5])
def test_forecasts_that_are_worth_nothing_are_seldom_taken_for_better(horizon: int) -> None:
    """Against no change, a forecast of noise's size in a random walk, with overlapping horizons."""
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        steps = generator.normal(0, 0.01, 500 + horizon)
        came = np.convolve(steps, np.ones(horizon), "valid")[1:500]
        forecast = generator.normal(0, 0.002) + generator.normal(0, 0.001, len(came))
        found += diebold_mariano(np.abs(came - forecast), np.abs(came), horizon).p_value < 0.05
    assert found / 400 < 0.08


def test_no_difference_and_too_few_forecasts_show_nothing() -> None:
    same = np.full(50, 0.01)
    assert diebold_mariano(same, same, 1).p_value == 0.5
    assert diebold_mariano(np.zeros(9), np.arange(9.0), 5).p_value == 0.5


def test_a_correlation_that_makes_the_variance_negative_does_no_harm() -> None:
    differences = np.tile([1.0, -1.0], 50) + 0.001 * np.arange(100)
    found = diebold_mariano(np.zeros(100), differences, 2)
    assert np.isfinite(found.statistic) and 0 <= found.p_value <= 1
