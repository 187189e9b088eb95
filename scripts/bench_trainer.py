"""Benchmark the trainer: its training loop against plain PyTorch, the time to the first step, the memory of a training.

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
from trainer.checkpoint import CheckpointManager
from trainer.config import DEFAULT_CONFIG, ModelConfig, TrainingConfig, read_model_config
from trainer.dataset import (
    Array,
    Indexes,
    Scaler,
    cumulative_returns,
    forecast_origins,
    input_windows,
    log_returns,
)
from trainer.fitting import fit, pinball_loss
from trainer.model import MODELS
from trainer.partitions import list_partitions
from trainer.train import train

SAMPLE = ROOT / "data" / "krx" / "index"
SYMBOL, FIRST_SESSION, LAST_SESSION = "KS11", date(1995, 5, 2), date(2026, 3, 20)
ROUNDS, CHECKPOINT_INTERVAL = 5, 200
# Print the seconds from the first import to the first step, without and with reading the prices.
FIRST_STEP = """
import os, sys, time
started = time.perf_counter()
from datetime import date
from step_contract.store import Store
import trainer.train
from trainer import checkpoint
from trainer.config import DEFAULT_CONFIG, TrainingConfig, read_model_config

read_seconds = 0.0
def timed(function):
    def call(*arguments, **options):
        global read_seconds
        call_started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            read_seconds += time.perf_counter() - call_started
    return call

def report(*_):
    seconds = time.perf_counter() - started
    print(seconds - read_seconds, seconds, flush=True)
    os._exit(0)

step = trainer.train
step.list_partitions, step.read_prices = timed(step.list_partitions), timed(step.read_prices)
checkpoint.CheckpointManager.after_step = report
config = TrainingConfig(read_model_config(DEFAULT_CONFIG), None)
step.train(Store(sys.argv[1]), "KS11", date.fromisoformat(sys.argv[2]), config, 200)
"""


def read_sample_closes() -> Array:
    """Return the closes of all sessions of the sample in index points."""
    files = sorted((SAMPLE / f"year_{SYMBOL.lower()}").glob("*.csv"))
    rows = [row for file in files for row in csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines())]
    return np.array([float(row["Close"]) for row in rows])


def fit_plainly(returns: Array, origins: Indexes, config: ModelConfig) -> nn.Module:
    """Fit the same network with a minimal loop: no progress, checkpoints or checks."""
    torch.manual_seed(config.seed)
    horizon = config.horizon
    scaler = Scaler.fit(returns[: origins[-1] + horizon])
    network = MODELS[config.model](config)
    windows = (input_windows(returns, origins, config.window) - scaler.mean) / scaler.std
    inputs = torch.from_numpy(windows[:, None]).float()
    drift = scaler.mean * np.arange(1, horizon + 1)
    scaled = (cumulative_returns(returns, origins, horizon) - drift) / scaler.target_scale(horizon)
    targets = torch.from_numpy(scaled).float()
    quantiles = torch.tensor(config.quantiles)
    steps = config.epochs * math.ceil(len(origins) / config.batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total_steps=steps)
    for _ in range(config.epochs):
        for batch in torch.randperm(len(origins)).split(config.batch_size):
            optimizer.zero_grad()
            pinball_loss(network(inputs[batch]), targets[batch], quantiles).backward()
            optimizer.step()
            scheduler.step()
    return network


def compare_loops(folder: Path) -> None:
    """Print how much longer a fit takes than the minimal loop; both must give the same weights."""
    config = replace(read_model_config(DEFAULT_CONFIG), epochs=6)
    returns = log_returns(read_sample_closes())
    origins = forecast_origins(returns, config.window)[: -config.horizon]

    def fit_with_checkpoints(number: int) -> nn.Module:
        checkpoints = CheckpointManager(Store(f"file://{folder}"), f"checkpoints/{number}", CHECKPOINT_INTERVAL)
        return fit(returns, origins, config, "fit", checkpoints).network

    fit_with_checkpoints(-1), fit_plainly(returns, origins, config)
    seconds = []
    for number in range(ROUNDS):
        started = time.perf_counter()
        network = fit_with_checkpoints(number)
        fitted = time.perf_counter()
        plain_network = fit_plainly(returns, origins, config)
        seconds.append((fitted - started, time.perf_counter() - fitted))
        pairs = zip(network.parameters(), plain_network.parameters(), strict=True)
        if not all(torch.equal(parameter, plain) for parameter, plain in pairs):
            sys.exit("the two loops gave different weights: their times are not comparable")
    ratio = statistics.median(ours / plain for ours, plain in seconds)
    ours, plain = (statistics.median(pair[index] for pair in seconds) for index in (0, 1))
    print(f"fit of {len(origins)} samples, {config.epochs} epochs: {ours:.2f} s, plain PyTorch {plain:.2f} s, ", end="")
    print(f"ratio {ratio:.3f} (at most 1.05), with the same weights")


def measure_training(folder: Path) -> None:
    """Print the time from the first import to the first step, and the peak memory of a training, on all sessions."""
    url = f"file://{SAMPLE}/year_{{symbol}}/{{year}}.csv"
    command = [str(ROOT / ".venvs" / "collector" / "bin" / "collector"), "fetch-prices", "--prices-url", url]
    command += ["--from", str(FIRST_SESSION), "--to", str(LAST_SESSION), "--artifacts", f"file://{folder}"]
    subprocess.run(command, check=True, capture_output=True)
    store = Store(f"file://{folder}")
    count = len(list_partitions(store, SYMBOL, LAST_SESSION).sessions)
    seconds = []
    for _ in range(ROUNDS):
        process = subprocess.run(
            [sys.executable, "-c", FIRST_STEP, f"file://{folder}", str(LAST_SESSION)], capture_output=True, text=True
        )
        seconds.append([float(value) for value in process.stdout.split()])
    without_reading, total = (statistics.median(values) for values in zip(*seconds, strict=True))
    print(f"import to first step: {without_reading:.2f} s (at most 3); with reading {count} sessions: {total:.2f} s")
    config = TrainingConfig(replace(read_model_config(DEFAULT_CONFIG), epochs=1), None)
    facts = open_artifact(train(store, SYMBOL, LAST_SESSION, config, CHECKPOINT_INTERVAL).uri)[0].facts
    print(f"peak memory of a training: {facts['peak_memory_mib']} MiB (at most 1024), with {facts['threads']} threads")


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        compare_loops(Path(temporary))
        measure_training(Path(temporary))
