"""The forecasts of earlier models, which a plot compares with the closes that followed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

from step_contract import paths
from step_contract.commit import load, read
from step_contract.errors import DataError
from step_contract.manifest import Manifest
from step_contract.schemas import FORECAST_FILE, MODEL_VERSION
from step_contract.store import Store

# Sessions in a plot: about a quarter. With more, a week's forecast would be too narrow on a phone.
PLOTTED_SESSIONS = 60

logger = logging.getLogger(__name__)

Forecast = Mapping[str, Any]  # the content of a model's forecast.json


def read_forecasts(store: Store, symbol: str, session: date, config: str, since: date) -> list[Forecast]:
    """Return the forecasts of the models of sessions from `since` to before `session`, ordered by session.

    Of several models of one session, the one with the configuration digest `config` is used, otherwise the first. Models that
    are damaged or have another schema version are skipped with a warning: they must not fail the plot of a later session.
    """
    candidates: dict[date, list[tuple[bool, str, str, Manifest]]] = {}
    names = [name for name in store.list(paths.models_root(symbol)) if name.endswith(f"/{paths.MANIFEST}")]
    names = [name for name in names if since <= paths.parse_session(name) < session]
    for name in names:
        directory = name.removesuffix(f"/{paths.MANIFEST}")
        with _skip_damaged():
            manifest = load(store, directory)
            if manifest and manifest.schema_version == MODEL_VERSION:
                other_config = directory != paths.model(symbol, manifest.session, config)
                candidate = (other_config, manifest.created.isoformat(), directory, manifest)
                candidates.setdefault(manifest.session, []).append(candidate)
    forecasts: dict[str, Forecast] = {}
    for _, models in sorted(candidates.items()):
        _, _, directory, manifest = min(models, key=lambda model: model[:3])
        with _skip_damaged():
            forecast = json.loads(read(store, directory, manifest)[FORECAST_FILE])
            # Models trained on two closed days after one session start from the same close.
            forecasts.setdefault(forecast["last_session"], forecast)
    return list(forecasts.values())


@contextmanager
def _skip_damaged() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        logger.warning("Skipping a past forecast: %s", error)


def select_plottable(forecasts: Sequence[Forecast], sessions: Sequence[date]) -> list[Forecast]:
    """Return the forecasts that start from one of `sessions` before the last, so that at least one outcome is known."""
    starts = {day.isoformat() for day in sessions[:-1]}
    return [forecast for forecast in forecasts if forecast["last_session"] in starts]
