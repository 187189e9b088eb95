"""The step `train`: fit the forecaster, evaluate it out of sample, forecast from the last session, and commit the model."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from step_contract import paths
from step_contract.commit import Committed, Content
from step_contract.errors import ConfigurationError, DataError
from step_contract.facts import TrainingFacts
from step_contract.manifest import canonical, digest
from step_contract.revisions import Artifact, Logic, Revision
from step_contract.schemas import CALIBRATION_FILE, FORECAST_FILE, METRICS_FILE, MODEL_FILE, MODEL_VERSION
from step_contract.store import Store

from trainer.calibration import Calibration, calibrate_forecasts
from trainer.config import ModelConfig, TrainingConfig
from trainer.dataset import (
    FEATURES,
    Array,
    feature_values,
    forecast_origins,
    log_returns,
    model_columns,
    read_prices,
)
from trainer.evaluation import Evaluation, OutOfSampleForecasts, min_sessions, split_folds, walk_forward
from trainer.forecast_history import PLOTTED_SESSIONS
from trainer.partitions import list_partitions
from trainer.texts import summarize_evaluation, summarize_intervals
from trainer.threads import thread_count

if TYPE_CHECKING:
    from trainer.fitting import FittedModel

# Besides this version, the digest of the modules that fit and evaluate a model is part of its path (`config.MODEL_CODE`).
LOGIC = Logic("trainer", "train", code_version=1, schema_version=MODEL_VERSION)


def train(
    store: Store,
    symbol: str,
    session: date,
    config: TrainingConfig,
    checkpoint_interval: int,
    remake: str = "",
    prices: Revision | None = None,
) -> Committed:
    """Train a model on the sessions up to `session` and commit it, or return the one committed from the same sessions.

    If the latest one was trained on another history, because sessions were added or revised, the new one is its next revision.

    A training that was interrupted resumes from its last checkpoint and gives the same bytes.

    Args:
        store: the artifacts.
        symbol: the index's symbol.
        session: the last day of the history; it need not be a session.
        config: the model's configuration and the length of the history.
        checkpoint_interval: steps between two checkpoints.
        remake: a person's reason to train another model although the history may be the same; empty for none.
        prices: the partition of the last session to train on; None for the latest revision of the latest session.

    Raises:
        ConfigurationError: `prices` is of a session before the history that the configuration selects.
        DataError: there are too few sessions, one is damaged, the training diverged, or the latest committed model is damaged.
    """
    model_config, since = config.model, config.first_date(session)
    if prices and since and prices.manifest.session < since:
        uri, day = store.uri(prices.path), prices.manifest.session
        raise ConfigurationError(
            f"--prices {uri} is of {day}, before {since}, where --history-years begins: correct one of them"
        )
    partitions = list_partitions(store, symbol, session, since, as_of=config.as_of, pinned=prices)
    sessions = partitions.sessions
    directory = paths.model(symbol, session, config.digest, pinned=bool(config.as_of))
    inputs = {
        "symbol": symbol,
        "sessions": f"{len(sessions)} from {sessions[0]} to {sessions[-1]}",
        "prices": partitions.digest,
        "config": config.digest,
        **describe_as_of(config),
    }
    made_from = inputs | ({"remake": remake} if remake else {})
    checkpoint_directory = paths.checkpoints(symbol, session, config.digest, digest(canonical(made_from))[:12])
    changed = "the history changed: {differences}"
    artifact = Artifact(store, directory, LOGIC, session=session, inputs=inputs, remake=remake, changed=changed)
    if committed := artifact.find():
        store.remove_folder(checkpoint_directory)  # left if the writer was killed after the commit
        return committed
    table = read_prices(store, partitions, model_columns())
    check_history(table, model_config, symbol, session, since)
    # Imported late: importing torch takes longer than everything above, and returning a committed model does not need it.
    from trainer.checkpoint import CheckpointManager
    from trainer.fitting import fit

    closes = table["close"].to_numpy()
    returns, features = log_returns(closes), feature_values(table)
    checkpoints = CheckpointManager(store, checkpoint_directory, checkpoint_interval)

    def fit_fold(known: Array, origins: Any, name: str) -> Any:
        return partial(fit(known, origins, model_config, name, checkpoints, features).forecast, features=features)

    window, horizon = model_config.window, model_config.horizon
    with checkpoints.handle_sigterm():
        evaluation, out_of_sample = walk_forward(returns, model_config, fit_fold)
        origins = forecast_origins(returns, window)[:-horizon]
        model = fit(returns, origins, model_config, "final fit", checkpoints, features)
    last = np.array([len(returns)])
    raw = model.forecast(returns, last, features)
    forecast_values = calibrate_forecasts(out_of_sample.calibration, returns, last, raw).forecasts
    forecast: dict[str, Any] = {
        "symbol": symbol,
        "session": session.isoformat(),
        "model": model_config.model,
        "interval": model_config.interval,
        **forecast_record(sessions[-1], float(closes[-1]), forecast_values[0], raw[0]),
        "out_of_sample": select_validation_forecasts(sessions, closes, out_of_sample, horizon),
    }
    facts = make_facts(sessions[-1], float(closes[-1]), evaluation, model_config.interval).to_facts()
    files = artifact_files(model, evaluation, forecast, out_of_sample.calibration, inputs)
    committed = artifact.commit(Content(files, len(sessions), MODEL_VERSION, facts, partitions.sources))
    checkpoints.remove_all()
    return committed


def describe_as_of(config: TrainingConfig) -> dict[str, str]:
    """Return the inputs of a model that reproduces a past result: the time, and the configuration without it."""
    return {"as_of": config.as_of.isoformat(), "as_of_config": replace(config, as_of=None).digest} if config.as_of else {}


def check_history(prices: pd.DataFrame, config: ModelConfig, symbol: str, session: date, since: date | None) -> None:
    """Raise DataError if there are too few sessions for the configuration, or the first fold has constant closes only."""
    sessions, closes = prices.index.date, prices["close"].to_numpy()
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


def forecast_record(session: date, close: float, log_returns: Array, raw: Array) -> dict[str, Any]:
    """Return a forecast in the form of forecast.json: each horizon's values as log return and in index points.

    Args:
        session: the session that is forecast from.
        close: its close in index points.
        log_returns: low, middle and high cumulative log return, shape (horizon, 3).
        raw: the same before calibration.
    """
    names = ("low", "middle", "high", "low_raw", "high_raw")
    points = [
        {"horizon": horizon}
        | {
            name: {"log_return": round(float(value), 8), "points": round(close * float(np.exp(value)), 2)}
            for name, value in zip(names, row, strict=True)
        }
        for horizon, row in enumerate(np.concatenate([log_returns, raw[:, [0, 2]]], axis=1), start=1)
    ]
    return {"last_session": session.isoformat(), "last_close": close, "forecast": points}


def select_validation_forecasts(
    sessions: list[date], closes: Array, out_of_sample: OutOfSampleForecasts, horizon: int
) -> list[dict[str, Any]]:
    """Return the last validation forecasts that a plot can show, without overlap; the last one ends at the last close."""
    last = len(out_of_sample.origins) - 1
    selected = range(last, max(-1, last - PLOTTED_SESSIONS), -horizon)
    records = []
    for i in reversed(selected):
        origin = out_of_sample.origins[i]
        values = (out_of_sample.forecasts[i], out_of_sample.raw[i])
        records.append(forecast_record(sessions[origin], float(closes[origin]), *values))
    return records


def make_facts(session: date, close: float, evaluation: Evaluation, interval: float) -> TrainingFacts:
    """Return the manifest's facts: the last session, the evaluation at the last horizon, and the resources used so far."""
    last = evaluation["overall"][-1]
    return TrainingFacts(
        last_session=session.isoformat(),
        last_close=close,
        evaluation=f"{summarize_evaluation(evaluation, interval)} {summarize_intervals(evaluation)}",
        beats_baselines=bool(evaluation["significant_horizons"]),
        p_value=last["p_value"],
        horizon=last["horizon"],
        mae=last["mae"],
        mae_naive=last["mae_naive"],
        skill=last["skill"],
        peak_memory_mib=peak_memory_bytes() // 2**20,
        threads=thread_count(),
    )


