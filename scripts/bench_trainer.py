"""Measure the trainer: its loop compared with plain PyTorch, the time to the first step, and the memory of a training.

Runs in the virtual environment trainer, on all sessions of the sample. See `make bench`.
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
from devtools.commands import ROOT
from step_contract.commit import open_artifact
from step_contract.store import Store
from torch import nn
from trainer.checkpoint import Checkpoints
from trainer.configuration import DEFAULT, Configuration, read_configuration
from trainer.fit import fit, pinball_loss
from trainer.model import MODELS
from trainer.partitions import committed
from trainer.recipe import Recipe
from trainer.samples import Array, Scaler, log_returns, origins, targets, windows
from trainer.train import train

SAMPLE = ROOT / "data" / "krx" / "index"
SYMBOL, FIRST, LAST = "KS11", date(1995, 5, 2), date(2026, 3, 20)
ROUNDS, CHECKPOINT_STEPS = 5, 200
FIRST_STEP = """
import os, sys, time
started = time.perf_counter()
from datetime import date
from step_contract.store import Store
from trainer.configuration import DEFAULT, read_configuration
from trainer.recipe import Recipe
from trainer.train import train

reading = 0.0
def timed(function):
    def call(*arguments, **options):
        global reading
        call_started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            reading += time.perf_counter() - call_started
    return call

def stop_after_first_step(*_):
    total = time.perf_counter() - started
    print(total - reading, total, flush=True)
    os._exit(0)

import trainer.train as steps
steps.committed, steps.read_closes = timed(steps.committed), timed(steps.read_closes)
from trainer import checkpoint
checkpoint.Checkpoints.after_step = stop_after_first_step
train(Store(sys.argv[1]), "KS11", date.fromisoformat(sys.argv[2]), Recipe(read_configuration(DEFAULT), None), 200)
"""


def read_closes() -> Array:
    """Return the closes of all sessions of the sample, in index points."""
    files = sorted((SAMPLE / f"year_{SYMBOL.lower()}").glob("*.csv"))
    rows = [row for file in files for row in csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines())]
    return np.array([float(row["Close"]) for row in rows])


def fit_plain(returns: Array, at: np.ndarray, configuration: Configuration) -> nn.Module:
    """Fit the same network by a plain PyTorch loop, without log, checkpoints and checks.

    Args:
        returns: daily log returns.
        at: the positions in `returns` that forecasts start from.
    """
    torch.manual_seed(configuration.seed)
    horizon = configuration.horizon
    scaler = Scaler.fit(returns[: at[-1] + horizon])
    network = MODELS[configuration.model](configuration)
    inputs = torch.from_numpy((windows(returns, at, configuration.window) - scaler.mean) / scaler.deviation).float()
    drift = scaler.mean * np.arange(1, horizon + 1)
    labels = torch.from_numpy((targets(returns, at, horizon) - drift) / scaler.units(horizon)).float()
    quantiles = torch.tensor(configuration.quantiles)
    steps = configuration.epochs * math.ceil(len(at) / configuration.batch)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=configuration.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, configuration.learning_rate, total_steps=steps)
    for _ in range(configuration.epochs):
        for batch in torch.randperm(len(at)).split(configuration.batch):
            optimizer.zero_grad()
            pinball_loss(network(inputs[batch]), labels[batch], quantiles).backward()
            optimizer.step()
            schedule.step()
    return network


def measure_loops(folder: Path) -> None:
    """Print the ratio of a fit's duration to the plain loop's. Exits if their weights differ."""
    configuration = replace(read_configuration(DEFAULT), epochs=6)
    returns = log_returns(read_closes())
    at = origins(returns, configuration.window)[: -configuration.horizon]

    def fit_with_trainer(number: int) -> nn.Module:
        checkpoints = Checkpoints(Store(f"file://{folder}"), f"checkpoints/{number}", CHECKPOINT_STEPS)
        return fit(returns, at, configuration, "fit", checkpoints).network

    fit_with_trainer(-1), fit_plain(returns, at, configuration)
    pairs = []
    for number in range(ROUNDS):
        started = time.perf_counter()
        trained = fit_with_trainer(number)
        between = time.perf_counter()
        plain = fit_plain(returns, at, configuration)
        pairs.append((between - started, time.perf_counter() - between))
        same = all(torch.equal(left, right) for left, right in zip(trained.parameters(), plain.parameters(), strict=True))
        if not same:
            sys.exit("the two loops give different weights, so their durations cannot be compared")
    ratio = statistics.median(trainer / plain for trainer, plain in pairs)
    trainer, plain = (statistics.median(durations) for durations in zip(*pairs, strict=True))
    print(f"fit of {len(at)} samples, {configuration.epochs} epochs: {trainer:.2f} s, plain PyTorch {plain:.2f} s, ", end="")
    print(f"{ratio:.3f} times as long (at most 1.05), with the same weights")


def measure_training(folder: Path) -> None:
    """Print the time from the first import to the first step, and the memory of a training, on all sessions."""
    url = f"file://{SAMPLE}/year_{{symbol}}/{{year}}.csv"
    command = [str(ROOT / ".venvs" / "collector" / "bin" / "collector"), "fetch-prices", "--prices-url", url]
    command += ["--from", str(FIRST), "--to", str(LAST), "--artifacts", f"file://{folder}"]
    subprocess.run(command, check=True, capture_output=True)
    store = Store(f"file://{folder}")
    count = len(committed(store, SYMBOL, LAST).sessions)
    durations = []
    for _ in range(ROUNDS):
        completed = subprocess.run(
            [sys.executable, "-c", FIRST_STEP, f"file://{folder}", str(LAST)], capture_output=True, text=True
        )
        durations.append([float(figure) for figure in completed.stdout.split()])
    without_reading, total = (statistics.median(seconds) for seconds in zip(*durations, strict=True))
    print(f"import to first step: {without_reading:.2f} s (at most 3); with reading {count} sessions: {total:.2f} s")
    recipe = Recipe(replace(read_configuration(DEFAULT), epochs=1), None)
    facts = open_artifact(train(store, SYMBOL, LAST, recipe, CHECKPOINT_STEPS).uri)[0].facts
    print(f"peak memory of a training: {facts['peak_memory_mib']} MiB (at most 1024), with {facts['threads']} threads")


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        measure_loops(Path(temporary))
        measure_training(Path(temporary))
