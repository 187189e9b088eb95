"""What earlier models have forecast, to be drawn beside what came."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

from step_contract import paths
from step_contract.commit import read
from step_contract.errors import DataError
from step_contract.manifest import Manifest
from step_contract.schemas import FORECAST_FILE, MODEL_VERSION
from step_contract.store import Store

PLOTTED_SESSIONS = 60  # sessions of a picture: a quarter, so that a week's forecast is wide enough to be seen on a phone

log = logging.getLogger(__name__)

Forecast = Mapping[str, Any]  # the content of a model's forecast.json


def issued(store: Store, symbol: str, session: date, recipe: str, since: date) -> list[Forecast]:
    """The forecasts of the models from `since` to before `session`, in order of their sessions.

    Of a session with several models it is that of the same `recipe`, otherwise of the first. What is damaged or of another
    schema version is left out and told: a picture of this day does not fail for an earlier one.
    """
    found: dict[date, list[tuple[bool, str, str, Manifest]]] = {}
    names = [name for name in store.list(paths.models_root(symbol)) if name.endswith(f"/{paths.MANIFEST}")]
    names = [name for name in names if since <= paths.parse_session(name) < session]
    for name, data in store.read_many(names).items():
        directory = name.removesuffix(f"/{paths.MANIFEST}")
        with _skip_damaged():
            manifest = Manifest.from_json(data or b"", store.uri(name))
            if manifest.schema_version == MODEL_VERSION:
                rank = (not directory.endswith(f"/recipe={recipe}"), manifest.created.isoformat(), directory, manifest)
                found.setdefault(manifest.session, []).append(rank)
    forecasts: dict[str, Forecast] = {}
    for _, candidates in sorted(found.items()):
        _, _, directory, manifest = min(candidates, key=lambda rank: rank[:3])
        with _skip_damaged():
            forecast = json.loads(read(store, directory, manifest)[FORECAST_FILE])
            forecasts.setdefault(forecast["last_session"], forecast)  # two closed days after one close say the same twice
    return list(forecasts.values())


@contextmanager
def _skip_damaged() -> Iterator[None]:
    try:
        yield
    except DataError as wrong:
        log.warning("left out of the past forecasts: %s", wrong)


def select_plottable(forecasts: Sequence[Forecast], sessions: Sequence[date]) -> list[Forecast]:
    """Those of `forecasts` that start from one of `sessions` and of which at least one session has come by the last."""
    starts = {day.isoformat() for day in sessions[:-1]}
    return [forecast for forecast in forecasts if forecast["last_session"] in starts]
