"""A training that is interrupted at any moment ends with the same bytes as one that is not."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import pytest
from step_contract import paths
from step_contract.cli import run_step
from step_contract.commit import open_artifact
from step_contract.store import Store
from trainer.checkpoint import State
from trainer.cli import build_parser

from .conftest import SMALL, Run, StepResult, put, real_closes

pytestmark = pytest.mark.slow

TRAIN = ("train", "--session", "2026-01-15", "--checkpoint-steps", "3")
LONGER = SMALL.replace("epochs = 2", "epochs = 8").replace("batch = 64", "batch = 32")


@pytest.fixture
def prices(store: Store, trainer: Run, tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    """A store with the real sessions of 2025 up to 15 January 2026, and a configuration that takes a second or two."""
    # Torch's other threads do not come along into a process that is forked, and it would wait for them for ever.
    if hasattr(os, "sched_setaffinity"):
        request.addfinalizer(partial(os.sched_setaffinity, 0, os.sched_getaffinity(0)))
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    for session, close in real_closes(2025, 2026).items():
        if session <= date(2026, 1, 15):
            put(store, session, close)
    (tmp_path / "model.toml").write_text(LONGER)
    return store


def files(result: StepResult) -> dict[str, bytes]:
    return open_artifact(str(result["manifest"]))[1]


@pytest.fixture
def reference(prices: Store, trainer: Run, tmp_path: Path) -> dict[str, bytes]:
    """The files of a training that was left alone."""
    made = files(trainer(*TRAIN)[2])
    shutil.rmtree(tmp_path / "artifacts" / "models")
    return made


class Child:
    """A training in a process of its own, forked, so that torch need not be loaded again."""

    def __init__(self, log: Path) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            code = 70
            try:
                code = run_step(build_parser, TRAIN)
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                os._exit(code)

    def ended(self) -> int | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[[], Child]]:
    yield lambda: Child(tmp_path / "log")


def checkpoints(store: Store) -> list[str]:
    return [name for name in store.list("checkpoints") if name.endswith(".safetensors")]


def steps(store: Store) -> int:
    """The steps after which the last checkpoint was written."""
    names = checkpoints(store)
    return int(Path(names[-1]).name.partition("-")[0]) if names else 0


@pytest.mark.timeout(300)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    prices: Store, reference: dict[str, bytes], child: Callable[[], Child], trainer: Run
) -> None:
    moments, kills = random.Random(19800104), 0  # noqa: S311
    while True:
        training, until = child(), steps(prices) + moments.randint(0, 25)
        while steps(prices) <= until and (ended := training.ended()) is None:
            time.sleep(moments.uniform(0, 0.005))
        if ended is not None:
            assert ended == 0
            break
        os.kill(training.pid, signal.SIGKILL)
        training.wait()
        kills += 1
    assert kills >= 5
    code, _, result = trainer(*TRAIN)
    assert (code, files(result)) == (0, reference)
    assert prices.list("checkpoints") == []


def test_told_to_end_it_keeps_its_state_at_once_and_goes_on_from_there(
    prices: Store, reference: dict[str, bytes], child: Callable[[], Child], trainer: Run
) -> None:
    training = child()
    while not checkpoints(prices):
        assert training.ended() is None
    before, told = steps(prices), time.monotonic()
    os.kill(training.pid, signal.SIGTERM)
    assert training.wait() == 143
    assert time.monotonic() - told < 10
    kept = steps(prices)  # the signal may have come while the last checkpoint was written
    assert kept >= before
    code, shown, result = trainer(*TRAIN)
    assert (code, files(result), f"going on from the checkpoint after {kept} steps" in shown) == (0, reference, True)


@pytest.fixture
def left(prices: Store, reference: dict[str, bytes], child: Callable[[], Child]) -> list[str]:
    """The two checkpoints of a training that was killed."""
    training = child()
    while len(checkpoints(prices)) < 2:
        assert training.ended() is None
    os.kill(training.pid, signal.SIGKILL)
    training.wait()
    return checkpoints(prices)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, b"torn"], ids=["empty", "nothing", "torn"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: bytes, prices: Store, left: list[str], reference: dict[str, bytes], trainer: Run
) -> None:
    whole = prices.read(left[-1]) or b""
    prices.write(left[-1], damage if damage != b"torn" else whole[: len(whole) // 2])
    code, shown, result = trainer(*TRAIN)
    assert (code, "is damaged and passed over" in shown, "going on from" in shown) == (0, True, True)
    assert files(result) == reference


def test_what_another_configuration_or_other_prices_have_left_is_not_used(
    prices: Store, left: list[str], trainer: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.toml").write_text(LONGER.replace("seed = 1", "seed = 2"))
    assert "going on from" not in trainer(*TRAIN)[1]
    (tmp_path / "model.toml").write_text(LONGER)
    put(prices, date(2026, 1, 14), 1000.0, revision=2)
    assert "going on from" not in trainer(*TRAIN)[1]
    assert set(left) <= set(checkpoints(prices))


def test_checkpoints_are_in_the_bucket_too(
    s3: str,
    prices: Store,
    reference: dict[str, bytes],
    trainer: Run,
    child: Callable[[], Child],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = Store(s3)
    for name in prices.list(paths.prices_root("KS11")):
        bucket.write(name, prices.read(name) or b"")
    monkeypatch.setenv("ARTIFACTS", s3)
    code, _, result = trainer(*TRAIN)
    assert (code, files(result)) == (0, reference)
    assert bucket.list("checkpoints") == []


def test_a_training_that_diverges_says_where_and_leaves_its_last_good_state(
    prices: Store, trainer: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.toml").write_text(LONGER.replace("learning_rate = 0.01", "learning_rate = 3.0"))
    code, shown, _ = trainer(*TRAIN)
    assert code == 65
    found = re.search(r"the training diverged, the loss is (\S+) in step (\d+) of epoch (\d+): lower learning_rate", shown)
    assert found and math.isfinite(float(found.group(1)))
    kept = State.from_bytes(prices.read(checkpoints(prices)[-1]) or b"")
    assert kept.name == "fold 1 of 2"
    assert all(one.isfinite().all() for one in kept.tensors.values())
    assert trainer(*TRAIN)[0] == 65, "nor does it go on from there to a model"
    assert not (tmp_path / "artifacts" / "models").exists()
