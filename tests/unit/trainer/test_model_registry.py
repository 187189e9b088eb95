from __future__ import annotations

import json
import math
import multiprocessing
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from step_contract import paths
from step_contract.commit import Committed, Content, commit
from step_contract.errors import NothingToDoError
from step_contract.manifest import Fact
from step_contract.store import Store
from trainer.model_registry import Outcome, Promotion, current_entry, promote, read_entries, roll_back

from .conftest import SMALL_CONFIG, Run, commit_price, on_weekdays

SESSION = date(2026, 1, 15)


def commit_model(store: Store, session: date, beats_baselines: bool = True, config: str = "a") -> Committed:
    facts: dict[str, Fact] = {"beats_baselines": beats_baselines, "evaluation": "Out of sample …"}
    content = Content({"model.safetensors": b"weights"}, 1, 1, facts)
    directory = paths.model("KS11", session, config)
    return commit(store, directory, step="train", session=session, inputs={"session": str(session)}, content=content)


def read_current_model(store: Store) -> dict[str, object]:
    content: dict[str, object] = json.loads(store.read(paths.current_model("KS11")) or b"null")
    return content


@pytest.fixture(params=["folder", "bucket"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/artifacts" if request.param == "folder" else request.getfixturevalue("s3"))


def promote_model(store: Store, model: Committed) -> Promotion:
    return promote(store, "KS11", model.manifest.session, model)


def test_model_with_significant_improvement_becomes_current(any_store: Store) -> None:
    without_skill = commit_model(any_store, SESSION - timedelta(days=14), False)
    rejected = promote_model(any_store, without_skill)
    assert rejected.outcome is Outcome.NOT_PROMOTED and "there is no current model" in rejected.explanation
    assert read_current_model(any_store) is None
    model = commit_model(any_store, SESSION)
    assert promote_model(any_store, model) == (Outcome.PROMOTED, "Promoted to current model.")
    assert any_store.uri(str(read_current_model(any_store)["model"])) == model.uri
    rejected = promote_model(any_store, commit_model(any_store, SESSION + timedelta(days=17), False))
    assert f"the current model remains that of {SESSION}" in rejected.explanation
    assert promote_model(any_store, model) == (Outcome.ALREADY_CURRENT, "Already the current model.")
    assert len(read_entries(any_store, "KS11")) == 1


def test_roll_back_restores_the_previous_model_permanently(any_store: Store) -> None:
    models = []
    for number in range(2):
        models.append(commit_model(any_store, SESSION + timedelta(days=number)))
        promote_model(any_store, models[-1])
    assert roll_back(any_store, "KS11", "a reason") == f"Rolled back; the current model is that of {SESSION}."
    assert any_store.uri(str(read_current_model(any_store)["model"])) == models[0].uri
    rejected = promote_model(any_store, models[1])
    assert rejected.outcome is Outcome.NOT_PROMOTED and "rolled back earlier" in rejected.explanation
    assert roll_back(any_store, "KS11", "another") == "Rolled back; there is no current model."
    assert read_current_model(any_store)["model"] is None
    actions = [entry.action for entry in read_entries(any_store, "KS11")]
    assert actions == ["promoted", "promoted", "rolled back", "rolled back"]


def test_model_of_an_earlier_session_does_not_replace_a_later_one(any_store: Store) -> None:
    later, earlier = commit_model(any_store, SESSION), commit_model(any_store, SESSION - timedelta(days=14))
    promote_model(any_store, later)
    rejected = promote_model(any_store, earlier)
    assert rejected.outcome is Outcome.NOT_PROMOTED and "older than the current model" in rejected.explanation
    assert any_store.uri(str(read_current_model(any_store)["model"])) == later.uri


def test_backfilled_model_is_not_promoted_after_an_unpromoted_later_one(any_store: Store) -> None:
    later = commit_model(any_store, SESSION, False)
    promote_model(any_store, later)
    rejected = promote_model(any_store, commit_model(any_store, date(2019, 1, 15)))
    assert rejected.outcome is Outcome.NOT_PROMOTED
    assert f"a model of a later session was trained: {later.uri}" in rejected.explanation
    assert "there is no current model" in rejected.explanation
    assert read_entries(any_store, "KS11") == []


def test_later_model_of_another_configuration_prevents_a_promotion(store: Store) -> None:
    later = commit_model(store, SESSION, False, config="b")
    assert later.uri in promote_model(store, commit_model(store, date(2019, 1, 15))).explanation


def test_later_model_with_a_damaged_manifest_prevents_a_promotion(store: Store) -> None:
    later = commit_model(store, SESSION, False)
    store.replace(later.uri.removeprefix(f"{store.root}/"), b"{")
    assert later.uri in promote_model(store, commit_model(store, date(2019, 1, 15))).explanation


def test_later_model_that_was_rolled_back_prevents_a_promotion(store: Store) -> None:
    later = commit_model(store, SESSION)
    promote_model(store, later)
    roll_back(store, "KS11", "a reason")
    assert later.uri in promote_model(store, commit_model(store, date(2019, 1, 15))).explanation
    assert read_current_model(store)["model"] is None


def test_uncommitted_later_training_does_not_prevent_a_promotion(store: Store) -> None:
    directory = paths.model("KS11", SESSION, "a")
    store.write(f"{directory}/attempt=1/model.safetensors", b"weights")
    store.write(f"{paths.model('KQ11', SESSION, 'a')}/manifest.json", b"another symbol's")
    assert promote_model(store, commit_model(store, date(2019, 1, 15))).outcome is Outcome.PROMOTED


def test_other_model_of_the_same_session_is_promoted_once(store: Store) -> None:
    first = commit_model(store, SESSION)
    promote_model(store, first)
    second = commit_model(store, SESSION, config="b")
    assert promote_model(store, second).outcome is Outcome.PROMOTED
    rejected = promote_model(store, first)
    assert (rejected.outcome, "replaced by the current model" in rejected.explanation) == (Outcome.NOT_PROMOTED, True)


class StoreWithConcurrentWriter(Store):
    """A store in which another program writes, once, just before an object with the suffix `.json` is created."""

    def __init__(self, root: str, write: Callable[[], object]) -> None:
        super().__init__(root)
        self.pending = [write]

    def create(self, path: str, data: bytes) -> bool:
        if path.startswith(paths.promotions("KS11")) and self.pending:
            self.pending.pop()()
        return super().create(path, data)


def test_model_is_withdrawn_if_a_later_one_was_committed_meanwhile(store: Store) -> None:
    before = commit_model(store, date(2018, 1, 15))
    promote_model(store, before)
    backfilled = commit_model(store, date(2019, 1, 15))
    racing = StoreWithConcurrentWriter(store.root, lambda: commit_model(store, SESSION, False))
    rejected = promote_model(racing, backfilled)
    assert rejected.outcome is Outcome.NOT_PROMOTED
    assert "a model of a later session was trained meanwhile" in rejected.explanation
    assert "the current model remains that of 2018-01-15" in rejected.explanation
    assert store.uri(str(read_current_model(store)["model"])) == before.uri
    assert read_entries(store, "KS11")[-1].action == "rolled back"
    assert "rolled back earlier" in promote_model(store, backfilled).explanation


def test_withdrawal_keeps_the_later_model_that_was_promoted_meanwhile(store: Store) -> None:
    def train_later() -> None:
        promote_model(store, commit_model(store, SESSION))

    backfilled = commit_model(store, date(2019, 1, 15))
    rejected = promote_model(StoreWithConcurrentWriter(store.root, train_later), backfilled)
    assert (rejected.outcome, read_current_model(store)["session"]) == (Outcome.NOT_PROMOTED, SESSION.isoformat())


def train_in_process(root: str, session: date, beats_baselines: bool) -> tuple[date, float, float, str]:
    """Commit and promote a model; return its session, when it was committed, when the promotion began, and its outcome."""
    store = Store(root)
    model = commit_model(store, session, beats_baselines)
    committed = time.monotonic()
    return session, committed, time.monotonic(), promote_model(store, model).outcome


@pytest.mark.slow
def test_processes_out_of_order_promote_no_model_after_a_later_one_was_trained(tmp_path: Path) -> None:
    """The clock of all processes of a machine is the same."""
    generator = random.Random(20190115)  # noqa: S311
    with ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
        for number in range(5):
            store = Store(f"file://{tmp_path}/{number}")
            sessions = [SESSION + timedelta(days=day) for day in range(12)]
            generator.shuffle(sessions)
            futures = [pool.submit(train_in_process, store.root, day, generator.random() < 0.7) for day in sessions]
            trained = [future.result() for future in futures]
            promoted = [(session, started) for session, _, started, outcome in trained if outcome == Outcome.PROMOTED]
            for session, started in promoted:
                assert not [day for day, committed, _, _ in trained if day > session and committed < started]
            entries = read_entries(store, "KS11")
            assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
            current = current_entry(entries)
            assert {entry.session for entry in entries} >= {session.isoformat() for session, _ in promoted}
            expected = max((session.isoformat() for session, _ in promoted), default=None)
            assert (current.session if current else None) == expected
            assert (read_current_model(store) or {"session": None}).get("session") == expected


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


def test_two_people_who_roll_back_one_model_roll_back_no_other(store: Store) -> None:
    for number in range(2):
        promote_model(store, commit_model(store, SESSION + timedelta(days=number)))
    racing = StoreWithConcurrentWriter(store.root, lambda: roll_back(store, "KS11", "it follows the index"))
    with pytest.raises(
        NothingToDoError, match=f"rolled back or replaced meanwhile; the current model is that of {SESSION}: run"
    ):
        roll_back(racing, "KS11", "follows the index down")
    assert [entry.action for entry in read_entries(store, "KS11")] == ["promoted", "promoted", "rolled back"]


class StoreThatLosesResponses(Store):
    """A store whose client has repeated a PUT, as its first response was lost, and was refused."""

    def create(self, path: str, data: bytes) -> bool:
        super().create(path, data)
        return False


def test_a_lost_response_makes_no_second_entry(store: Store) -> None:
    promote_model(store, commit_model(store, SESSION))
    losing = StoreThatLosesResponses(store.root)
    assert promote_model(losing, commit_model(store, SESSION + timedelta(days=1))).outcome is Outcome.PROMOTED
    assert roll_back(losing, "KS11", "a reason") == f"Rolled back; the current model is that of {SESSION}."
    assert [entry.action for entry in read_entries(store, "KS11")] == ["promoted", "promoted", "rolled back"]


@pytest.mark.parametrize(
    ("reason", "problem"),
    [(" ", "the reason is empty"), ("x" * 501, "at most 500 are allowed"), ("a\x1b[2J", "cannot be printed")],
)
def test_an_invalid_reason_rolls_nothing_back(reason: str, problem: str, store: Store, trainer: Run) -> None:
    promote_model(store, commit_model(store, SESSION))
    code, output, _ = trainer("rollback", "--reason", reason)
    assert (code, problem in output) == (78, True)
    assert trainer("rollback", "--reason", "it\nfollows the index")[0] == 0
    assert [entry.reason for entry in read_entries(store, "KS11")] == ["Out of sample …", "it follows the index"]


def test_a_pinned_model_does_not_prevent_a_promotion(store: Store) -> None:
    """It reproduces a past result: whoever trains one for a later session trains no candidate."""
    pinned = paths.model("KS11", SESSION + timedelta(days=30), "b", pinned=True)
    store.write(f"{pinned}/manifest.json", b"{")
    assert promote_model(store, commit_model(store, SESSION)).outcome is Outcome.PROMOTED


def test_random_walk_gives_no_current_model(store: Store, trainer: Run) -> None:
    returns = np.random.default_rng(1).normal(0, 0.01, 400)
    for day, close in on_weekdays(list(1000 * np.exp(np.cumsum(returns)))).items():
        commit_price(store, day, float(close))
    code, output, _ = trainer("train", "--session", "2026-01-15")
    assert (code, "Not promoted (improvement not significant)" in output) == (0, True)
    assert "No significant improvement over the naive and drift forecasts" in output
    assert store.read(paths.current_model("KS11")) is None


def commit_revision(store: Store, number: int, beats_baselines: bool = True) -> Committed:
    """Commit a revision of the model of SESSION."""
    facts: dict[str, Fact] = {"beats_baselines": beats_baselines, "evaluation": f"Out of sample, {number}"}
    content = Content({"model.safetensors": b"weights"}, 1, 1, facts)
    directory = paths.revision(paths.model("KS11", SESSION, "a"), number)
    return commit(store, directory, step="train", session=SESSION, inputs={"history": str(number)}, content=content)


def test_a_retrained_model_replaces_its_predecessor_by_the_same_rule(any_store: Store) -> None:
    promote_model(any_store, commit_revision(any_store, 1))
    promotion = promote_model(any_store, commit_revision(any_store, 2))
    assert promotion == (Outcome.PROMOTED, "Promoted to current model; it replaces its revision 1.")
    assert "/revision=2/" in str(read_current_model(any_store)["model"])
    assert [entry.reason for entry in read_entries(any_store, "KS11")] == ["Out of sample, 1", "Out of sample, 2"]
    assert roll_back(any_store, "KS11", "a reason") == f"Rolled back; the current model is that of {SESSION}."


def test_a_retrained_model_without_skill_leaves_its_predecessor_and_says_so(store: Store) -> None:
    promote_model(store, commit_revision(store, 1))
    rejected = promote_model(store, commit_revision(store, 2, beats_baselines=False))
    assert rejected.outcome is Outcome.NOT_PROMOTED
    assert "an earlier revision of it is current: run trainer rollback if it should not be" in rejected.explanation
    assert "/revision=" not in str(read_current_model(store)["model"])


def test_a_retrained_model_is_promoted_after_its_predecessor_was_rolled_back(store: Store) -> None:
    promote_model(store, commit_revision(store, 1))
    roll_back(store, "KS11", "trained on a wrong close")
    promotion = promote_model(store, commit_revision(store, 2))
    assert promotion.explanation == ("Promoted to current model; its revision 1 was rolled back (trained on a wrong close).")
    rejected = promote_model(store, commit_model(store, SESSION - timedelta(days=14)))
    assert f"the current model remains that of {SESSION}, revision 2" in rejected.explanation


def test_an_earlier_revision_is_not_promoted_after_a_later_one_was_trained(store: Store) -> None:
    first, last = commit_revision(store, 2), commit_revision(store, 10, beats_baselines=False)
    rejected = promote_model(store, first)
    assert (rejected.outcome, f"a later revision of the model was trained: {last.uri}" in rejected.explanation) == (
        Outcome.NOT_PROMOTED,
        True,
    )


def test_a_model_is_withdrawn_if_it_was_retrained_meanwhile(store: Store) -> None:
    first = commit_revision(store, 1)
    racing = StoreWithConcurrentWriter(store.root, lambda: commit_revision(store, 2, beats_baselines=False))
    rejected = promote_model(racing, first)
    assert "a later revision of the model was trained meanwhile" in rejected.explanation
    assert read_current_model(store)["model"] is None
