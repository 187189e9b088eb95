from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer.calibration import (
    MAX_SCORES,
    MIN_SCORES,
    CalibratedForecasts,
    Calibration,
    calibrate_forecasts,
    ewma_volatility,
    find_halts,
    start_calibration,
)
from trainer.config import MAX_INTERVAL
from trainer.dataset import Array, cumulative_returns

WINDOW, HORIZON, INTERVAL = 64, 5, 0.8


def random_walk(generator: np.random.Generator, sessions: int) -> Array:
    return generator.normal(0, 0.01, sessions)


def fat_tails(generator: np.random.Generator, sessions: int) -> Array:
    return 0.008 * generator.standard_t(3, sessions)


def garch(generator: np.random.Generator, sessions: int) -> Array:
    """A GARCH(1,1) whose volatility is 1 % on average and persistent, as that of an index."""
    returns, variance = np.empty(sessions), 1e-4
    for i in range(sessions):
        returns[i] = np.sqrt(variance) * generator.standard_normal()
        variance = 2e-6 + 0.1 * returns[i] ** 2 + 0.88 * variance
    return returns


def overfitted_forecasts(generator: np.random.Generator, origins: int) -> Array:
    """Forecasts without skill whose intervals are of one width, too narrow, and noisy."""
    scale = 0.01 * np.sqrt(np.arange(1, HORIZON + 1))
    middle = generator.normal(0, 0.1, (origins, HORIZON)) * scale
    margins = generator.uniform(0.7, 1.1, (2, origins, HORIZON)) * scale
    return np.stack([middle - margins[0], middle, middle + margins[1]], axis=2)


def calibrate(returns: Array, forecasts: Array, interval: float = INTERVAL) -> CalibratedForecasts:
    """Calibrate forecasts from the sessions before the last HORIZON, as the evaluation does."""
    first = len(returns) - HORIZON - len(forecasts) + 1
    calibration = start_calibration(returns[:first], WINDOW, HORIZON, interval)
    return calibrate_forecasts(calibration, returns, np.arange(first, first + len(forecasts)), forecasts)


def find_covered(returns: Array, forecasts: Array) -> Array:
    """Return 1 where a forecast as of `calibrate` covers its outcome, 0 elsewhere, shape (origins, horizon)."""
    first = len(returns) - HORIZON - len(forecasts) + 1
    outcomes = cumulative_returns(returns, np.arange(first, first + len(forecasts)), HORIZON)
    covered: Array = ((forecasts[:, :, 0] <= outcomes) & (outcomes <= forecasts[:, :, 2])).astype(np.float64)
    return covered


@pytest.mark.parametrize("halted", [20, 60, 250, 1000])
def test_a_halt_leaves_the_calibration_as_it_was(halted: int) -> None:
    """Neither do intervals become narrower because they have covered closes that did not change."""
    generator = np.random.default_rng(0)
    before, after = random_walk(generator, 400), random_walk(generator, 300)
    returns = np.concatenate([before, np.zeros(halted), after])
    forecasts = overfitted_forecasts(generator, 200 + halted + 300 - HORIZON + 1)
    calibrated = calibrate(returns, forecasts)
    covered = find_covered(returns, calibrated.forecasts)[200 + halted :]
    for part in (covered[:100], covered[100:]):
        assert abs(part.mean() - INTERVAL) < 0.06
    assert calibrated.uncalibrated == 0


def test_closes_that_do_not_change_for_a_few_sessions_are_no_halt() -> None:
    returns = np.array([0.01, 0, 0, 0, 0, 0.01, 0, 0, 0, 0, 0, 0, -0.01])
    assert find_halts(returns).nonzero()[0].tolist() == [11, 12]
    assert find_halts(np.zeros(5)).tolist() == [False] * 5 + [True] and find_halts(np.zeros(0)).tolist() == [False]


@pytest.mark.parametrize("constant", [300, 600, 1000])
@pytest.mark.parametrize("tick", [1e-6, 1e-4, 0.01])
def test_years_of_constant_closes_do_not_widen_later_intervals(constant: int, tick: float) -> None:
    generator = np.random.default_rng(1)
    returns = np.concatenate([[tick], np.zeros(constant), random_walk(generator, 500)])
    forecasts = calibrate(returns, overfitted_forecasts(generator, 490)).forecasts
    widths = forecasts[50:, :, 2] - forecasts[50:, :, 0]
    nominal = 2 * 1.2816 * 0.01 * np.sqrt(np.arange(1, HORIZON + 1))
    assert (widths.mean(axis=0) < 2 * nominal).all()
    assert np.isfinite(forecasts).all()


