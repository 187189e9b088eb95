"""What became of issued forecasts: their scores, and the alert if they drift."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from step_contract import paths
from step_contract.commit import Content, commit, open_artifact
from step_contract.manifest import Fact, Manifest, canonical, digest
from step_contract.schemas import ISSUED_FORECAST_VERSION, SCORES
from step_contract.store import Store
from step_contract.tables import make_table, read_rows
from trainer.calibration import calibrate_forecasts, start_calibration
from trainer.daily_forecast.drift import END_THRESHOLD, THRESHOLD, find_drift
from trainer.dataset import Array, Indexes, cumulative_returns
from trainer.train import forecast_record

from .conftest import Run, commit_price
from .test_forecast import LAST, add_entry, commit_closes, make_closes, train

HORIZON, INTERVAL = 3, 0.8


@pytest.fixture
def closes(store: Store) -> dict[date, float]:
    closes = make_closes()
    commit_closes(store, closes)
    return closes


def issue(
    store: Store, session: date, close: float, margin: float = 0.02, change: float = 0.0, **source: str
) -> dict[str, Any]:
    """Commit a forecast as an earlier run of the step would; its interval is `change` minus and plus `margin`."""
    values = np.array([[change - margin, change, change + margin]] * HORIZON)
    content = {"symbol": "KS11", "session": str(session), "model": "naive", "interval": INTERVAL}
    content |= {"source": source or {"name": "baseline: naive"}, **forecast_record(session, close, values, values)}
    artifact = Content({"forecast.json": json.dumps(content).encode()}, 0, ISSUED_FORECAST_VERSION, {})
    inputs = {"symbol": "KS11", "session": str(session)}
    commit(store, paths.forecast("KS11", session), step="forecast", session=session, inputs=inputs, content=artifact)
    return content


def read_scores(trainer: Run, session: date = LAST) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Fact], str]:
    """Run the step; return its table of scores, the content of performance.json, its facts and the output."""
    code, output, result = trainer("forecast", "--session", str(session))
    assert code == 0, output
    manifest, files = open_artifact(str(result["manifest"]))
    table = read_rows({"scores.parquet": files["scores.parquet"]}, SCORES).table
    assert manifest.rows == len(table)
    return table, json.loads(files["performance.json"]), dict(manifest.facts), output


def test_known_outcomes_are_scored_at_each_horizon(closes: dict[date, float], store: Store, trainer: Run) -> None:
    sessions = list(closes)
    origin, ahead = sessions[-3], sessions[-2:]
    issue(store, origin, closes[origin], margin=0.001, change=0.004)
    table, performance, _, _ = read_scores(trainer)
    assert table["horizon"].tolist() == [1, 2], "the outcome three sessions ahead is not known yet"
    assert [session.date() for session in table["session"]] == ahead
    for row, session in zip(table.to_dict("records"), ahead, strict=True):
        outcome = math.log(closes[session] / closes[origin])
        outside = max(0.003 - outcome, 0) + max(outcome - 0.005, 0)
        assert row["outcome"] == closes[session] and row["source"] == "baseline: naive"
        assert row["absolute_error"] == pytest.approx(abs(outcome - 0.004))
        assert row["absolute_error_naive"] == pytest.approx(abs(outcome))
        assert row["covered"] == (outside == 0)
        assert row["interval_score"] == pytest.approx(0.002 + 2 / 0.2 * outside)
    first = performance["horizons"][0]
    assert (first["horizon"], first["forecasts"]) == (1, 1)
    assert first["skill"] == pytest.approx(1 - table["absolute_error"][0] / table["absolute_error_naive"][0])


def test_an_outcome_exists_only_without_a_missing_session(closes: dict[date, float], store: Store, trainer: Run) -> None:
    sessions = list(closes)
    for position in (-40, -33, -32, -31):
        issue(store, sessions[position], closes[sessions[position]])
    store.remove_folder(paths.prices("KS11", sessions[-31]))
    scored = [(row["origin"].date(), row["horizon"]) for row in read_scores(trainer)[0].to_dict("records")]
    before, after = (sessions[-40], sessions[-33])
    assert scored == [(before, 1), (before, 2), (before, 3), (after, 1)], "the others end after the gap or start in it"


def test_a_forecast_from_a_corrected_close_is_not_scored(closes: dict[date, float], store: Store, trainer: Run) -> None:
    sessions = list(closes)
    corrected, intact = sessions[-10], sessions[-20]
    issue(store, corrected, closes[corrected] * 10)
    issue(store, intact, closes[intact])
    table, _, _, output = read_scores(trainer)
    assert {origin.date() for origin in table["origin"]} == {intact}
    assert f"Not scoring the forecast of {corrected}" in output


def test_a_corrected_outcome_is_scored_as_corrected(closes: dict[date, float], store: Store, trainer: Run) -> None:
    *_, origin, session, last = list(closes)
    issue(store, origin, closes[origin])
    corrected = round(closes[session] + 5, 2)
    commit_price(store, session, corrected, revision=2, change=corrected / closes[origin] - 1)
    commit_price(store, last, closes[last], revision=2, change=closes[last] / corrected - 1)
    assert read_scores(trainer)[0]["outcome"].tolist() == [corrected, closes[last]]


def damage_forecast(folder: Path) -> str:
    [file] = folder.rglob("forecast.json")
    file.write_text("{}")
    return "is truncated"


def damage_manifest(folder: Path) -> str:
    (folder / "manifest.json").write_text("{")
    return "is truncated or not a manifest"


def set_version(folder: Path) -> str:
    path = folder / "manifest.json"
    content = json.loads(Manifest.from_json(path.read_bytes(), "").to_json()) | {"schema_version": 99}
    del content["sha256"]
    path.write_text(json.dumps(content | {"sha256": digest(canonical(content))}))
    return "has schema version 99, this program reads 1"


def set_drift(folder: Path) -> str:
    path = folder / "manifest.json"
    path.write_bytes(replace(Manifest.from_json(path.read_bytes(), ""), facts={"drift_since": "last week"}).to_json())
    return "is not a forecast: ValueError"


def leave_attempt(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return ""


@pytest.mark.parametrize("damage", [damage_forecast, damage_manifest, set_version, set_drift, leave_attempt])
def test_an_unreadable_forecast_is_skipped_with_a_warning(
    damage: Callable[[Path], str], closes: dict[date, float], store: Store, trainer: Run, tmp_path: Path
) -> None:
    sessions = list(closes)
    for position in (-30, -20):
        issue(store, sessions[position], closes[sessions[position]])
    warning = damage(tmp_path / "artifacts" / "forecasts" / "symbol=KS11" / f"session={sessions[-20]}")
    (tmp_path / "artifacts" / "forecasts" / "symbol=KS11" / "notes.txt").write_text("by a person")
    table, _, _, output = read_scores(trainer)
    assert {origin.date() for origin in table["origin"]} == {sessions[-30]}
    assert warning in output and output.count("Skipping an issued forecast: ") == 1 + bool(warning)


@pytest.mark.parametrize(
    "change",
    [
        {"forecast": []},
        {"last_close": -1.0},
        {"interval": 1.5},
        {"source": None},
        {"source": {}},
        {"forecast": [{"horizon": 2}]},
    ],
)
def test_a_file_that_is_no_forecast_is_skipped(
    change: dict[str, Any], closes: dict[date, float], store: Store, trainer: Run
) -> None:
    session = list(closes)[-5]
    content = issue(store, session, closes[session]) | change
    store.remove_folder("forecasts")
    artifact = Content({"forecast.json": json.dumps(content).encode()}, 0, ISSUED_FORECAST_VERSION, {})
    commit(store, paths.forecast("KS11", session), step="forecast", session=session, inputs={}, content=artifact)
    table, _, _, output = read_scores(trainer)
    assert table.empty and "forecast.json is not a forecast: " in output


def test_performance_is_that_of_the_forecasts_by_the_current_source(
    closes: dict[date, float], store: Store, trainer: Run
) -> None:
    """Forecasts of several models and baselines follow each other."""
    path = train(trainer, store, date(2026, 1, 6), promoted=False)
    sessions = list(closes)
    for number, session in enumerate(sessions[-30:-1]):
        source = [{}, {"name": "model of 2025-12-01", "model": "models/other/manifest.json"}, {"name": "a", "model": path}][
            number % 3
        ]
        issue(store, session, closes[session], 0.02, 0.0, **source)
    assert read_scores(trainer)[1]["horizons"][0]["forecasts"] == 10
    store.remove_folder(paths.forecast("KS11", LAST))
    add_entry(store, "promoted", path, date(2026, 1, 6), date(2026, 1, 6))
    table, performance, _, _ = read_scores(trainer)
    assert performance["source"] == "model of 2026-01-06" and performance["horizons"][0]["forecasts"] == 9
    assert len(table[table["horizon"] == 1]) == 29


def test_drift_is_alerted_once_per_episode_with_what_to_do(closes: dict[date, float], store: Store, trainer: Run) -> None:
    path = train(trainer, store, list(closes)[-45])
    sessions = list(closes)
    for session in sessions[-40:-2]:
        issue(store, session, closes[session], margin=0.0001, name="a", model=path)
    _, performance, facts, output = read_scores(trainer, sessions[-2])
    since = str(facts["drift_since"])
    assert sessions[-40] <= date.fromisoformat(since) < sessions[-2] and performance["drift"]["since"] == since
    assert performance["drift"]["coverage_capital"] > THRESHOLD == performance["drift"]["threshold"]
    assert f"ahead since {since} covered only" in str(facts["drift"])
    assert f'trainer rollback --symbol KS11 --reason "drift since {since}"' in str(facts["advice"])
    assert f"trainer train --symbol KS11 --session {sessions[-2]}" in str(facts["advice"])
    assert str(facts["drift"]) in output
    following = read_scores(trainer)[2]
    assert following["drift_since"] == since and "drift" not in following


def test_the_forecasts_of_a_new_source_do_not_inherit_a_drift(closes: dict[date, float], store: Store, trainer: Run) -> None:
    for session in list(closes)[-40:-1]:
        issue(store, session, closes[session], margin=0.0001, name="a", model="models/other/manifest.json")
    facts = read_scores(trainer)[2]
    assert "drift_since" not in facts


def make_scores(returns: Array, forecasts: Array, first: int) -> tuple[pd.DataFrame, Indexes]:
    """Return the table SCORES of the forecasts from consecutive origins from `first` on, and the origins' positions."""
    count, horizon, _ = forecasts.shape
    outcomes = cumulative_returns(returns, np.arange(first, first + count), horizon)
    low, middle, high = (forecasts[:, :, i].ravel() for i in range(3))
    changes, positions = outcomes.ravel(), np.repeat(np.arange(first, first + count), horizon)
    days = pd.Timestamp("2000-01-01") + pd.to_timedelta(positions, unit="D")
    values: dict[str, Sequence[Any]] = {name: np.zeros(len(changes)).tolist() for name in SCORES.names}
    values |= {"origin": days.tolist(), "session": days.tolist(), "source": ["a"] * len(changes)}
    values |= {"horizon": np.tile(np.arange(1, horizon + 1), count).tolist(), "interval": [INTERVAL] * len(changes)}
    values |= {"last_close": np.ones(len(changes)).tolist(), "middle": np.exp(middle).tolist()}
    values |= {"covered": ((low <= changes) & (changes <= high)).astype(int).tolist()}
    values |= {"absolute_error": np.abs(changes - middle).tolist(), "absolute_error_naive": np.abs(changes).tolist()}
    return make_table(SCORES, values), positions


