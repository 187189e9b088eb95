"""The step `train`: fit the forecaster, evaluate it out of sample, forecast from the last session, and commit the model."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from step_contract import paths
from step_contract.commit import Committed, Content, commit, find
from step_contract.errors import DataError
from step_contract.manifest import Fact, canonical, digest
from step_contract.schemas import FORECAST_FILE, METRICS_FILE, MODEL_FILE, MODEL_VERSION
from step_contract.store import Store

from trainer.config import ModelConfig, TrainingConfig
from trainer.dataset import Array, forecast_origins, list_partitions, log_returns, read_closes
from trainer.evaluation import Evaluation, OutOfSampleForecasts, min_sessions, split_folds, walk_forward
from trainer.forecast_history import PLOTTED_SESSIONS
from trainer.texts import summarize_evaluation
from trainer.threads import thread_count

if TYPE_CHECKING:
    from trainer.fitting import FittedModel

STEP = "train"


def train(store: Store, symbol: str, session: date, config: TrainingConfig, checkpoint_interval: int) -> Committed:
    """Train a model on the sessions up to `session` and commit it, or return the one committed from the same sessions.

    A training that was interrupted resumes from its last checkpoint and gives the same bytes.

    Args:
        store: the artifacts.
        symbol: the index's symbol.
        session: the last day of the history; it need not be a session.
        config: the model's configuration and the length of the history.
        checkpoint_interval: steps between two checkpoints.

    Raises:
        DataError: there are too few sessions, one is damaged, the training diverged, or the model was committed from other
            sessions.
    """
    model_config, since = config.model, config.first_date(session)
    partitions = list_partitions(store, symbol, session, since)
    sessions = partitions.sessions
    directory = paths.model(symbol, session, config.digest)
    inputs = {
        "symbol": symbol,
        "sessions": f"{len(sessions)} from {sessions[0]} to {sessions[-1]}",
        "prices": partitions.digest,
        "config": config.digest,
    }
    checkpoint_directory = paths.checkpoints(symbol, session, config.digest, digest(canonical(inputs))[:12])
    if committed := find(store, directory, inputs):
        store.remove_folder(checkpoint_directory)  # left if the writer was killed after the commit
        return committed
    closes = read_closes(store, partitions)
    check_history(sessions, closes, model_config, symbol, session, since)
    # Importing torch takes longer than everything before: a model that is committed already does not need it.
    from trainer.checkpoint import CheckpointManager
    from trainer.fitting import fit

    returns = log_returns(closes)
    checkpoints = CheckpointManager(store, checkpoint_directory, checkpoint_interval)

    def fit_fold(known: Array, origins: Any, name: str) -> Any:
        return fit(known, origins, model_config, name, checkpoints).forecast

    window, horizon = model_config.window, model_config.horizon
    with checkpoints.handle_sigterm():
        evaluation, out_of_sample = walk_forward(
            returns, window, horizon, model_config.folds, model_config.test_share, fit_fold
        )
        origins = forecast_origins(returns, window)[:-horizon]
        model = fit(returns, origins, model_config, "final fit", checkpoints)
    forecast: dict[str, Any] = {
        "symbol": symbol,
        "session": session.isoformat(),
        "model": model_config.model,
        "interval": model_config.interval,
        **forecast_record(sessions[-1], float(closes[-1]), model.forecast(returns, np.array([len(returns)]))[0]),
        "out_of_sample": select_validation_forecasts(sessions, closes, out_of_sample, horizon),
    }
    facts = {"last_session": forecast["last_session"], "last_close": forecast["last_close"]}
    facts |= make_facts(evaluation, model_config.interval)
    content = Content(artifact_files(model, evaluation, forecast, inputs), len(sessions), MODEL_VERSION, facts)
    committed = commit(store, directory, step=STEP, session=session, inputs=inputs, content=content)
    checkpoints.remove_all()
    return committed


def check_history(
    sessions: list[date], closes: Array, config: ModelConfig, symbol: str, session: date, since: date | None
) -> None:
    """Raise DataError if there are too few sessions for the configuration, or the first fold has constant closes only."""
    window, horizon, folds = config.window, config.horizon, config.folds
    required = max(config.min_sessions, min_sessions(window, horizon, folds, config.test_share))
    if len(sessions) < required:
        advice = f", or raise --history-years, which excludes sessions before {since}" if since else ""
        raise DataError(
            f"too few sessions of {symbol} to train on: {len(sessions)} from {sessions[0]} to {sessions[-1]}, "
            f"{required} required; collect them with collector fetch-prices --from YYYY-MM-DD --to {session}{advice}"
        )
    train_origins, _ = split_folds(np.arange(window, len(closes)), folds, config.test_share, horizon)[0]
    constant = int(np.argmax(closes != closes[0])) or len(closes)
    if constant > train_origins[-1] + horizon:
        raise DataError(
            f"{symbol} has the same close {closes[0]} in each of {constant} sessions from {sessions[0]} to "
            f"{sessions[constant - 1]}: check the source"
        )


def forecast_record(session: date, close: float, log_returns: Array) -> dict[str, Any]:
    """Return a forecast in the form of forecast.json: each horizon's values as log return and in index points.

    Args:
        session: the session that is forecast from.
        close: its close in index points.
        log_returns: low, middle and high cumulative log return, shape (horizon, 3).
    """
    points = [
        {"horizon": horizon}
        | {
            name: {"log_return": round(float(value), 8), "points": round(close * float(np.exp(value)), 2)}
            for name, value in zip(("low", "middle", "high"), row, strict=True)
        }
        for horizon, row in enumerate(log_returns, start=1)
    ]
    return {"last_session": session.isoformat(), "last_close": close, "forecast": points}


def select_validation_forecasts(
    sessions: list[date], closes: Array, out_of_sample: OutOfSampleForecasts, horizon: int
) -> list[dict[str, Any]]:
    """Return the last validation forecasts that a plot can show, without overlap; the last one ends at the last close."""
    last = len(out_of_sample.origins) - 1
    selected = range(last, max(-1, last - PLOTTED_SESSIONS), -horizon)
    return [
        forecast_record(sessions[out_of_sample.origins[i]], float(closes[out_of_sample.origins[i]]), out_of_sample.forecasts[i])
        for i in reversed(selected)
    ]


def make_facts(evaluation: Evaluation, interval: float) -> dict[str, Fact]:
    """Return the manifest's facts on the evaluation at the last horizon, and on the resources used so far."""
    last = evaluation["overall"][-1]
    return {
        "evaluation": summarize_evaluation(evaluation, interval),
        "beats_baselines": bool(evaluation["significant_horizons"]),
        "p_value": last["p_value"],
        "horizon": last["horizon"],
        "mae": last["mae"],
        "mae_naive": last["mae_naive"],
        "skill": last["skill"],
        "peak_memory_mib": peak_memory_bytes() // 2**20,
        "threads": thread_count(),
    }


def artifact_files(
    model: FittedModel, evaluation: Evaluation, forecast: dict[str, Any], inputs: Mapping[str, str]
) -> dict[str, bytes]:
    """Return the artifact's files by name; the weights carry scaler, configuration, inputs and library versions as metadata."""
    import safetensors.torch

    content = {"scaler": asdict(model.scaler), "config": asdict(model.config)}
    content["data"] = {name: inputs[name] for name in ("symbol", "sessions", "prices")}
    content["libraries"] = {name: version(name) for name in ("numpy", "safetensors", "torch")}
    # A single entry: safetensors writes several in any order, and the bytes would differ.
    metadata = {"trainer": json.dumps(content, sort_keys=True)}
    weights = {name: tensor.contiguous() for name, tensor in sorted(model.network.state_dict().items())}
    return {
        MODEL_FILE: safetensors.torch.save(weights, metadata),
        METRICS_FILE: _to_json(evaluation),
        FORECAST_FILE: _to_json(forecast),
    }


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): bytes on macOS, kilobytes elsewhere


def _to_json(content: object) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