def test_the_highest_interval_that_the_configuration_allows_can_be_calibrated() -> None:
    scores = np.ones((MAX_SCORES, HORIZON))
    assert Calibration(MAX_INTERVAL, np.full(HORIZON, 1 - MAX_INTERVAL), scores).ready
    assert not Calibration(MAX_INTERVAL + 0.001, np.full(HORIZON, 0.001), scores).ready


@pytest.mark.slow
@pytest.mark.parametrize("process", [random_walk, fat_tails, garch])
@pytest.mark.parametrize("seed", range(3))
def test_coverage_is_nominal_at_each_horizon(process: Callable[[np.random.Generator, int], Array], seed: int) -> None:
    generator = np.random.default_rng(seed)
    returns, forecasts = process(generator, 3000), overfitted_forecasts(generator, 1500)
    assert (find_covered(returns, forecasts).mean(axis=0) < 0.76).all()
    calibrated = find_covered(returns, calibrate(returns, forecasts).forecasts)
    assert (abs(calibrated.mean(axis=0) - INTERVAL) < 0.02).all()


@pytest.mark.slow
def test_coverage_hardly_depends_on_volatility() -> None:
    generator = np.random.default_rng(0)
    returns, forecasts = garch(generator, 3000), overfitted_forecasts(generator, 1500)
    covered = {"raw": find_covered(returns, forecasts)}
    covered["calibrated"] = find_covered(returns, calibrate(returns, forecasts).forecasts)
    origins = np.arange(len(returns) - HORIZON - 1499, len(returns) - HORIZON + 1)
    calm, _, turbulent = np.array_split(np.argsort(ewma_volatility(returns)[origins]), 3)
    difference = {name: covered[calm].mean(axis=0) - covered[turbulent].mean(axis=0) for name, covered in covered.items()}
    assert (difference["raw"] > 0.15).all()
    assert (abs(difference["calibrated"]) < 0.1).all()


@pytest.mark.slow
def test_short_validation_is_nearly_nominal() -> None:
    """Five years of an index give some 350 forecasts."""
    generator = np.random.default_rng(0)
    coverages = []
    for _ in range(10):
        returns = garch(generator, 1250)
        coverages.append(find_covered(returns, calibrate(returns, overfitted_forecasts(generator, 350)).forecasts).mean(axis=0))
    assert (abs(np.mean(coverages, axis=0) - INTERVAL) < 0.02).all()
    assert (abs(np.array(coverages) - INTERVAL) < 0.08).all()


def test_forecast_is_calibrated_with_outcomes_known_at_its_origin() -> None:
    """Later returns change nothing, so the forecasts up to an origin are those of a history that ends there."""
    generator = np.random.default_rng(0)
    returns, forecasts = garch(generator, 400), overfitted_forecasts(generator, 100)
    origins = np.arange(200, 300)
    start = start_calibration(returns[:200], WINDOW, HORIZON, INTERVAL)
    complete = calibrate_forecasts(start, returns, origins, forecasts)
    for last in (0, 3, 50):
        count, known = last + 1, returns[: 200 + last]
        partial = calibrate_forecasts(start, known, origins[:count], forecasts[:count])
        assert np.array_equal(partial.forecasts, complete.forecasts[:count])


def test_known_outcome_changes_the_next_calibration() -> None:
    generator = np.random.default_rng(0)
    returns, forecasts = garch(generator, 400), overfitted_forecasts(generator, 1)
    start = start_calibration(returns[:200], WINDOW, HORIZON, INTERVAL)
    for known in range(1, HORIZON + 1):
        state = calibrate_forecasts(start, returns[: 200 + known], np.array([200]), forecasts).calibration
        changed = state.miscoverage != start.miscoverage
        assert changed.tolist() == [horizon <= known for horizon in range(1, HORIZON + 1)]
        assert np.isnan(state.scores[-1]).tolist() == [horizon != known for horizon in range(1, HORIZON + 1)]


def test_missed_outcomes_widen_the_interval_and_covered_ones_narrow_it() -> None:
    scores = np.random.default_rng(0).exponential(1, (200, 2))
    start = Calibration(0.8, np.full(2, 0.2), scores)
    for _ in range(5):
        start = start.update(np.array([np.nan, np.nan]), np.array([1.0, 0.0]))
    wider, narrower = start.multipliers() - Calibration(0.8, np.full(2, 0.2), scores).multipliers()
    assert wider > 0 > narrower


