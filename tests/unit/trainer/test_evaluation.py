from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trainer.config import DEFAULT_CONFIG, ModelConfig, read_model_config
from trainer.dataset import Array, Indexes, Scaler, forecast_origins
from trainer.evaluation import Evaluation, Score, find_significant_horizons, score, split_folds, walk_forward
from trainer.fitting import fit
from trainer.scores import Baselines, diebold_mariano, score_interval, wilson_interval
from trainer.texts import summarize_evaluation

from .conftest import SMALL_CONFIG


@pytest.fixture
def small_config(tmp_path: Path) -> ModelConfig:
    (tmp_path / "small.toml").write_text(SMALL_CONFIG)
    return read_model_config(tmp_path / "small.toml")


def evaluate(returns: Array, config: ModelConfig) -> Evaluation:
    return walk_forward(returns, config, lambda known, origins, name: fit(known, origins, config, name).forecast)[0]


def make_baselines(count: int, drift: float = 0.0, moving_average: float = 0.0) -> Baselines:
    """Return baselines whose training part has 100 sessions with a standard deviation of 1 % each."""
    values = (drift, 0.01, 100.0, 0.01, moving_average, 0.01)
    return Baselines(*(np.full(count, value) for value in values))


def score_without_calibration(forecasts: Array, outcomes: Array, baselines: Baselines) -> list[Score]:
    return score(forecasts, forecasts, outcomes, baselines, 0.8)


@given(st.integers(40, 400), st.integers(1, 10), st.integers(1, 5), st.floats(0.1, 0.5))
def test_training_targets_do_not_overlap_the_test_part(sessions: int, horizon: int, folds: int, share: float) -> None:
    origins = np.arange(10, sessions)
    parts = split_folds(origins, folds, share, horizon)
    assert len(parts) == folds
    for train, test in parts:
        assert train[-1] + horizon <= test[0]
        assert test[-1] + horizon <= origins[-1]
    tested = np.concatenate([test for _, test in parts])
    assert tested.tolist() == list(range(tested[0], origins[-1] - horizon + 1)), "each origin is tested once, up to the last"


def test_fold_is_fitted_without_later_returns(small_config: ModelConfig) -> None:
    returns = np.random.default_rng(0).normal(0, 0.01, 300)
    calls = []

    def spy(known: Array, origins: Indexes, name: str) -> Callable[[Array, Indexes], Array]:
        calls.append((len(known), int(origins[-1])))
        return lambda returns, origins: np.zeros((len(origins), small_config.horizon, 3))

    walk_forward(returns, small_config, spy)
    origins = forecast_origins(returns, small_config.window)
    parts = split_folds(origins, small_config.folds, small_config.test_share, small_config.horizon)
    tests = [test for _, test in parts]
    for (known, _), test in zip(calls, tests, strict=True):
        assert known <= test[0]


def test_scaler_uses_the_training_part_only(small_config: ModelConfig) -> None:
    calm = np.random.default_rng(0).normal(0, 0.01, 200)
    volatile = np.concatenate([calm, np.random.default_rng(1).normal(0, 0.5, 100)])
    origins = forecast_origins(calm, small_config.window)[: -small_config.horizon]
    scaler = fit(volatile, origins, small_config, "fold").scaler
    assert scaler == fit(calm, origins, small_config, "fold").scaler == Scaler.fit(calm)


@pytest.mark.parametrize("model", ["tcn", "gru"])
def test_a_fit_uses_a_feature_up_to_its_last_target_only(model: str, small_config: ModelConfig) -> None:
    config, generator = replace(small_config, model=model), np.random.default_rng(0)
    returns, feature = generator.normal(0, 0.01, 300), generator.normal(5, 2, (300, 1))
    feature[:40] = np.nan  # collected since
    origins = forecast_origins(returns, config.window)[:200]
    later = feature.copy()
    later[origins[-1] + config.horizon :] = 1e6

    def forecast(features: Array) -> Array:
        return fit(returns, origins, config, "fold", features=features).forecast(returns, origins, features)

    assert np.array_equal(forecast(feature), forecast(later))
    assert not np.array_equal(forecast(feature), forecast(feature[::-1].copy()))
    assert np.isfinite(forecast(feature)).all()


def test_a_feature_that_is_missing_or_constant_can_be_scaled() -> None:
    missing = np.full(3, np.nan)
    assert (Scaler.fit_feature(np.array([np.nan, 1.0, 3.0])), Scaler.fit_feature(missing)) == (Scaler(2, 1), Scaler(0, 0))
    assert Scaler.fit_feature(np.full(3, 7.0)).scale(np.full(1, 7.0)).tolist() == [0.0]


def test_same_arguments_give_identical_forecasts(small_config: ModelConfig) -> None:
    returns = np.random.default_rng(0).normal(0, 0.01, 300)
    assert evaluate(returns, small_config) == evaluate(returns, small_config)


