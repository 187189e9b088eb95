from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from step_contract import paths
from step_contract.commit import Committed, Content, commit
from step_contract.manifest import Fact
from step_contract.store import Store
from trainer.model_registry import Outcome, current_entry, promote, read_entries, roll_back

from .conftest import SMALL_CONFIG, Run, commit_price, on_weekdays

SESSION = date(2026, 1, 15)


def commit_model(store: Store, session: date, beats_baselines: bool = True) -> Committed:
    facts: dict[str, Fact] = {"beats_baselines": beats_baselines, "evaluation": "Out of sample …"}
    content = Content({"model.safetensors": b"weights"}, 1, 1, facts)
    directory = paths.model("KS11", session, "a")
    return commit(store, directory, step="train", session=session, inputs={"session": str(session)}, content=content)


def read_current_model(store: Store) -> dict[str, object]:
    content: dict[str, object] = json.loads(store.read(paths.current_model("KS11")) or b"null")
    return content


@pytest.fixture(params=["folder", "bucket"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/artifacts" if request.param == "folder" else request.getfixturevalue("s3"))


def test_model_with_significant_improvement_becomes_current(any_store: Store) -> None:
    first, second = commit_model(any_store, SESSION), commit_model(any_store, SESSION + timedelta(days=17), False)
    rejected = promote(any_store, "KS11", second.manifest.session, second)
    assert rejected.outcome is Outcome.NOT_PROMOTED and "there is no current model" in rejected.explanation
    assert read_current_model(any_store) is None
    assert promote(any_store, "KS11", SESSION, first) == (Outcome.PROMOTED, "Promoted to current model.")
    assert any_store.uri(str(read_current_model(any_store)["model"])) == first.uri
    rejected = promote(any_store, "KS11", second.manifest.session, second)
    assert f"the current model remains that of {SESSION}" in rejected.explanation
    assert promote(any_store, "KS11", SESSION, first) == (Outcome.ALREADY_CURRENT, "Already the current model.")
    assert len(read_entries(any_store, "KS11")) == 1


def test_roll_back_restores_the_previous_model_permanently(any_store: Store) -> None:
    models = [commit_model(any_store, SESSION + timedelta(days=number)) for number in range(2)]
    for model in models:
        promote(any_store, "KS11", model.manifest.session, model)
    assert roll_back(any_store, "KS11", "a reason") == f"Rolled back; the current model is that of {SESSION}."
    assert any_store.uri(str(read_current_model(any_store)["model"])) == models[0].uri
    rejected = promote(any_store, "KS11", models[1].manifest.session, models[1])
    assert rejected.outcome is Outcome.NOT_PROMOTED and "rolled back earlier" in rejected.explanation
    assert roll_back(any_store, "KS11", "another") == "Rolled back; there is no current model."
    assert read_current_model(any_store)["model"] is None
    actions = [entry.action for entry in read_entries(any_store, "KS11")]
    assert actions == ["promoted", "promoted", "rolled back", "rolled back"]


def test_model_of_an_earlier_session_does_not_replace_a_later_one(any_store: Store) -> None:
    later, earlier = commit_model(any_store, SESSION), commit_model(any_store, SESSION - timedelta(days=14))
    promote(any_store, "KS11", SESSION, later)
    rejected = promote(any_store, "KS11", earlier.manifest.session, earlier)
    assert rejected.outcome is Outcome.NOT_PROMOTED and "older than the current model" in rejected.explanation
    assert any_store.uri(str(read_current_model(any_store)["model"])) == later.uri


@pytest.mark.slow
def test_concurrent_promotions_are_serialized(any_store: Store) -> None:
    models = [commit_model(any_store, SESSION + timedelta(days=number)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda model: promote(Store(any_store.root), "KS11", model.manifest.session, model), models))
    entries = read_entries(any_store, "KS11")
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    current = current_entry(entries)
    assert current and current.session == str(models[-1].manifest.session)
    assert read_current_model(any_store)["model"] == current.model


def test_damaged_registry_entry_is_reported(tmp_path: Path, trainer: Run) -> None:
    store = Store(f"file://{tmp_path}/artifacts")
    promote(store, "KS11", SESSION, commit_model(store, SESSION))
    store.replace(f"{paths.promotions('KS11')}/000001.json", b"{")
    code, output, _ = trainer("history")
    assert (code, "000001.json is not a valid registry entry" in output) == (65, True)


@pytest.mark.slow
def test_training_reports_the_promotion_and_history_lists_it(store: Store, trainer: Run, tmp_path: Path) -> None:
    longer = SMALL_CONFIG.replace("epochs = 2", "epochs = 20").replace("channels = 4", "channels = 8")
    (tmp_path / "model.toml").write_text(longer)
    generator = np.random.default_rng(0)
    returns = 0.02 * np.sin(np.arange(600) * 2 * math.pi / 8) + generator.normal(0, 0.002, 600)
    for day, close in on_weekdays(list(1000 * np.exp(np.cumsum(returns)))).items():
        commit_price(store, day, float(close))
    code, output, result = trainer("train", "--session", "2026-01-15")
    assert (code, result["facts"]["promotion"], "Promoted to current model." in output) == (0, "promoted", True)
    code, output, _ = trainer("history")
    assert (code, "*    1" in output, "the current model is that of 2026-01-15" in output) == (0, True, True)
    assert trainer("rollback", "--reason", "a try")[0] == 0
    assert trainer("rollback", "--reason", "a try")[0] == 99
    assert "there is no current model" in trainer("history")[1]


def test_random_walk_gives_no_current_model(store: Store, trainer: Run) -> None:
    returns = np.random.default_rng(1).normal(0, 0.01, 400)
    for day, close in on_weekdays(list(1000 * np.exp(np.cumsum(returns)))).items():
        commit_price(store, day, float(close))
    code, output, _ = trainer("train", "--session", "2026-01-15")
    assert (code, "Not promoted (improvement not significant)" in output) == (0, True)
    assert "No significant improvement over the naive and drift forecasts" in output
    assert store.read(paths.current_model("KS11")) is None
