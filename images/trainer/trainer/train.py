"""The step `train`: a forecaster fitted to every session up to a day, how good it is, and its forecast."""

from __future__ import annotations

import json
import math
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
from trainer.dataset import Array, committed, log_returns, origins, read_closes
from trainer.evaluation import Evaluation, split, walk_forward
from trainer.forecast_history import PLOTTED_SESSIONS
from trainer.texts import in_words
from trainer.threads import thread_count

if TYPE_CHECKING:
    from trainer.fitting import FittedModel

STEP = "train"


def check_history(
    sessions: list[date], closes: Array, configuration: ModelConfig, symbol: str, session: date, since: date | None
) -> None:
    """Raises DataError when there are too few sessions for the configuration, or the first fold is fitted to no movement."""
    window, horizon, folds = configuration.window, configuration.horizon, configuration.folds
    # The first fold must have something to be fitted to beside what the tests take.
    least = window + horizon + math.ceil((window + horizon + folds) / (1 - configuration.test_share))
    needed = max(configuration.minimum_sessions, least)
    if len(sessions) < needed:
        shortened = f", or raise --history-years, which leaves out all before {since}" if since else ""
        raise DataError(
            f"{len(sessions)} sessions of {symbol} from {sessions[0]} to {sessions[-1]} are too few to train on, "
            f"{needed} are needed: collect them with collector fetch-prices --from YYYY-MM-DD --to {session}{shortened}"
        )
    train, _ = split(np.arange(window, len(closes)), folds, configuration.test_share, horizon)[0]
    still = int(np.argmax(closes != closes[0])) or len(closes)
    if still > train[-1] + horizon:
        raise DataError(
            f"{symbol} closes at {closes[0]} on each of {still} sessions from {sessions[0]} to {sessions[still - 1]}: "
            "look at the source"
        )


def forecast_record(session: date, close: float, values: Array) -> dict[str, Any]:
    """The forecast `values` (horizon, 3) from `session`: of each horizon low, middle and high as log return and in points."""
    points = [
        {"horizon": horizon}
        | {
            name: {"log_return": round(float(value), 8), "points": round(close * float(np.exp(value)), 2)}
            for name, value in zip(("low", "middle", "high"), row, strict=True)
        }
        for horizon, row in enumerate(values, start=1)
    ]
    return {"last_session": session.isoformat(), "last_close": close, "forecast": points}


def artifact_files(
    fitted: FittedModel, evaluation: Evaluation, forecast: dict[str, Any], inputs: Mapping[str, str]
) -> dict[str, bytes]:
    """The artifact's files: weights with scaler, configuration, inputs and libraries beside them, metrics, forecast."""
    import safetensors.torch

    about = {"scaler": asdict(fitted.scaler), "configuration": asdict(fitted.configuration)}
    about["data"] = {name: inputs[name] for name in ("symbol", "sessions", "prices")}
    about["libraries"] = {name: version(name) for name in ("numpy", "safetensors", "torch")}
    # One entry: safetensors writes several in any order, and the bytes would differ.
    metadata = {"trainer": json.dumps(about, sort_keys=True)}
    weights = {name: tensor.contiguous() for name, tensor in sorted(fitted.network.state_dict().items())}
    return {
        MODEL_FILE: safetensors.torch.save(weights, metadata),
        METRICS_FILE: _json(evaluation),
        FORECAST_FILE: _json(forecast),
    }


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far, in bytes."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # getrusage(2): kilobytes, but on a Mac bytes


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def train(store: Store, symbol: str, session: date, recipe: TrainingConfig, every: int) -> Committed:
    """Trains by `recipe` on the sessions of `symbol` up to `session`, or returns the model committed from the same ones.

    Keeps its state every `every` steps, and goes on from there when it was interrupted.

    Raises DataError when there are too few, when one is damaged, and when the model was committed from other sessions.
    """
    configuration, since = recipe.configuration, recipe.since(session)
    partitions = committed(store, symbol, session, since)
    sessions = partitions.sessions
    directory = paths.model(symbol, session, recipe.model)
    inputs = {
        "symbol": symbol,
        "sessions": f"{len(sessions)} from {sessions[0]} to {sessions[-1]}",
        "prices": partitions.digest,
        "recipe": recipe.model,
    }
    unfinished = paths.checkpoints(symbol, session, recipe.model, digest(canonical(inputs))[:12])
    if before := find(store, directory, inputs):
        store.remove_folder(unfinished)  # where the one who committed it did not come to that
        return before
    closes = read_closes(store, partitions)
    check_history(sessions, closes, configuration, symbol, session, since)
    # Loading torch takes longer than all that was done so far; who finds the model committed need not wait for it.
    from trainer.checkpoint import CheckpointManager
    from trainer.fitting import fit

    returns = log_returns(closes)
    kept = CheckpointManager(store, unfinished, every)

    def fit_fold(known: Array, at: Any, name: str) -> Any:
        return fit(known, at, configuration, name, kept).forecast

    plan = (configuration.window, configuration.horizon, configuration.folds, configuration.test_share)
    with kept.handle_sigterm():
        evaluation, tests = walk_forward(returns, *plan, fit_fold)
        fitted = fit(
            returns, origins(returns, configuration.window)[: -configuration.horizon], configuration, "final fit", kept
        )
    values = fitted.forecast(returns, np.array([len(returns)]))[0]
    # One after the other, up to the last close.
    apart = range(len(tests.at) - 1, max(-1, len(tests.at) - 1 - PLOTTED_SESSIONS), -configuration.horizon)
    forecast: dict[str, Any] = {
        "symbol": symbol,
        "session": session.isoformat(),
        "model": configuration.model,
        "interval": configuration.interval,
        **forecast_record(sessions[-1], float(closes[-1]), values),
        "out_of_sample": [
            forecast_record(sessions[tests.at[i]], float(closes[tests.at[i]]), tests.forecast[i]) for i in reversed(apart)
        ],
    }
    last = evaluation["overall"][-1]
    facts: dict[str, Fact] = {"last_session": forecast["last_session"], "last_close": forecast["last_close"]}
    facts |= {
        "in_words": in_words(evaluation, configuration.interval),
        "beats_baselines": bool(evaluation["significant_horizons"]),
        "p_value": last["p_value"],
        "horizon": last["horizon"],
        "mae": last["mae"],
        "mae_naive": last["mae_naive"],
        "skill": last["skill"],
    }
    facts |= {"peak_memory_mib": peak_memory_bytes() // 2**20, "threads": thread_count()}
    content = Content(artifact_files(fitted, evaluation, forecast, inputs), len(sessions), MODEL_VERSION, facts)
    made = commit(store, directory, step=STEP, session=session, inputs=inputs, content=content)
    kept.clear()
    return made
