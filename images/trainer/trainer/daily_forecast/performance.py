"""The forecasts that were issued before, and the scores of those whose outcome is known."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypedDict

import numpy as np
import pandas as pd
from step_contract import paths
from step_contract.errors import DataError
from step_contract.manifest import MAX_BYTES, File, Manifest, check_content, digest
from step_contract.revisions import Revision
from step_contract.schemas import CLOSE_STEP, FORECAST_FILE, ISSUED_FORECAST_VERSION, SCORES, parse_iso_date
from step_contract.store import Store
from step_contract.tables import make_table

from trainer.daily_forecast.baseline import PREFIX
from trainer.dataset import Array, SegmentedPrices
from trainer.scores import score_interval, wilson_interval

MAX_FORECAST_BYTES = 2**20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IssuedForecast:
    """A forecast that was issued on an earlier session.

    Attributes:
        session: the session that was forecast from, with `last_close` in index points.
        source: the path of the model's manifest, or `baseline: ` and its name.
        interval: the nominal coverage.
        log_returns: low, middle and high of each horizon, shape (horizon, 3).
        points: the same in index points.
        content: of forecast.json.
        drift_since: since when the forecasts by its source were drifting, as was known on that session; None if they were not.
        uri: of the manifest; `sha256` of its bytes.
    """

    session: date
    last_close: float
    source: str
    interval: float
    log_returns: Array
    points: Array
    content: Mapping[str, Any]
    drift_since: date | None
    uri: str
    sha256: str


def read_issued_forecasts(
    store: Store, symbol: str, since: date, before: date, as_of: datetime | None = None
) -> list[IssuedForecast]:
    """Return the forecasts that were issued from `since` to before `before`, in the order of their sessions.

    What was issued is revision 1; later ones were remade by a person and do not count. With `as_of`, only forecasts that were
    committed by then count. One that is damaged or of another schema version is skipped with a warning: it must not fail a
    later session.
    """
    names = [
        name
        for name in _list_valid(store, paths.forecasts_root(symbol))
        if since <= (session := paths.parse_session(name)) < before
        and name == f"{paths.forecast(symbol, session)}/{paths.MANIFEST}"
    ]
    files: dict[str, tuple[Revision, File]] = {}
    for name, data in _read_all(store, names, MAX_BYTES).items():
        with _skip_damaged():
            manifest = Manifest.from_json(data or b"", store.uri(name))
            revision = Revision(name, manifest, digest(data or b""))
            if as_of and manifest.created > as_of:
                continue
            if manifest.schema_version != ISSUED_FORECAST_VERSION:
                version = manifest.schema_version
                raise DataError(f"{store.uri(name)} has schema version {version}, this program reads {ISSUED_FORECAST_VERSION}")
            file = manifest.file(FORECAST_FILE)
            files[f"{revision.directory}/{file.path}"] = revision, file
    issued = []
    for path, data in _read_all(store, list(files), MAX_FORECAST_BYTES).items():
        with _skip_damaged():
            revision, file = files[path]
            issued.append(_parse(check_content(store.uri(path), file, data), revision, store, store.uri(path)))
    return sorted(issued, key=lambda forecast: forecast.session)


def _list_valid(store: Store, root: str) -> list[str]:
    """Return the objects below `root` whose names have a session; others are reported."""
    valid = []
    for name in store.list(root):
        with _skip_damaged():
            paths.parse_session(name)
            valid.append(name)
    return valid


def _read_all(store: Store, names: Sequence[str], limit: int) -> dict[str, bytes | None]:
    """Return the content of each object that has at most `limit` bytes."""
    try:
        return store.read_many(names, limit)
    except DataError:  # one of them is larger: read the others
        contents = {}
        for name in names:
            with _skip_damaged():
                contents[name] = store.read(name, limit)
        return contents


@contextmanager
def _skip_damaged() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        logger.warning("Skipping an issued forecast: %s", error)


def _parse(data: bytes, revision: Revision, store: Store, uri: str) -> IssuedForecast:
    try:
        content = json.loads(data)
        source = content["source"]
        points = content["forecast"]
        if [point["horizon"] for point in points] != list(range(1, len(points) + 1)) or not points:
            raise ValueError("its horizons are not 1, 2, …")
        names = ("low", "middle", "high")
        values = [
            np.array([[point[name][unit] for name in names] for point in points], float) for unit in ("log_return", "points")
        ]
        last_close, interval = float(content["last_close"]), float(content["interval"])
        is_ordered = all(np.isfinite(array).all() and (np.diff(array) >= 0).all() for array in values)
        if not (is_ordered and last_close > 0 and 0 < interval < 1):
            raise ValueError("a value is not a possible forecast")
        drift_since = revision.manifest.facts.get("drift_since")
        return IssuedForecast(
            session=revision.manifest.session,
            last_close=last_close,
            source=str(source.get("model") or source["name"]),
            interval=interval,
            log_returns=values[0],
            points=values[1],
            content=content,
            drift_since=parse_iso_date(str(drift_since)) if drift_since else None,
            uri=store.uri(revision.path),
            sha256=revision.sha256,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{uri} is not a forecast: {type(error).__name__}: {error!s:.200}") from None


def score_forecasts(issued: Sequence[IssuedForecast], history: SegmentedPrices) -> pd.DataFrame:
    """Return the schema SCORES' row of each forecast whose outcome is among the closes.

    An outcome is the close `horizon` sessions after the origin, if no session is missing between them. A forecast from a close
    that the source has corrected since is not scored: it was made from another close.
    """
    closes, segments = history.closes.to_numpy(), history.segments
    positions = {session.date(): position for position, session in enumerate(history.closes.index)}
    rows = []
    for forecast in issued:
        origin = positions.get(forecast.session)
        if origin is None:
            continue
        if abs(closes[origin] - forecast.last_close) > CLOSE_STEP / 2:
            message = "Not scoring the forecast of %s: its close was %s and is %s now"
            logger.warning(message, forecast.session, forecast.last_close, closes[origin])
            continue
        for i, (values, points) in enumerate(zip(forecast.log_returns, forecast.points, strict=True)):
            position = origin + i + 1
            if position < len(closes) and segments[position] == segments[origin]:
                row = _score(forecast, i + 1, values, float(closes[position]))
                shown = dict(zip(("low", "middle", "high"), points.tolist(), strict=True))
                rows.append(row | shown | {"session": history.closes.index[position]})
    return make_table(SCORES, {name: [row[name] for row in rows] for name in SCORES.names})


def _score(forecast: IssuedForecast, horizon: int, values: Array, outcome: float) -> dict[str, Any]:
    change = math.log(outcome / forecast.last_close)
    score = score_interval(values[None], np.array([change]), np.zeros(1), horizon, forecast.interval)
    return {
        "origin": pd.Timestamp(forecast.session),
        "horizon": horizon,
        "source": forecast.source,
        "interval": forecast.interval,
        "last_close": forecast.last_close,
        "outcome": outcome,
        "covered": int(score["coverage"]),
        "absolute_error": abs(change - float(values[1])),
        "absolute_error_naive": abs(change),
        "interval_score": score["interval_score"],
        "quantile_loss": score["quantile_loss"],
    }


class HorizonPerformance(TypedDict):
    """Mean scores of one source's forecasts at one horizon. Errors, scores and losses are log returns.

    Attributes:
        coverage_low: lower end of the 95 % confidence interval of the coverage; `coverage_high`: upper end.
        skill: 1 - mae / mae_naive.
    """

    horizon: int
    forecasts: int
    mae: float
    mae_naive: float
    skill: float
    coverage: float
    coverage_low: float
    coverage_high: float
    interval_score: float
    quantile_loss: float


def select_source(scores: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return the rows of the table SCORES that `source` made; a baseline's are those of every baseline."""
    if source.startswith(PREFIX):
        return scores[scores["source"].str.startswith(PREFIX)]
    return scores[scores["source"] == source]


def summarize_scores(scores: pd.DataFrame) -> list[HorizonPerformance]:
    """Return the mean scores by horizon of forecasts by one source."""
    summaries = []
    for horizon, rows in scores.groupby("horizon"):
        mae, mae_naive, coverage = (float(rows[name].mean()) for name in ("absolute_error", "absolute_error_naive", "covered"))
        # Forecasts overlap: only one per `horizon` sessions is an independent trial.
        low, high = wilson_interval(coverage, len(rows) / int(horizon))
        summaries.append(
            HorizonPerformance(
                horizon=int(horizon),
                forecasts=len(rows),
                mae=mae,
                mae_naive=mae_naive,
                skill=1 - mae / mae_naive if mae_naive else 0.0,
                coverage=coverage,
                coverage_low=low,
                coverage_high=high,
                interval_score=float(rows["interval_score"].mean()),
                quantile_loss=float(rows["quantile_loss"].mean()),
            )
        )
    return summaries
