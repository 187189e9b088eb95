"""Models and plots that are made anew beside the earlier ones: the history changed, or a person asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from step_contract import paths
from step_contract.commit import open_artifact
from step_contract.manifest import Manifest
from step_contract.store import Store

from .conftest import Run, commit_price, on_weekdays

TRAIN = ("train", "--session", "2026-01-15")
PLOT = ("plot", "--session", "2026-01-15")
CLOSES = [1000.0 * float(np.exp(0.01 * np.sin(i))) for i in range(160)]
DAYS = on_weekdays(CLOSES)
OLDEST = list(DAYS)[:10]


def get_manifest(result: Mapping[str, object]) -> Manifest:
    return open_artifact(str(result["manifest"]))[0]


def read_file(result: Mapping[str, object], name: str) -> bytes:
    return open_artifact(str(result["manifest"]))[1][name]


def revision(result: Mapping[str, object]) -> int:
    return paths.parse_revision(str(result["manifest"]))


@pytest.fixture
def history(store: Store) -> Store:
    """A store with the prices of 150 sessions up to 15 January 2026; the ten before them are missing."""
    for session, close in DAYS.items():
        if session not in OLDEST:
            commit_price(store, session, close)
    return store


def add_oldest(store: Store) -> None:
    for session in OLDEST:
        commit_price(store, session, DAYS[session])


def test_a_model_retrained_on_more_sessions_stands_beside_the_first(history: Store, trainer: Run) -> None:
    first = trainer(*TRAIN)[2]
    add_oldest(history)
    code, output, second = trainer(*TRAIN)
    assert (code, revision(second)) == (0, 2)
    assert "revision 2: the history changed: prices: committed" in output
    reason = get_manifest(second).reason
    assert f"sessions: committed 150 from {list(DAYS)[10]} to 2026-01-15, now 160 from {OLDEST[0]} to 2026-01-15" in reason
    assert get_manifest(first).rows == 150 and get_manifest(second).rows == 160
    again = trainer(*TRAIN)
    assert (again[2]["manifest"], "already committed" in again[1]) == (second["manifest"], True)


def test_a_model_retrained_on_revised_prices_stands_beside_the_first(history: Store, trainer: Run) -> None:
    trainer(*TRAIN)
    commit_price(history, list(DAYS)[50], 1010.0, revision=2)
    assert revision(trainer(*TRAIN)[2]) == 2


def test_prices_that_were_remade_without_a_change_do_not_retrain(history: Store, trainer: Run) -> None:
    first = trainer(*TRAIN)[2]
    day = list(DAYS)[50]
    commit_price(history, day, DAYS[day], revision=2)
    code, output, second = trainer(*TRAIN)
    assert (code, second["manifest"], "epoch" in output) == (0, first["manifest"], False)


def test_the_plot_follows_the_latest_model(history: Store, trainer: Run) -> None:
    trainer(*TRAIN)
    first = trainer(*PLOT)[2]
    commit_price(history, list(DAYS)[50], 1010.0, revision=2)
    retrained = trainer(*TRAIN)[2]
    code, _, second = trainer(*PLOT)
    [forecast] = [file for file in get_manifest(retrained).files if file.name == "forecast.json"]
    assert (code, get_manifest(second).inputs["forecast"]) == (0, forecast.sha256)
    assert second["manifest"] != first["manifest"] and get_manifest(first).step == "plot"
    assert trainer(*PLOT)[2]["manifest"] == second["manifest"]


@pytest.mark.parametrize("step", [TRAIN, PLOT])
def test_a_remake_is_a_revision_and_is_repeated_without_effect(step: tuple[str, ...], history: Store, trainer: Run) -> None:
    trainer(*TRAIN)
    first = trainer(*step)[2]
    code, output, remade = trainer(*step, "--remake", "a new font")
    assert (code, revision(remade), "revision 2: a new font" in output) == (0, 2, True)
    code, output, again = trainer(*step, "--remake", "a new font")
    assert (code, again["manifest"], "epoch" in output) == (0, remade["manifest"], False)
    assert [file.sha256 for file in get_manifest(first).files] == [file.sha256 for file in get_manifest(remade).files]


def test_a_damaged_model_exits_65_until_it_is_remade(history: Store, trainer: Run) -> None:
    damaged = trainer(*TRAIN)[2]
    history.replace(str(damaged["manifest"]).removeprefix(f"{history.root}/"), b"{")
    for step in (TRAIN, PLOT):
        code, output, _ = trainer(*step)
        assert (code, "run its step again with --remake REASON" in output) == (65, True)
    assert trainer(*TRAIN, "--remake", "damaged")[0] == trainer(*PLOT)[0] == 0


def test_a_past_result_is_reproduced_after_prices_were_added_and_revised(history: Store, trainer: Run) -> None:
    first = trainer(*TRAIN)[2]
    plotted = trainer(*PLOT)[2]
    time = get_manifest(plotted).created.isoformat()
    commit_price(history, list(DAYS)[50], 1010.0, revision=2)
    commit_price(history, list(DAYS)[-1], 1003.0, revision=2)
    add_oldest(history)
    latest = trainer(*TRAIN)[2]
    code, output, reproduced = trainer(*TRAIN, "--as-of", time)
    assert (code, "Not promoted (" in output) == (0, True)
    assert get_manifest(reproduced).inputs["sessions"] == get_manifest(first).inputs["sessions"]
    for name in ("model.safetensors", "forecast.json", "metrics.json"):
        assert read_file(reproduced, name) == read_file(first, name) != read_file(latest, name)
    assert read_file(trainer(*PLOT, "--as-of", time)[2], "forecast.png") == read_file(plotted, "forecast.png")
    assert trainer(*TRAIN)[2]["manifest"] == latest["manifest"], "what is reproduced is not what readers use"
    assert trainer(*PLOT)[0] == 0


def test_a_reproduced_model_is_none_of_the_models_that_others_read(history: Store, trainer: Run) -> None:
    time = get_manifest(trainer(*TRAIN)[2]).created.isoformat()
    models, session = history.list("models"), list(DAYS)[-10]
    code, _, reproduced = trainer("train", "--session", str(session), "--as-of", time)
    assert (code, "/pinned-models/" in str(reproduced["manifest"]), history.list("models")) == (0, True, models)
    assert trainer(*PLOT)[2]["facts"]["past_forecasts"] == trainer(*PLOT, "--as-of", time)[2]["facts"]["past_forecasts"]
    assert trainer("plot", "--session", str(session), "--as-of", time)[0] == 0
    assert trainer("plot", "--session", str(session))[0] == 65


def test_a_time_before_all_revisions_exits_65(history: Store, trainer: Run) -> None:
    code, output, _ = trainer(*TRAIN, "--as-of", "2020-01-01T00:00:00Z")
    assert (code, "committed by 2020-01-01T00:00:00+00:00" in output) == (65, True)
    assert trainer(*TRAIN, "--as-of", "2020-01-01")[0] == 78


def change_schema(store: Store, session: date, version: int) -> None:
    path = f"{paths.prices('KS11', session)}/{paths.MANIFEST}"
    manifest = Manifest.from_json(store.read(path) or b"", path)
    store.replace(path, replace(manifest, schema_version=version).to_json())


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (0, "is no longer read: run collector fetch-prices --session 2026-01-15 --symbol KS11 --remake REASON"),
        (2, "this program reads 1 to 1: upgrade the program"),
    ],
)
def test_prices_of_a_version_that_cannot_be_read_exit_65_with_advice(
    version: int, advice: str, history: Store, trainer: Run
) -> None:
    change_schema(history, date(2026, 1, 15), version)
    code, output, _ = trainer(*TRAIN)
    assert (code, advice in output) == (65, True)


def test_past_forecasts_are_those_of_the_latest_revisions(history: Store, trainer: Run, tmp_path: Path) -> None:
    trainer("train", "--session", "2025-12-15")
    trainer(*TRAIN)
    before = read_file(trainer(*PLOT)[2], "forecast.png")
    commit_price(history, list(DAYS)[50], 1010.0, revision=2)
    assert revision(trainer("train", "--session", "2025-12-15")[2]) == 2
    assert read_file(trainer(*PLOT)[2], "forecast.png") != before
    [damaged] = (tmp_path / "artifacts" / "models" / "symbol=KS11" / "session=2025-12-15").rglob("revision=2/manifest.json")
    damaged.write_text("{")
    code, output, _ = trainer(*PLOT)
    assert (code, f"Skipping a past forecast: file://{damaged}" in output) == (0, True)