def artifact_files(
    model: FittedModel, evaluation: Evaluation, forecast: dict[str, Any], calibration: Calibration, inputs: Mapping[str, str]
) -> dict[str, bytes]:
    """Return the artifact's files by name; the weights carry scaler, configuration, inputs and library versions as metadata."""
    import safetensors.torch

    content: dict[str, Any] = {"scaler": asdict(model.scaler), "config": asdict(model.config)}
    content["data"] = {name: inputs[name] for name in ("symbol", "sessions", "prices")}
    if FEATURES:
        scalers = zip(FEATURES, model.feature_scalers, strict=True)
        content["features"] = {feature.name: asdict(scaler) for feature, scaler in scalers}
    content["libraries"] = {name: version(name) for name in ("numpy", "safetensors", "torch")}
    # A single entry: safetensors writes several in any order, and the bytes would differ.
    metadata = {"trainer": json.dumps(content, sort_keys=True)}
    weights = {name: tensor.contiguous() for name, tensor in sorted(model.network.state_dict().items())}
    return {
        MODEL_FILE: safetensors.torch.save(weights, metadata),
        METRICS_FILE: to_json(evaluation),
        FORECAST_FILE: to_json(forecast),
        CALIBRATION_FILE: to_json(calibration.to_json()),
    }


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # getrusage(2): bytes on macOS, kilobytes elsewhere


def to_json(content: object) -> bytes:
    """Return the content of a JSON file of an artifact: equal contents give equal bytes."""
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