@pytest.mark.slow
def test_signal_in_noise_is_significant(small_config: ModelConfig) -> None:
    """Returns with a period of eight sessions, and noise."""
    noise = np.random.default_rng(0).normal(0, 0.004, 800)
    returns = 0.01 * np.sin(np.arange(800) * 2 * np.pi / 8) + noise
    evaluation = evaluate(returns, replace(small_config, epochs=20, channels=8))
    assert evaluation["significant_horizons"] == [1, 2, 3]
    assert evaluation["overall"][0]["skill"] > 0.4
    assert evaluation["overall"][0]["directional_accuracy"] > 0.8
    summary = summarize_evaluation(evaluation, 0.8)
    assert "better than the naive and drift forecasts 1, 2, 3 sessions ahead, in every fold" in summary


@pytest.mark.slow
def test_random_walk_has_no_skill_and_calibrated_interval(small_config: ModelConfig) -> None:
    returns = np.random.default_rng(7).normal(0, 0.01, 1500)
    overall = evaluate(returns, replace(small_config, epochs=8))["overall"]
    assert all(abs(scores["skill"]) < 0.05 for scores in overall)
    assert all(0.76 < scores["coverage"] < 0.84 for scores in overall)


def test_scores_match_their_formulas() -> None:
    outcomes = np.array([[0.01], [-0.03]])
    forecasts = np.array([[[0.0, 0.02, 0.03]], [[-0.02, -0.01, 0.0]]])
    [scores] = score_without_calibration(forecasts, outcomes, make_baselines(2, drift=0.01, moving_average=0.02))
    assert scores["mae"] == pytest.approx((0.01 + 0.02) / 2)
    assert scores["rmse"] == pytest.approx(np.sqrt((0.01**2 + 0.02**2) / 2))
    assert scores["mae_naive"] == pytest.approx(0.02)
    assert scores["mae_drift"] == pytest.approx((0.0 + 0.04) / 2)
    assert scores["rmse_drift"] == pytest.approx(np.sqrt((0.0**2 + 0.04**2) / 2))
    assert scores["mae_moving_average"] == pytest.approx((0.01 + 0.05) / 2)
    assert scores["rmse_moving_average"] == pytest.approx(np.sqrt((0.01**2 + 0.05**2) / 2))
    assert scores["skill"] == pytest.approx(1 - 0.015 / 0.02)
    assert (scores["directional_accuracy"], scores["coverage"], scores["forecasts"]) == (1.0, 0.5, 2)
    assert (scores["mase"], scores["mase_naive"]) == pytest.approx((1.5, 2.0)), "in mean absolute returns of 0.01"
    assert scores["intervals"]["naive"]["width"] == pytest.approx(2 * 1.2816 * 0.01, rel=1e-4)
    assert scores["intervals"]["drift"]["width"] == pytest.approx(2 * 1.2816 * 0.01 * np.sqrt(1.01), rel=1e-4)
    assert scores["intervals"]["naive"]["coverage"] == 0.5 and scores["intervals"]["drift"]["coverage"] == 0.5


def test_interval_scores_match_their_formulas() -> None:
    forecasts = np.array([[-0.01, 0.0, 0.01], [-0.02, 0.0, 0.02], [-0.03, 0.01, 0.03], [-0.04, 0.0, 0.04]])
    outcomes, volatility = np.array([0.0, 0.03, -0.05, 0.04]), np.array([0.01, 0.02, 0.03, 0.04])
    scores = score_interval(forecasts, outcomes, volatility, 2, 0.8)
    assert (scores["coverage"], scores["coverage_by_volatility"]) == (0.5, [0.5, 0.0, 1.0])
    assert (scores["coverage_low"], scores["coverage_high"]) == wilson_interval(0.5, 2)
    assert scores["width"] == pytest.approx(0.05)
    assert scores["interval_score"] == pytest.approx(0.05 + 10 * (0.01 + 0.02) / 4)
    losses = [
        [0.1 * 0.01, 0, 0.1 * 0.01],
        [0.1 * 0.05, 0.5 * 0.03, 0.9 * 0.01],
        [0.9 * 0.02, 0.5 * 0.06, 0.1 * 0.08],
        [0.1 * 0.08, 0.5 * 0.04, 0.0],
    ]
    assert scores["quantile_loss"] == pytest.approx(np.mean(losses))


def test_each_fold_uses_its_own_drift(small_config: ModelConfig) -> None:
    """The drift changes its sign in the middle: a mean over all folds would use later returns."""
    returns = np.where(np.arange(300) < 200, 0.01, -0.01)

    def no_change(known: Array, origins: Indexes, name: str) -> Callable[[Array, Indexes], Array]:
        return lambda returns, origins: np.zeros((len(origins), small_config.horizon, 3))

    evaluation = walk_forward(returns, small_config, no_change)[0]
    for i, overall in enumerate(evaluation["overall"]):
        counts = [fold[i]["forecasts"] for fold in evaluation["folds"]]
        squares = [fold[i]["rmse_drift"] ** 2 for fold in evaluation["folds"]]
        assert overall["rmse_drift"] ** 2 == pytest.approx(np.average(squares, weights=counts))