def test_multiplier_is_the_conformal_quantile_of_known_scores() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))
    unknown = np.full(30, np.nan)
    by_horizon = np.stack([np.concatenate([scores, unknown]), np.concatenate([unknown, 2 * scores])], axis=1)
    assert Calibration(0.8, np.array([1 - 0.8, 0.1]), by_horizon).multipliers().tolist() == [80.0, 180.0]
    assert Calibration(0.8, np.array([-0.5, 1.5]), by_horizon).multipliers().tolist() == [99.0, 2.0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["calm", "crash", "halt", "explosion"]), st.sampled_from([0.5, 0.8, 0.95]))
def test_calibrated_quantiles_do_not_cross(seed: int, kind: str, interval: float) -> None:
    generator = np.random.default_rng(seed)
    returns, forecasts = random_walk(generator, 300), overfitted_forecasts(generator, 100)
    returns[250:] = {"calm": 1e-9, "crash": -0.2, "halt": 0.0, "explosion": 2.0}[kind]
    low, middle, high = np.moveaxis(calibrate(returns, forecasts, interval).forecasts, 2, 0)
    assert np.isfinite(low).all() and np.isfinite(high).all()
    assert (low <= middle).all() and (middle <= high).all()


def test_constant_closes_before_the_first_forecast_give_finite_intervals() -> None:
    returns = np.zeros(300)
    returns[190:] = np.random.default_rng(0).normal(0, 0.01, 110)
    calibrated = calibrate(returns, overfitted_forecasts(np.random.default_rng(1), 100))
    assert np.isfinite(calibrated.forecasts).all()
    assert calibrated.uncalibrated > 0, "the sessions without any movement are no evidence"


def test_crash_widens_the_intervals_and_calm_narrows_them_again() -> None:
    generator = np.random.default_rng(0)
    returns, forecasts = random_walk(generator, 900), overfitted_forecasts(generator, 500)
    returns[600:605] = [-0.08, -0.1, 0.05, -0.12, 0.06]
    first = len(returns) - HORIZON - 499
    width = np.ptp(calibrate(returns, forecasts).forecasts, axis=2)[:, 0]
    before, at, after = (width[session - first] for session in (599, 606, 750))
    assert at > 3 * before
    assert after < 1.5 * before


def test_too_few_scores_leave_the_forecast_as_it_is() -> None:
    generator = np.random.default_rng(0)
    returns, forecasts = random_walk(generator, 200), overfitted_forecasts(generator, 100)
    calibrated = calibrate(returns, forecasts)
    assert 0 < calibrated.uncalibrated < 100
    assert np.array_equal(calibrated.forecasts[: calibrated.uncalibrated], forecasts[: calibrated.uncalibrated])
    assert not np.array_equal(calibrated.forecasts[calibrated.uncalibrated], forecasts[calibrated.uncalibrated])
    # 96 - WINDOW outcomes one session ahead are known at the first origin, four fewer five sessions ahead.
    assert calibrated.uncalibrated >= MIN_SCORES - (96 - WINDOW - HORIZON + 1)


def test_interval_near_certainty_needs_more_scores() -> None:
    scores = np.ones((98, 1))
    assert not Calibration(0.99, np.array([0.01]), scores).ready
    assert Calibration(0.99, np.array([0.01]), np.ones((99, 1))).ready
    assert Calibration(0.8, np.array([0.2]), scores).ready


def test_state_survives_json_exactly() -> None:
    generator = np.random.default_rng(0)
    returns = garch(generator, 1000)
    state = calibrate(returns, overfitted_forecasts(generator, 300)).calibration
    assert len(state.scores) == MAX_SCORES
    restored = Calibration.from_json(json.loads(json.dumps(state.to_json(), allow_nan=False)))
    assert restored.interval == state.interval
    assert np.array_equal(restored.miscoverage, state.miscoverage)
    assert np.array_equal(restored.scores, state.scores, equal_nan=True)


def test_volatility_is_positive_and_uses_earlier_returns_only() -> None:
    returns = np.concatenate([random_walk(np.random.default_rng(0), 100), np.full(500, 1e-9)])
    volatility = ewma_volatility(returns)
    assert (len(volatility), volatility[0]) == (601, 0)
    assert volatility[1] == pytest.approx(np.sqrt(np.pi / 2) * abs(returns[0]))
    assert volatility[100] == pytest.approx(0.01, rel=0.3)
    assert 0 < volatility[-1] < 0.1 * volatility[100]
    assert np.array_equal(ewma_volatility(returns[:50]), volatility[:51])
