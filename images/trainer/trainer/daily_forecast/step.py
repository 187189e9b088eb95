"""The step `forecast`: issue the forecast of an open session, and score those that were issued before."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import pandas as pd
from step_contract import paths
from step_contract.commit import Committed, Content
from step_contract.errors import ConfigurationError, DataError, NothingToDoError
from step_contract.lineage.references import read_sources
from step_contract.lineage.sources import Source as ArtifactSource
from step_contract.lineage.trace import SCORED
from step_contract.revisions import Artifact, Logic, Revision
from step_contract.schemas import FORECAST_FILE, ISSUED_FORECAST_VERSION, PERFORMANCE_FILE, SCORES
from step_contract.store import Store
from step_contract.tables import to_parquet

from trainer.config import ModelConfig, subtract
from trainer.daily_forecast.baseline import MIN_RETURNS, PREFIX, Forecast, forecast_baseline
from trainer.daily_forecast.current_model import forecast_with_model, read_model
from trainer.daily_forecast.drift import THRESHOLD, find_drift
from trainer.daily_forecast.performance import (
    IssuedForecast,
    read_issued_forecasts,
    score_forecasts,
    select_source,
    summarize_scores,
)
from trainer.daily_forecast.report import Source, describe_forecast, make_facts
from trainer.dataset import SegmentedPrices, feature_values, log_returns, read_segmented_prices
from trainer.model_registry import entry_as_of, read_entries
from trainer.partitions import ROLE, PricePartitions, list_partitions
from trainer.train import to_json

LOGIC = Logic("trainer", "forecast", code_version=1, schema_version=ISSUED_FORECAST_VERSION)
# Of the slow part of its volatility, which is a fifth, `calibration` gives 8 % of the weight to sessions before these.
HISTORY = timedelta(days=5 * 366)
SCORED_SESSIONS = 250  # a year
MAX_PROBLEM_LENGTH = 600

logger = logging.getLogger(__name__)


def issue_forecast(
    store: Store, symbol: str, session: date, config: ModelConfig, remake: str = "", prices: Revision | None = None
) -> Committed:
    """Commit the forecast from the close of `session`, or return the one that was committed before, whatever has changed since.

    It uses what was known when the session closed, even if it runs later: the closes up to the session, in their latest
    revision, and the model that was current then.

    Args:
        store: the artifacts.
        symbol: the index's symbol.
        session: an open session, whose price is committed.
        config: horizon and interval of a baseline.
        remake: a person's reason to forecast again, in a revision beside what was issued; empty for none.
        prices: the session's price partition; None for its latest revision.

    Raises:
        ConfigurationError: `prices` is of another session.
        DataError: a price is damaged or that of the session is missing, or the committed forecast is damaged.
        NothingToDoError: there are too few sessions to forecast from.
    """
    if prices and prices.manifest.session != session:
        raise ConfigurationError(f"--prices {store.uri(prices.path)} is of another session: use one of --session {session}")
    directory, inputs = paths.forecast(symbol, session), {"symbol": symbol, "session": session.isoformat()}
    artifact = Artifact(store, directory, LOGIC, session=session, inputs=inputs, remake=remake, returns_first=True)
    if committed := artifact.find():
        return note_other_prices(store, committed, prices)
    source = read_source(store, symbol, session)
    first = min(session, source.model.last_session) if source.model else session
    partitions = list_partitions(store, symbol, session, subtract(first, HISTORY), pinned=prices)
    history = read_segmented_prices(store, partitions)
    check_history(history, symbol, session)
    source, forecast = make_forecast(store, source, history, config)
    if source.problem:
        logger.warning("The current model cannot be used, a baseline replaces it: %s", source.problem)
    since = history.closes.index[-SCORED_SESSIONS - 1 :][0].date()
    issued = read_issued_forecasts(store, symbol, since, session)
    scores = score_forecasts(issued, history)
    own_scores = select_source(scores, source.path if source.model else PREFIX)
    positions = history.closes.index.get_indexer(pd.DatetimeIndex(own_scores["origin"]))
    drift = find_drift(own_scores, positions, find_known_drift(issued, source))
    content = describe_forecast(store, symbol, history, forecast, source, partitions)
    performance = {
        "source": content["source"]["name"],
        "horizons": summarize_scores(own_scores),
        "drift": {
            "threshold": THRESHOLD,
            "coverage_capital": drift.coverage.capital,
            "error_capital": drift.error.capital,
            "since": drift.since.isoformat() if drift.since else None,
            "description": drift.description,
        },
    }
    files = {FORECAST_FILE: to_json(content), SCORES.file: to_parquet(scores, SCORES), PERFORMANCE_FILE: to_json(performance)}
    facts = make_facts(content, scores, drift, source, issued[-1] if issued else None)
    sources = list_sources(store, source, partitions, issued)
    return artifact.commit(Content(files, len(scores), ISSUED_FORECAST_VERSION, facts.to_facts(), sources))


def note_other_prices(store: Store, committed: Committed, prices: Revision | None) -> Committed:
    """Return the committed forecast, with a note if it was made from another revision of the session's prices than `prices`."""
    if prices is None:
        return committed
    directory = committed.uri.removeprefix(f"{store.root}/").rpartition("/")[0]
    used = {source.sha256 for source in read_sources(store, directory, committed.manifest) if source.role == ROLE}
    if not used or prices.sha256 in used:  # a forecast of before sources were recorded names none
        return committed
    note = f"from other prices than {store.uri(prices.path)}: what was issued stays, --remake REASON makes another"
    return replace(committed, note=f"{committed.note}; {note}" if committed.note else note)


