"""What the trainer costs: its loop beside the same one in plain PyTorch, the time to the first step, the memory of a training.

Runs in the environment trainer, on all sessions of the sample. See `make bench`.
"""

from __future__ import annotations

import csv
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from step_contract.commit import open_artifact
from step_contract.store import Store
from torch import nn
from trainer.checkpoint import CheckpointManager
from trainer.config import DEFAULT_CONFIG, ModelConfig, TrainingConfig, read_model_config
from trainer.dataset import Array, Scaler, committed, log_returns, origins, targets, windows
from trainer.fitting import fit, pinball_loss
from trainer.model import MODELS
from trainer.train import train

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "krx" / "index"
SYMBOL, FIRST, LAST = "KS11", date(1995, 5, 2), date(2026, 3, 20)
ROUNDS, EVERY = 5, 200
FIRST_STEP = """
import os, sys, time
began = time.perf_counter()
from datetime import date
from step_contract.store import Store
from trainer.config import DEFAULT_CONFIG, TrainingConfig, read_model_config
from trainer.train import train

reading = 0.0
def timed(what):
    def call(*arguments, **options):
        global reading
        started = time.perf_counter()
        try:
            return what(*arguments, **options)
        finally:
            reading += time.perf_counter() - started
    return call

def first(*_):
    taken = time.perf_counter() - began
    print(taken - reading, taken, flush=True)
    os._exit(0)

import trainer.train as steps
steps.committed, steps.read_closes = timed(steps.committed), timed(steps.read_closes)
from trainer import checkpoint
checkpoint.CheckpointManager.after_step = first
train(Store(sys.argv[1]), "KS11", date.fromisoformat(sys.argv[2]), TrainingConfig(read_model_config(DEFAULT_CONFIG), None), 200)
"""


def sample_closes() -> Array:
    """The closes of all sessions of the sample, in index points."""
    files = sorted((SAMPLE / f"year_{SYMBOL.lower()}").glob("*.csv"))
    rows = [row for file in files for row in csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines())]
    return np.array([float(row["Close"]) for row in rows])


def plain(returns: Array, at: np.ndarray, configuration: ModelConfig) -> nn.Module:
    """The same network fitted by the loop that one would write down: nothing told, nothing kept, nothing checked."""
    torch.manual_seed(configuration.seed)
    horizon = configuration.horizon
    scaler = Scaler.fit(returns[: at[-1] + horizon])
    network = MODELS[configuration.model](configuration)
    seen = torch.from_numpy((windows(returns, at, configuration.window) - scaler.mean) / scaler.deviation).float()
    drift = scaler.mean * np.arange(1, horizon + 1)
    wanted = torch.from_numpy((targets(returns, at, horizon) - drift) / scaler.units(horizon)).float()
    quantiles = torch.tensor(configuration.quantiles)
    steps = configuration.epochs * math.ceil(len(at) / configuration.batch)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=configuration.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, configuration.learning_rate, total_steps=steps)
    for _ in range(configuration.epochs):
        for batch in torch.randperm(len(at)).split(configuration.batch):
            optimizer.zero_grad()
            pinball_loss(network(seen[batch]), wanted[batch], quantiles).backward()
            optimizer.step()
            schedule.step()
    return network


def loops(folder: Path) -> None:
    """Prints how much longer a fit takes than the plain loop, with the same weights at the end."""
    configuration = replace(read_model_config(DEFAULT_CONFIG), epochs=6)
    returns = log_returns(sample_closes())
    at = origins(returns, configuration.window)[: -configuration.horizon]

    def ours(number: int) -> nn.Module:
        kept = CheckpointManager(Store(f"file://{folder}"), f"checkpoints/{number}", EVERY)
        return fit(returns, at, configuration, "fit", kept).network

    ours(-1), plain(returns, at, configuration)
    pairs = []
    for number in range(ROUNDS):
        started = time.perf_counter()
        one = ours(number)
        between = time.perf_counter()
        other = plain(returns, at, configuration)
        pairs.append((between - started, time.perf_counter() - between))
        same = all(torch.equal(left, right) for left, right in zip(one.parameters(), other.parameters(), strict=True))
        if not same:
            sys.exit("the two loops did not end with the same weights: they are no measure of each other")
    ratio = statistics.median(one / other for one, other in pairs)
    mine, theirs = (statistics.median(pair[which] for pair in pairs) for which in (0, 1))
    print(f"fit of {len(at)} samples, {configuration.epochs} epochs: {mine:.2f} s, plain PyTorch {theirs:.2f} s, ", end="")
    print(f"{ratio:.3f} times as long (at most 1.05), with the same weights")


def whole(folder: Path) -> None:
    """Prints the time from the first import to the first step, and the memory of a training, on all sessions."""
    url = f"file://{SAMPLE}/year_{{symbol}}/{{year}}.csv"
    command = [str(ROOT / ".venvs" / "collector" / "bin" / "collector"), "fetch-prices", "--prices-url", url]
    command += ["--from", str(FIRST), "--to", str(LAST), "--artifacts", f"file://{folder}"]
    subprocess.run(command, check=True, capture_output=True)
    store = Store(f"file://{folder}")
    count = len(committed(store, SYMBOL, LAST).sessions)
    taken = []
    for _ in range(ROUNDS):
        shown = subprocess.run(
            [sys.executable, "-c", FIRST_STEP, f"file://{folder}", str(LAST)], capture_output=True, text=True
        )
        taken.append([float(figure) for figure in shown.stdout.split()])
    without, with_all = (statistics.median(figures) for figures in zip(*taken, strict=True))
    print(f"import to first step: {without:.2f} s (at most 3); with {count} sessions read between: {with_all:.2f} s")
    recipe = TrainingConfig(replace(read_model_config(DEFAULT_CONFIG), epochs=1), None)
    facts = open_artifact(train(store, SYMBOL, LAST, recipe, EVERY).uri)[0].facts
    print(f"a training on them held at most {facts['peak_memory_mib']} MiB (at most 1024), with {facts['threads']} threads")


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        loops(Path(temporary))
        whole(Path(temporary))
