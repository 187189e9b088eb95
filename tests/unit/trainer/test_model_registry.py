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
from trainer.model_registry import current, promote, read_entries, roll_back

from .conftest import SMALL, Run, put, weekdays

DAY = date(2026, 1, 15)


def model(store: Store, session: date, beats: bool = True) -> Committed:
    facts: dict[str, Fact] = {"beats_baselines": beats, "in_words": "Out of sample …"}
    content = Content({"model.safetensors": b"weights"}, 1, 1, facts)
    directory = paths.model("KS11", session, "a")
    return commit(store, directory, step="train", session=session, inputs={"session": str(session)}, content=content)


def pointed_at(store: Store) -> dict[str, object]:
    found: dict[str, object] = json.loads(store.read(paths.current_model("KS11")) or b"null")
    return found


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/artifacts" if request.param == "folder" else request.getfixturevalue("s3"))


def test_a_model_that_beats_naive_becomes_current_and_one_that_does_not_leaves_it(place: Store) -> None:
    first, second = model(place, DAY), model(place, DAY + timedelta(days=17), beats=False)
    assert "there is still no current model" in promote(place, "KS11", second.manifest.session, second)
    assert pointed_at(place) is None
    assert promote(place, "KS11", DAY, first) == "promoted: it is the current one"
    assert place.uri(str(pointed_at(place)["model"])) == first.uri
    assert f"the current model stays that of {DAY}" in promote(place, "KS11", second.manifest.session, second)
    assert promote(place, "KS11", DAY, first) == "the current one"
    assert len(read_entries(place, "KS11")) == 1


def test_a_roll_back_goes_to_the_one_before_and_holds(place: Store) -> None:
    models = [model(place, DAY + timedelta(days=number)) for number in range(2)]
    for one in models:
        promote(place, "KS11", one.manifest.session, one)
    assert roll_back(place, "KS11", "it is odd") == f"rolled back: the current model is that of {DAY}"
    assert place.uri(str(pointed_at(place)["model"])) == models[0].uri
    assert "as it was rolled back" in promote(place, "KS11", models[1].manifest.session, models[1])
    assert roll_back(place, "KS11", "this too") == "rolled back: no model is current"
    assert pointed_at(place)["model"] is None
    assert [move.done for move in read_entries(place, "KS11")] == ["promoted", "promoted", "rolled back", "rolled back"]


def test_a_model_of_an_earlier_session_does_not_take_the_place_of_a_later_one(place: Store) -> None:
    later, earlier = model(place, DAY), model(place, DAY - timedelta(days=14))
    promote(place, "KS11", DAY, later)
    assert "as it is older" in promote(place, "KS11", earlier.manifest.session, earlier)
    assert place.uri(str(pointed_at(place)["model"])) == later.uri


@pytest.mark.slow
def test_of_trainers_at_once_each_moves_in_turn_and_the_pointer_says_where_it_ended(place: Store) -> None:
    models = [model(place, DAY + timedelta(days=number)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: promote(Store(place.root), "KS11", one.manifest.session, one), models))
    moves = read_entries(place, "KS11")
    assert [move.number for move in moves] == list(range(1, len(moves) + 1))
    now = current(moves)
    assert now and now.session == str(models[-1].manifest.session)
    assert pointed_at(place)["model"] == now.model


def test_a_damaged_promotion_is_told(tmp_path: Path, trainer: Run) -> None:
    store = Store(f"file://{tmp_path}/artifacts")
    promote(store, "KS11", DAY, model(store, DAY))
    store.replace(f"{paths.promotions('KS11')}/000001.json", b"{")
    code, shown, _ = trainer("history")
    assert (code, "000001.json is no promotion" in shown) == (65, True)


@pytest.mark.slow
def test_training_says_what_became_of_the_model_and_history_lists_it(store: Store, trainer: Run, tmp_path: Path) -> None:
    longer = SMALL.replace("epochs = 2", "epochs = 20").replace("channels = 4", "channels = 8")
    (tmp_path / "model.toml").write_text(longer)
    generator = np.random.default_rng(0)
    swing = 0.02 * np.sin(np.arange(600) * 2 * math.pi / 8) + generator.normal(0, 0.002, 600)
    for day, close in weekdays(list(1000 * np.exp(np.cumsum(swing)))).items():
        put(store, day, float(close))
    code, shown, result = trainer("train", "--session", "2026-01-15")
    assert (code, result["facts"]["promotion"]) == (0, "promoted: it is the current one")
    code, shown, _ = trainer("history")
    assert (code, "*    1" in shown, "the current model is that of 2026-01-15" in shown) == (0, True, True)
    assert trainer("rollback", "--why", "a try")[0] == 0
    assert trainer("rollback", "--why", "a try")[0] == 99
    assert "no model is current" in trainer("history")[1]


def test_a_random_walk_leaves_no_current_model(store: Store, trainer: Run) -> None:
    steps = np.random.default_rng(1).normal(0, 0.01, 400)
    for day, close in weekdays(list(1000 * np.exp(np.cumsum(steps)))).items():
        put(store, day, float(close))
    code, shown, _ = trainer("train", "--session", "2026-01-15")
    assert (code, "Not promoted, as it does not beat repeating the last close and the drift beyond noise" in shown) == (0, True)
    assert store.read(paths.current_model("KS11")) is None