def make_forecasts(count: int, deviation: float, change: Array | float = 0.0) -> Array:
    """Return forecasts whose intervals are right for returns with the standard deviation `deviation`."""
    margin = 1.2816 * deviation * np.sqrt(np.arange(1, 6))
    middle = np.broadcast_to(change, (5, count)).T * np.arange(1, 6)
    return np.stack([middle - margin, middle, middle + margin], axis=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_calibrated_forecasts_of_changing_volatility_do_not_drift(seed: int) -> None:
    """Neither do random walks forecast from their own deviation."""
    generator = np.random.default_rng(seed)
    for deviations in (np.full(1000, 0.01), np.repeat([0.01, 0.02, 0.007, 0.015], 250)):
        returns = generator.normal(0, 1, 1000) * deviations
        origins, raw = np.arange(250, 996), make_forecasts(746, returns.std())
        calibrated = calibrate_forecasts(start_calibration(returns[:250], 20, 5, INTERVAL), returns, origins, raw).forecasts
        drift = find_drift(*make_scores(returns, calibrated[:745], 250), None)
        assert drift.since is None and max(drift.coverage.capital, drift.error.capital) < THRESHOLD


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_intervals_that_are_too_narrow_are_found_within_a_quarter(seed: int) -> None:
    """The volatility doubles after 100 forecasts, and the intervals do not follow."""
    returns = np.random.default_rng(seed).normal(0, 0.01, 160 + 5)
    returns[100:] *= 2
    drift = find_drift(*make_scores(returns, make_forecasts(160, 0.01), 0), None)
    assert drift.coverage.capital > THRESHOLD and drift.since and drift.is_new
    assert date(2000, 2, 1) < drift.since < date(2000, 5, 30), "it began on 10 April"
    assert "80% intervals of" in drift.description and "covered only" in drift.description


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_errors_larger_than_the_naive_forecasts_are_found_within_a_year(seed: int) -> None:
    """The model forecasts moves of half a deviation, most of them in the wrong direction."""
    generator = np.random.default_rng(seed)
    returns = generator.normal(0, 0.01, 255)
    wrong = np.where(generator.random(250) < 0.75, -1, 1) * np.sign(returns[:250]) * 0.005
    drift = find_drift(*make_scores(returns, make_forecasts(250, 0.02, wrong), 0), None)
    assert drift.error.capital > THRESHOLD and "that of the naive forecast" in drift.description


def test_a_known_drift_lasts_until_its_evidence_is_gone() -> None:
    returns = np.full(105, 0.02)
    returns[::2] *= -1
    scores, positions = make_scores(returns, make_forecasts(100, 0.001), 0)
    since = date(2000, 1, 3)
    known = find_drift(scores, positions, since)
    assert (known.since, known.is_new) == (since, False) and "since 2000-01-03" in known.description
    few = positions < 9
    between = find_drift(scores[few], positions[few], since)
    assert END_THRESHOLD < between.coverage.capital < THRESHOLD and between.since == since
    assert find_drift(scores[few], positions[few], None).since is None
    assert find_drift(scores[:0], positions[:0], since).since is None
    later = find_drift(scores, positions, date(2001, 1, 1))
    assert "nan" not in later.description and later.since == find_drift(scores, positions, None).since, (
        "the forecasts since then are not scored any more"
    )
