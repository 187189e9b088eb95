from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer.config import DEFAULT_CONFIG, ModelConfig, read_model_config
from trainer.dataset import Array, Scaler, log_returns, origins, targets, windows
from trainer.evaluation import (
    Baselines,
    Evaluation,
    Indexes,
    diebold_mariano,
    score,
    significant_horizons,
    split,
    walk_forward,
    wilson_interval,
)
from trainer.fitting import fit
from trainer.texts import in_words

from .conftest import SMALL


@pytest.fixture
def small(tmp_path: Path) -> ModelConfig:
    (tmp_path / "small.toml").write_text(SMALL)
    return read_model_config(tmp_path / "small.toml")


def evaluate(returns: Array, configuration: ModelConfig) -> Evaluation:
    plan = (configuration.window, configuration.horizon, configuration.folds, configuration.test_share)
    return walk_forward(returns, *plan, lambda known, at, name: fit(known, at, configuration, name).forecast)[0]


def test_what_the_network_sees_ends_where_what_it_forecasts_begins() -> None:
    closes = np.exp(np.arange(8) ** 2 / 100)
    returns = log_returns(closes)
    at = origins(returns, window=3)
    assert at.tolist() == [3, 4, 5, 6, 7]
    assert windows(returns, at, 3)[0] == pytest.approx(np.log(closes[1:4] / closes[0:3]))
    ahead = targets(returns, at[:-2], horizon=2)
    assert ahead[0] == pytest.approx([np.log(closes[4] / closes[3]), np.log(closes[5] / closes[3])])
    assert ahead[-1] == pytest.approx([np.log(closes[6] / closes[5]), np.log(closes[7] / closes[5])])


@given(st.integers(40, 400), st.integers(1, 10), st.integers(1, 5), st.floats(0.1, 0.5))
def test_no_target_of_a_folds_training_part_reaches_into_its_test(
    sessions: int, horizon: int, folds: int, share: float
) -> None:
    at = np.arange(10, sessions)
    parts = split(at, folds, share, horizon)
    assert len(parts) == folds
    for train, test in parts:
        assert train[-1] + horizon <= test[0]
        assert test[-1] + horizon <= at[-1]
    tested = np.concatenate([test for _, test in parts])
    assert tested.tolist() == list(range(tested[0], at[-1] - horizon + 1)), "each origin is tested once, to the last"


def test_a_fold_is_fitted_to_nothing_that_its_test_would_not_have_known(small: ModelConfig) -> None:
    returns = np.random.default_rng(0).normal(0, 0.01, 300)
    seen = []

    def spy(known: Array, at: Indexes, name: str) -> Callable[[Array, Indexes], Array]:
        seen.append((len(known), int(at[-1])))
        return lambda returns, origins: np.zeros((len(origins), small.horizon, 3))

    walk_forward(returns, small.window, small.horizon, small.folds, small.test_share, spy)
    tests = [test for _, test in split(origins(returns, small.window), small.folds, small.test_share, small.horizon)]
    for (known, _), test in zip(seen, tests, strict=True):
        assert known <= test[0]


def test_the_scaler_is_of_the_training_part_alone(small: ModelConfig) -> None:
    calm = np.random.default_rng(0).normal(0, 0.01, 200)
    stormy = np.concatenate([calm, np.random.default_rng(1).normal(0, 0.5, 100)])
    at = origins(calm, small.window)[: -small.horizon]
    assert fit(stormy, at, small, "fold").scaler == fit(calm, at, small, "fold").scaler == Scaler.fit(calm)


def test_the_same_arguments_give_the_same_forecast_to_the_last_bit(small: ModelConfig) -> None:
    returns = np.random.default_rng(0).normal(0, 0.01, 300)
    assert evaluate(returns, small) == evaluate(returns, small)


@pytest.mark.slow
def test_a_signal_is_found(small: ModelConfig) -> None:
    """Returns that swing with a period of eight sessions, as much again of noise."""
    noise = np.random.default_rng(0).normal(0, 0.004, 800)
    returns = 0.01 * np.sin(np.arange(800) * 2 * np.pi / 8) + noise
    evaluation = evaluate(returns, replace(small, epochs=20, channels=8))
    assert evaluation["significant_horizons"] == [1, 2, 3]
    assert evaluation["overall"][0]["skill"] > 0.4
    assert evaluation["overall"][0]["directional_accuracy"] > 0.8
    assert "1, 2, 3 sessions ahead it beats that and the mere drift in every fold" in in_words(evaluation, 0.8)


@pytest.mark.slow
def test_on_a_random_walk_there_is_no_skill_and_the_interval_holds(small: ModelConfig) -> None:
    returns = np.random.default_rng(7).normal(0, 0.01, 1500)
    overall = evaluate(returns, replace(small, epochs=8))["overall"]
    assert all(abs(one["skill"]) < 0.05 for one in overall)
    assert all(0.7 < one["coverage"] < 0.9 for one in overall)


