"""Forecast with a committed model: its network, and its calibration with the outcomes that have become known since."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
from step_contract.errors import DataError
from step_contract.manifest import MAX_BYTES, Manifest, check_content, digest
from step_contract.schemas import CALIBRATION_FILE, FORECAST_FILE, MODEL_FILE, MODEL_VERSION, parse_iso_date
from step_contract.store import Store

from trainer.calibration import Calibration, calibrate_forecasts
from trainer.config import ModelConfig
from trainer.daily_forecast.baseline import Forecast
from trainer.dataset import FEATURES, Array, Scaler
from trainer.threads import thread_count

if TYPE_CHECKING:
    from trainer.fitting import FittedModel

# What reading the content of a model's files may raise if it is not what this program wrote; torch raises RuntimeError.
_INVALID = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError)


@dataclass(frozen=True)
class CurrentModel:
    """A committed model.

    Attributes:
        path: of its manifest in the store; `digest`: of that manifest.
        session: the model's session.
        last_session: the last session that it was trained on.
        config: its hyperparameters.
        scaler: that of its training part; `feature_scalers`: those of the features, in the order of `dataset.FEATURES`.
        calibration: of the forecast from `last_session`.
        weights: the content of model.safetensors.
    """

    path: str
    digest: str
    session: date
    last_session: date
    config: ModelConfig
    scaler: Scaler
    feature_scalers: tuple[Scaler, ...]
    calibration: Calibration
    weights: bytes


def read_model(store: Store, path: str) -> CurrentModel:
    """Return the model whose manifest is at `path`.

    Raises DataError if it is missing or damaged, or of a schema version that this program does not read.
    """
    uri = store.uri(path)
    data = store.read(path, MAX_BYTES)
    if data is None:
        raise DataError(f"{uri} is missing: restore it, or roll it back")
    manifest = Manifest.from_json(data, uri)
    if (version := manifest.schema_version) != MODEL_VERSION:
        advice = "upgrade the program" if version > MODEL_VERSION else "train again"
        raise DataError(f"{uri} has schema version {version}, this program reads {MODEL_VERSION}: {advice}")
    files = {file.name: file for file in manifest.files if file.name in (MODEL_FILE, FORECAST_FILE, CALIBRATION_FILE)}
    objects = {f"{path.rpartition('/')[0]}/{file.path}": file for file in files.values()}
    contents = store.read_many(objects)
    checked = {file.name: check_content(store.uri(name), file, contents[name]) for name, file in objects.items()}
    try:
        length = int.from_bytes(checked[MODEL_FILE][:8], "little")
        metadata = json.loads(json.loads(checked[MODEL_FILE][8 : 8 + length])["__metadata__"]["trainer"])
        config = ModelConfig(**metadata["config"])
        return CurrentModel(
            path=path,
            digest=digest(data),
            session=manifest.session,
            last_session=parse_iso_date(json.loads(checked[FORECAST_FILE])["last_session"]),
            config=config,
            scaler=Scaler(**metadata["scaler"]),
            feature_scalers=_parse_feature_scalers(metadata.get("features", {})),
            calibration=_parse_calibration(json.loads(checked[CALIBRATION_FILE]), config.horizon),
            weights=checked[MODEL_FILE],
        )
    except _INVALID as error:
        raise _unreadable(uri, error) from None


def _unreadable(uri: str, error: Exception) -> DataError:
    return DataError(f"{uri} was made by another version of the program ({type(error).__name__}: {error!s:.200}): train again")


def _parse_feature_scalers(content: Mapping[str, Any]) -> tuple[Scaler, ...]:
    """Return the scalers. Raises ValueError unless the model was trained with the features of this program."""
    names = [feature.name for feature in FEATURES]
    if sorted(content) != sorted(names):
        raise ValueError(f"its features are {', '.join(sorted(content)) or 'none'}, here they are {', '.join(names) or 'none'}")
    return tuple(Scaler(**content[name]) for name in names)


def _parse_calibration(content: Mapping[str, Any], horizon: int) -> Calibration:
    """Return the calibration. Raises ValueError unless it is that of a forecast of `horizon` sessions."""
    calibration = Calibration.from_json(content)
    if calibration.miscoverage.shape != (horizon,) or calibration.scores.ndim != 2 or calibration.scores.shape[1] != horizon:
        raise ValueError(f"the calibration is not that of {horizon} horizons")
    return calibration


def forecast_with_model(
    model: CurrentModel, returns: Array, trained_until: int, uri: str, features: Array | None = None
) -> Forecast:
    """Return the model's forecast from the last close, calibrated with the outcomes since its own training.

    Args:
        model: the current model.
        returns: log returns of consecutive sessions, shape (sessions - 1,).
        trained_until: the position of the model's last session among the closes. If that is before them, as sessions are
            missing since, it is 0, and the outcomes of these closes are used.
        uri: the model's, for messages.
        features: `dataset.feature_values` of the same sessions; None for none.

    Raises:
        DataError: the network cannot be loaded, there are fewer log returns than its window, or the forecast is not finite.
    """
    window = model.config.window
    if len(returns) < window:
        raise DataError(f"{uri} needs {window} log returns, and there are {len(returns)} without a gap")
    network = _load_network(model, uri)
    origins = np.arange(max(window, trained_until), len(returns) + 1)
    raw = network.forecast(returns, origins, features)
    calibrated = calibrate_forecasts(model.calibration, returns, origins, raw)
    values = calibrated.forecasts[-1]
    if not (np.isfinite(values).all() and np.isfinite(raw[-1]).all()):
        raise DataError(f"{uri} forecasts values that are not finite: roll it back")
    return Forecast(model.config.model, model.config.interval, values, raw[-1], calibrated.calibration.ready)


def _load_network(model: CurrentModel, uri: str) -> FittedModel:
    # Imported late: importing torch takes seconds, and a baseline does not need it.
    import safetensors
    import safetensors.torch
    import torch

    from trainer.fitting import FittedModel
    from trainer.model import MODELS

    torch.set_num_threads(thread_count())
    try:
        network = MODELS[model.config.model](model.config, 1 + len(model.feature_scalers))
        network.load_state_dict(safetensors.torch.load(model.weights))
    except (*_INVALID, safetensors.SafetensorError) as error:
        raise _unreadable(uri, error) from None
    return FittedModel(network.eval(), model.scaler, model.config, model.feature_scalers)
