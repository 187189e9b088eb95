"""A training that is interrupted at any moment gives the same bytes as one that is not."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import pytest
import torch
from step_contract import paths
from step_contract.cli import run_step
from step_contract.commit import open_artifact
from step_contract.store import Store
from trainer.checkpoint import Checkpoint, CheckpointManager
from trainer.cli import build_parser

from .conftest import SMALL_CONFIG, Run, StepResult, commit_price, real_closes

pytestmark = pytest.mark.slow

TRAIN = ("train", "--session", "2026-01-15", "--checkpoint-steps", "3")
LONG_CONFIG = SMALL_CONFIG.replace("epochs = 2", "epochs = 8").replace("batch_size = 64", "batch_size = 32")


@pytest.fixture
def prices(store: Store, trainer: Run, tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    """A store with the sessions of 2025 up to 15 January 2026, and a configuration that trains for a second or two."""
    # Torch's other threads do not exist in a forked process, which would wait for them forever.
    if hasattr(os, "sched_setaffinity"):
        request.addfinalizer(partial(os.sched_setaffinity, 0, os.sched_getaffinity(0)))
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    for session, close in real_closes(2025, 2026).items():
        if session <= date(2026, 1, 15):
            commit_price(store, session, close)
    (tmp_path / "model.toml").write_text(LONG_CONFIG)
    return store


def read_files(result: StepResult) -> dict[str, bytes]:
    """Return the model's files, without the list of its prices: each test has committed these at another time."""
    files = open_artifact(str(result["manifest"]))[1]
    del files["prices.sha256"]
    return files


@pytest.fixture(scope="module")
def trained() -> dict[str, bytes]:
    """What the first `reference` has trained."""
    return {}