def test_the_figures_are_those_of_their_formulas() -> None:
    came = np.array([[0.01], [-0.03]])
    forecast = np.array([[[0.0, 0.02, 0.03]], [[-0.02, -0.01, 0.0]]])
    [one] = score(forecast, came, Baselines(drift=0.01, average=0.02))
    assert one["mae"] == pytest.approx((0.01 + 0.02) / 2)
    assert one["rmse"] == pytest.approx(np.sqrt((0.01**2 + 0.02**2) / 2))
    assert one["mae_naive"] == pytest.approx(0.02)
    assert one["mae_drift"] == pytest.approx((0.0 + 0.04) / 2)
    assert one["rmse_drift"] == pytest.approx(np.sqrt((0.0**2 + 0.04**2) / 2))
    assert one["mae_moving_average"] == pytest.approx((0.01 + 0.05) / 2)
    assert one["rmse_moving_average"] == pytest.approx(np.sqrt((0.01**2 + 0.05**2) / 2))
    assert one["skill"] == pytest.approx(1 - 0.015 / 0.02)
    assert (one["directional_accuracy"], one["coverage"], one["forecasts"]) == (1.0, 0.5, 2)


def test_each_fold_is_compared_with_the_drift_that_was_known_then(small: ModelConfig) -> None:
    """The drift changes its sign half way: a mean over the folds would know that before it comes."""
    returns = np.where(np.arange(300) < 200, 0.01, -0.01)

    def silent(known: Array, at: Indexes, name: str) -> Callable[[Array, Indexes], Array]:
        return lambda returns, origins: np.zeros((len(origins), small.horizon, 3))

    evaluation = walk_forward(returns, small.window, small.horizon, small.folds, small.test_share, silent)[0]
    for i, overall in enumerate(evaluation["overall"]):
        count = [fold[i]["forecasts"] for fold in evaluation["folds"]]
        squares = [fold[i]["rmse_drift"] ** 2 for fold in evaluation["folds"]]
        assert overall["rmse_drift"] ** 2 == pytest.approx(np.average(squares, weights=count))


def constant(value: float, count: int = 40) -> Array:
    return np.array([[[value - 0.01, value, value + 0.01]]] * count)


def test_a_model_that_is_worse_in_one_fold_is_not_said_to_be_better() -> None:
    came = np.linspace(0.02, 0.021, 40)[:, None]
    better, worse = constant(0.019), constant(-0.001)
    none = Baselines(drift=0.0, average=0.0)
    folds = [score(better, came, none), score(worse, came, none)]
    overall = score(np.concatenate([better, better, better, worse]), np.concatenate([came] * 4), none)
    assert overall[0]["skill"] > 0 and overall[0]["p_value"] < 0.01
    for parts, verdict in ((folds, []), (folds[:1], [1])):
        assert significant_horizons(parts, overall) == verdict
        told = in_words(Evaluation(folds=parts, overall=overall, significant_horizons=verdict), 0.8)
        assert ("does not reliably beat both that and the mere drift" in told) is (verdict == [])


def test_a_model_that_has_found_the_drift_alone_is_not_said_to_be_better() -> None:
    came = np.random.default_rng(0).normal(0.02, 0.01, 400)[:, None]
    drift = Baselines(drift=0.02, average=0.0)
    [one] = overall = score(constant(0.0201, 400), came, drift)
    assert one["p_value"] < 1e-6 and one["skill"] > 0.4
    assert significant_horizons([overall], overall) == []
    overall = score(constant(0.0201, 400), came, Baselines(drift=0.0, average=0.0))
    assert significant_horizons([overall], overall) == [1]


def test_a_signal_at_one_horizon_is_enough_and_is_held_to_that_horizons_part_of_the_noise() -> None:
    one = score(constant(0.019), np.linspace(0.02, 0.021, 40)[:, None], Baselines(drift=0.0, average=0.0))[0]
    chances = []
    for horizon, chance in enumerate((0.012, 0.009, 0.3, 0.5, 0.9), start=1):
        chances.append(one | {"horizon": horizon, "p_value": chance, "p_value_drift": 0.001})
    assert significant_horizons([chances], chances) == [2]


def test_the_shipped_configuration_is_right() -> None:
    assert read_model_config(DEFAULT_CONFIG).quantiles == pytest.approx((0.1, 0.5, 0.9))


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.5, 100, 0.4038, 0.5962), (0.9, 10, 0.5958, 0.9821), (0.0, 10, 0.0, 0.2775), (1.0, 10, 0.7225, 1.0), (0.5, 0, 0.0, 1.0)],
)
def test_the_interval_of_a_share_is_wilsons(share: float, count: float, low: float, high: float) -> None:
    assert wilson_interval(share, count) == pytest.approx((low, high), abs=1e-4)


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
