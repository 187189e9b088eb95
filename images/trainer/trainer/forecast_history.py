"""The forecasts of earlier sessions, which a plot compares with the closes that followed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from step_contract import paths
from step_contract.commit import read_file
from step_contract.errors import DataError
from step_contract.lineage.sources import Source
from step_contract.revisions import Revision, select_revisions
from step_contract.schemas import FORECAST_FILE, FORECAST_VERSIONS
from step_contract.store import Store

from trainer.daily_forecast.baseline import PREFIX
from trainer.daily_forecast.performance import read_issued_forecasts

# Sessions in a plot: about a quarter. With more, a week's forecast would be too narrow on a phone.
PLOTTED_SESSIONS = 60
ROLE = "past-forecasts"  # of an earlier forecast among the sources of a plot

logger = logging.getLogger(__name__)

Forecast = Mapping[str, Any]  # the content of a forecast.json


@dataclass(frozen=True)
class PastForecast:
    """The forecast of an earlier session: the content of its forecast.json, and its artifact as a source of a plot."""

    content: Forecast
    source: Source


def read_past_forecasts(
    store: Store, symbol: str, session: date, config: str, since: date, as_of: datetime | None = None
) -> list[PastForecast]:
    """Return the forecasts from sessions since `since` and before `session`, ordered by the session that they start from.

    The forecast that was issued on a session takes precedence over that of a model that was trained on it, which nobody used
    on that day. Others that cannot be read are skipped with a warning. With `as_of`, only those that were committed by then
    count.
    """
    trained = read_forecasts(store, symbol, session, config, since, as_of)
    forecasts = {str(forecast.content["last_session"]): forecast for forecast in trained}
    for issued in read_issued_forecasts(store, symbol, since, session, as_of):
        source = Source(ROLE, issued.uri, issued.sha256)
        forecasts[issued.session.isoformat()] = PastForecast(issued.content, source)
    return [forecast for _, forecast in sorted(forecasts.items())]


def count_baselines(forecasts: Sequence[Forecast]) -> int:
    """Return how many of the forecasts a baseline made."""
    return sum(str(forecast.get("source", {}).get("name", "")).startswith(PREFIX) for forecast in forecasts)


def read_forecasts(
    store: Store, symbol: str, session: date, config: str, since: date, as_of: datetime | None = None
) -> list[PastForecast]:
    """Return the forecasts of the models of sessions from `since` to before `session`, ordered by session.

    Of several models of one session, the one with the configuration digest `config` is used, otherwise the first; of a model,
    its latest revision, or the latest one that was committed by `as_of`. Models that are damaged or of an unknown schema
    version are skipped with a warning: they must not fail the plot of a later session.
    """
    models = paths.group_revisions(store.list(paths.models_root(symbol)))
    selected = select_revisions(
        store,
        {directory: found for directory, found in models.items() if since <= paths.parse_session(directory) < session},
        as_of,
        on_damaged=lambda directory, error: _warn(error),
    )
    candidates: dict[date, list[tuple[bool, str, Revision]]] = {}
    for model_directory, revision in selected.items():
        manifest = revision.manifest
        with _skip_damaged():
            if manifest.schema_version not in FORECAST_VERSIONS:
                raise DataError(
                    f"{store.uri(revision.path)} has schema version {manifest.schema_version}, this program reads "
                    f"{' and '.join(map(str, FORECAST_VERSIONS))}"
                )
            other_config = model_directory != paths.model(symbol, manifest.session, config)
            candidate = (other_config, manifest.created.isoformat(), revision)
            candidates.setdefault(manifest.session, []).append(candidate)
    forecasts: dict[str, PastForecast] = {}
    for _, session_models in sorted(candidates.items()):
        _, _, revision = min(session_models, key=lambda model: (*model[:2], model[2].path))
        with _skip_damaged():
            forecast = json.loads(read_file(store, revision.directory, revision.manifest.file(FORECAST_FILE)))
            # Models trained on two closed days after one session start from the same close.
            forecasts.setdefault(forecast["last_session"], PastForecast(forecast, revision.source(store, ROLE)))
    return list(forecasts.values())


@contextmanager
def _skip_damaged() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        _warn(error)


def _warn(error: DataError) -> None:
    logger.warning("Skipping a past forecast: %s", error)


def select_plottable(forecasts: Sequence[Forecast], sessions: Sequence[date]) -> list[Forecast]:
    """Return forecasts that start from one of `sessions` before the last and do not overlap: a plot of all would be unreadable.

    From the last session backwards, the latest forecast whose outcomes are all known and precede those of the next one is
    selected. At least one outcome of each is known.
    """
    positions = {day.isoformat(): position for position, day in enumerate(sessions[:-1])}
    known = [forecast for forecast in forecasts if forecast["last_session"] in positions]
    plottable = [(positions[forecast["last_session"]], forecast) for forecast in known]
    selected: list[Forecast] = []
    end = last_end = len(sessions) - 1
    for start, forecast in reversed(plottable):
        if start + len(forecast["forecast"]) <= end:
            last_end = last_end if selected else start + len(forecast["forecast"])
            selected.insert(0, forecast)
            end = start
    # After the last of them, one of which only some outcomes are known.
    free = last_end if selected else 0
    return selected + [forecast for start, forecast in plottable if start >= free][:1]