@pytest.fixture
def reference(prices: Store, trainer: Run, tmp_path: Path, trained: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a training that was not interrupted."""
    if not trained:
        trained.update(read_files(trainer(*TRAIN)[2]))
        shutil.rmtree(tmp_path / "artifacts" / "models")
    return trained


class TrainingProcess:
    """A training in a forked process, which need not import torch again."""

    def __init__(self, log: Path) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            code = 70
            try:
                code = run_step(build_parser, TRAIN)
            except SystemExit as error:
                code = int(error.code or 0)
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def start_training(tmp_path: Path) -> Callable[[], TrainingProcess]:
    return lambda: TrainingProcess(tmp_path / "log")


def list_checkpoints(store: Store) -> list[str]:
    return [name for name in store.list("checkpoints") if name.endswith(".safetensors")]


def latest_step(store: Store) -> int:
    """Return the step of the latest checkpoint."""
    names = list_checkpoints(store)
    return int(Path(names[-1]).name.partition("-")[0]) if names else 0


@pytest.mark.timeout(300)
def test_training_killed_at_random_moments_is_byte_identical(
    prices: Store, reference: dict[str, bytes], start_training: Callable[[], TrainingProcess], trainer: Run
) -> None:
    generator, kills = random.Random(19800104), 0  # noqa: S311
    while True:
        training, until = start_training(), latest_step(prices) + generator.randint(0, 25)
        while latest_step(prices) <= until and (code := training.poll()) is None:
            time.sleep(generator.uniform(0, 0.005))
        if code is not None:
            assert code == 0
            break
        os.kill(training.pid, signal.SIGKILL)
        training.wait()
        kills += 1
    assert kills >= 5
    exit_code, _, result = trainer(*TRAIN)
    assert (exit_code, read_files(result)) == (0, reference)
    assert prices.list("checkpoints") == []


def test_training_resumes_from_the_checkpoint_saved_on_sigterm(
    prices: Store, reference: dict[str, bytes], start_training: Callable[[], TrainingProcess], trainer: Run
) -> None:
    training = start_training()
    while not list_checkpoints(prices):
        assert training.poll() is None
    before, sent = latest_step(prices), time.monotonic()
    os.kill(training.pid, signal.SIGTERM)
    assert training.wait() == 143
    assert time.monotonic() - sent < 10
    saved = latest_step(prices)  # the signal may have arrived while the last checkpoint was written
    assert saved >= before
    code, output, result = trainer(*TRAIN)
    assert (code, read_files(result)) == (0, reference)
    assert f"Resuming from the checkpoint at step {saved}" in output


def test_sigterm_saves_a_checkpoint_after_the_step(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    checkpoints = CheckpointManager(store, "checkpoints", 100)
    with checkpoints.handle_sigterm():
        checkpoints.after_step("fit", lambda: ({}, {}))
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as error:
            checkpoints.after_step("fit", lambda: ({}, {"epoch": 1}))
    assert error.value.code == 143
    assert "Terminated (SIGTERM); checkpoint saved at step 2" in caplog.text
    assert CheckpointManager(store, "checkpoints", 100).latest.values == {"epoch": 1}
    assert "Resuming from the checkpoint at step 2 (fit)" in caplog.text


def test_sigterm_in_a_diverged_training_does_not_claim_a_checkpoint(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    checkpoints = CheckpointManager(store, "checkpoints", 100)
    with checkpoints.handle_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit):
            checkpoints.after_step("fit", lambda: ({"network/weight": torch.tensor([math.nan])}, {"epoch": 1}))
    assert "Terminated (SIGTERM); the training has diverged, so no checkpoint was saved at step 1" in caplog.text
    assert not list_checkpoints(store)


@pytest.fixture
def remaining(prices: Store, reference: dict[str, bytes], start_training: Callable[[], TrainingProcess]) -> list[str]:
    """The two checkpoints of a training that was killed."""
    training = start_training()
    while len(list_checkpoints(prices)) < 2:
        assert training.poll() is None
    os.kill(training.pid, signal.SIGKILL)
    training.wait()
    return list_checkpoints(prices)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, b"truncated"], ids=["empty", "zeros", "truncated"])
def test_damaged_checkpoint_is_skipped(
    damage: bytes, prices: Store, remaining: list[str], reference: dict[str, bytes], trainer: Run
) -> None:
    content = prices.read(remaining[-1]) or b""
    prices.write(remaining[-1], damage if damage != b"truncated" else content[: len(content) // 2])
    code, output, result = trainer(*TRAIN)
    assert (code, "Skipping the damaged checkpoint" in output, "Resuming from" in output) == (0, True, True)
    assert read_files(result) == reference


def test_checkpoints_of_other_configuration_or_prices_are_not_used(
    prices: Store, remaining: list[str], trainer: Run, tmp_path: Path
) -> None:
    (tmp_path / "model.toml").write_text(LONG_CONFIG.replace("seed = 1", "seed = 2"))
    assert "Resuming from" not in trainer(*TRAIN)[1]
    (tmp_path / "model.toml").write_text(LONG_CONFIG)
    commit_price(prices, date(2026, 1, 14), 1000.0, revision=2)
    assert "Resuming from" not in trainer(*TRAIN)[1]
    assert set(remaining) <= set(list_checkpoints(prices))


def test_checkpoints_work_in_a_bucket(
    s3: str, prices: Store, reference: dict[str, bytes], trainer: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Store(s3)
    for name in prices.list(paths.prices_root("KS11")):
        bucket.write(name, prices.read(name) or b"")
    monkeypatch.setenv("ARTIFACTS", s3)
    code, _, result = trainer(*TRAIN, "--checkpoint-steps", "12")  # the simulated bucket is slow
    assert (code, read_files(result)) == (0, reference)
    assert bucket.list("checkpoints") == []


def test_diverged_training_reports_position_and_keeps_last_finite_state(prices: Store, trainer: Run, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(LONG_CONFIG.replace("learning_rate = 0.01", "learning_rate = 3.0"))
    code, output, _ = trainer(*TRAIN)
    assert code == 65
    match = re.search(r"training diverged with loss (\S+) in step (\d+) of epoch (\d+): lower learning_rate", output)
    assert match and math.isfinite(float(match.group(1)))
    checkpoint = Checkpoint.from_bytes(prices.read(list_checkpoints(prices)[-1]) or b"")
    assert checkpoint.fit == "fold 1 of 2"
    assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())
    assert trainer(*TRAIN)[0] == 65, "resuming must not give a model either"
    assert not (tmp_path / "artifacts" / "models").exists()