def constant_forecasts(value: float, count: int = 40) -> Array:
    return np.array([[[value - 0.01, value, value + 0.01]]] * count)


def test_model_worse_in_one_fold_is_not_significant() -> None:
    outcomes = np.linspace(0.02, 0.021, 40)[:, None]
    better, worse = constant_forecasts(0.019), constant_forecasts(-0.001)
    folds = [score_without_calibration(forecasts, outcomes, make_baselines(40)) for forecasts in (better, worse)]
    all_forecasts = np.concatenate([better, better, better, worse])
    overall = score_without_calibration(all_forecasts, np.concatenate([outcomes] * 4), make_baselines(160))
    assert overall[0]["skill"] > 0 and overall[0]["p_value"] < 0.01
    for scores, expected in ((folds, []), (folds[:1], [1])):
        assert find_significant_horizons(scores, overall) == expected
        evaluation = Evaluation(folds=scores, overall=overall, significant_horizons=expected, uncalibrated_forecasts=0)
        summary = summarize_evaluation(evaluation, 0.8)
        assert ("No significant improvement over the naive and drift forecasts" in summary) is (expected == [])


def test_model_that_learned_the_drift_only_is_not_significant() -> None:
    outcomes = np.random.default_rng(0).normal(0.02, 0.01, 400)[:, None]
    forecasts = constant_forecasts(0.0201, 400)
    [scores] = overall = score_without_calibration(forecasts, outcomes, make_baselines(400, drift=0.02))
    assert scores["p_value"] < 1e-6 and scores["skill"] > 0.4
    assert find_significant_horizons([overall], overall) == []
    overall = score_without_calibration(forecasts, outcomes, make_baselines(400))
    assert find_significant_horizons([overall], overall) == [1]


def test_significance_level_is_divided_among_horizons() -> None:
    outcomes = np.linspace(0.02, 0.021, 40)[:, None]
    scores = score_without_calibration(constant_forecasts(0.019), outcomes, make_baselines(40))[0]
    by_horizon = []
    for horizon, p_value in enumerate((0.012, 0.009, 0.3, 0.5, 0.9), start=1):
        by_horizon.append(scores | {"horizon": horizon, "p_value": p_value, "p_value_drift": 0.001})
    assert find_significant_horizons([by_horizon], by_horizon) == [2]


def test_default_configuration_is_valid() -> None:
    assert read_model_config(DEFAULT_CONFIG).quantiles == pytest.approx((0.1, 0.5, 0.9))


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [(0.5, 100, 0.4038, 0.5962), (0.9, 10, 0.5958, 0.9821), (0.0, 10, 0.0, 0.2775), (1.0, 10, 0.7225, 1.0), (0.5, 0, 0.0, 1.0)],
)
def test_wilson_interval_matches_published_values(share: float, count: float, low: float, high: float) -> None:
    assert wilson_interval(share, count) == pytest.approx((low, high), abs=1e-4)


def test_better_forecast_is_significant_and_worse_one_is_not() -> None:
    noise = np.random.default_rng(0).normal(0, 0.001, 200)
    assert diebold_mariano(0.01 + noise, np.full(200, 0.012), 1).p_value < 1e-6
    assert diebold_mariano(np.full(200, 0.012), 0.01 + noise, 1).p_value > 1 - 1e-6


@pytest.mark.parametrize("horizon", [1, 5])
def test_false_positive_rate_is_near_the_level(horizon: int) -> None:
    """Against the naive forecast of a random walk: forecasts without skill, with overlapping horizons."""
    generator = np.random.default_rng(0)
    rejections = 0
    for _ in range(400):
        steps = generator.normal(0, 0.01, 500 + horizon)
        outcomes = np.convolve(steps, np.ones(horizon), "valid")[1:500]
        forecasts = generator.normal(0, 0.002) + generator.normal(0, 0.001, len(outcomes))
        rejections += diebold_mariano(np.abs(outcomes - forecasts), np.abs(outcomes), horizon).p_value < 0.05
    assert rejections / 400 < 0.08


def test_equal_losses_or_too_few_forecasts_are_not_significant() -> None:
    losses = np.full(50, 0.01)
    assert diebold_mariano(losses, losses, 1).p_value == 0.5
    assert diebold_mariano(np.zeros(9), np.arange(9.0), 5).p_value == 0.5


def test_negative_variance_estimate_gives_a_finite_statistic() -> None:
    differences = np.tile([1.0, -1.0], 50) + 0.001 * np.arange(100)
    test = diebold_mariano(np.zeros(100), differences, 2)
    assert np.isfinite(test.statistic) and 0 <= test.p_value <= 1