def list_sources(
    store: Store, source: Source, partitions: PricePartitions, issued: Sequence[IssuedForecast]
) -> list[ArtifactSource]:
    """Return what a forecast is made from: the model if one was used, the prices, and the earlier forecasts that are scored."""
    model = [ArtifactSource("model", store.uri(source.path), source.model.digest)] if source.model else []
    return [*model, *partitions.sources, *(ArtifactSource(SCORED, forecast.uri, forecast.sha256) for forecast in issued)]


def read_source(store: Store, symbol: str, session: date) -> Source:
    """Return the model that was current when `session` closed, or why it cannot be read."""
    path = paths.promotions(symbol)
    try:
        if not (entry := entry_as_of(read_entries(store, symbol), session)):
            return Source()
        path = entry.model
        return Source(read_model(store, path), path)
    except DataError as error:
        return Source(None, path, str(error)[:MAX_PROBLEM_LENGTH])


def check_history(history: SegmentedPrices, symbol: str, session: date) -> None:
    """Raise DataError if the last close is not that of `session`, NothingToDoError if there are too few without a gap."""
    last = history.closes.index[-1].date()
    if last != session:
        raise DataError(
            f"{symbol} has no close of {session}, the last is of {last}: collect it with "
            f"collector fetch-prices --symbol {symbol} --session {session}"
        )
    if (count := _count_last_segment(history)) > MIN_RETURNS:
        return
    advice = f"collect earlier ones with collector fetch-prices --symbol {symbol} --from YYYY-MM-DD --to {session}"
    required = f"too few sessions of {symbol} to forecast from {session}: {count} without a gap, {MIN_RETURNS + 1} required"
    raise NothingToDoError(f"{required}; {history.last_gap or advice}")


def _count_last_segment(history: SegmentedPrices) -> int:
    return int((history.segments == history.segments[-1]).sum())


def make_forecast(store: Store, source: Source, history: SegmentedPrices, config: ModelConfig) -> tuple[Source, Forecast]:
    """Return the forecast from the last close by the source's model, or by a baseline if it has none or it cannot be used.

    Returns:
        The source, with the problem if its model could not be used, and the forecast.
    """
    prices = history.prices.iloc[-_count_last_segment(history) :]
    returns, features = log_returns(prices["close"].to_numpy()), feature_values(prices)
    if source.model:
        position = int(prices.index.searchsorted(pd.Timestamp(source.model.last_session), side="right")) - 1
        try:
            return source, forecast_with_model(source.model, returns, max(position, 0), store.uri(source.path), features)
        except DataError as error:
            source = Source(None, source.path, str(error)[:MAX_PROBLEM_LENGTH])
    return source, forecast_baseline(returns, config.horizon, config.interval)


def find_known_drift(issued: Sequence[IssuedForecast], source: Source) -> date | None:
    """Return since when the forecasts were drifting according to the latest one by the same model, or by a baseline."""
    for forecast in reversed(issued):
        if forecast.source == source.path if source.model else forecast.source.startswith(PREFIX):
            return forecast.drift_since
    return None
