"""What an issued forecast's files and facts say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from step_contract.facts import ForecastFacts, format_interval, format_points
from step_contract.paths import parse_revision
from step_contract.store import Store

from trainer.daily_forecast.baseline import PREFIX, Forecast
from trainer.daily_forecast.current_model import CurrentModel
from trainer.daily_forecast.drift import Drift
from trainer.daily_forecast.performance import IssuedForecast
from trainer.dataset import SegmentedPrices
from trainer.partitions import PricePartitions
from trainer.train import forecast_record


@dataclass(frozen=True)
class Source:
    """Where a forecast comes from.

    Attributes:
        model: the current model; None if there is none, or it cannot be used.
        path: of the current model's manifest, or of the registry if that is damaged; empty if no model is current.
        problem: why the model at `path` cannot be used; empty if it can.
    """

    model: CurrentModel | None = None
    path: str = ""
    problem: str = ""


def describe_forecast(
    store: Store, symbol: str, history: SegmentedPrices, forecast: Forecast, source: Source, partitions: PricePartitions
) -> dict[str, Any]:
    """Return the content of forecast.json: as a model's, with the source, and without forecasts of the validation."""
    session, close = history.closes.index[-1].date(), float(history.closes.iloc[-1])
    origin: dict[str, Any] = {"name": f"{PREFIX}{forecast.name}"}
    if source.model:
        revision = parse_revision(source.path)
        name = f"model of {source.model.session}" + (f", revision {revision}" if revision > 1 else "")
        origin = {"name": name, "model": source.path, "uri": store.uri(source.path), "digest": source.model.digest}
    elif source.path:
        origin |= {"instead_of": source.path, "problem": source.problem}
    return {
        "symbol": symbol,
        "session": session.isoformat(),
        "model": forecast.name,
        "interval": forecast.interval,
        "is_calibrated": forecast.is_calibrated,
        "source": origin,
        "prices": {"sessions": len(partitions.sessions), "digest": partitions.digest},
        **forecast_record(session, close, forecast.values, forecast.raw),
    }


def make_facts(
    content: dict[str, Any], scores: pd.DataFrame, drift: Drift, source: Source, previous: IssuedForecast | None
) -> ForecastFacts:
    """Return the manifest's facts: the forecast, what became of the one before, and what a person should know.

    Args:
        content: of forecast.json.
        scores: the table SCORES.
        drift: of the source's forecasts.
        source: of the forecast.
        previous: the latest forecast that was issued before.
    """
    points = [{name: point[name]["points"] for name in ("low", "middle", "high")} for point in content["forecast"]]
    outcomes = scores[(scores["session"] == pd.Timestamp(content["session"])) & (scores["horizon"] == 1)].to_dict("records")
    earlier: dict[str, Any] = {}
    if outcomes:
        earlier = {f"previous_{name}": float(outcomes[0][name]) for name in ("low", "middle", "high")}
        earlier |= {"previous_session": f"{outcomes[0]['origin']:%Y-%m-%d}", "previous_within": bool(outcomes[0]["covered"])}
    is_known = previous is not None and previous.content["source"].get("instead_of") == source.path
    return ForecastFacts(
        session=content["session"],
        last_close=content["last_close"],
        source=content["source"]["name"],
        interval=content["interval"],
        **{f"next_{name}": value for name, value in points[0].items()},
        horizon=len(points),
        **points[-1],
        is_calibrated=content["is_calibrated"],
        **earlier,
        problem=source.problem,
        alerts_problem=bool(source.problem) and not is_known,
        drift=drift.description if drift.is_new else "",
        advice=_advise(content, source, drift) if drift.is_new else "",
        drift_since=drift.since.isoformat() if drift.since else "",
    )


def _advise(content: dict[str, Any], source: Source, drift: Drift) -> str:
    """Return what to do about a drift."""
    if not source.model:
        return "Check the prices since then. If they are right, the market has changed: train a model."
    symbol, session = content["symbol"], content["session"]
    return (
        f"Train a new model, trainer train --symbol {symbol} --session {session}, or return to the one before, "
        f'trainer rollback --symbol {symbol} --reason "drift since {drift.since}".'
    )


def summarize_forecast(facts: ForecastFacts) -> str:
    """Return the forecast and what became of the previous one, in a few sentences."""
    last = f"{format_interval(facts.low, facts.middle, facts.high)} {facts.horizon} sessions ahead"
    title = "Forecast" if facts.is_issued else f"Remade forecast, revision {facts.revision}, not the one that was issued,"
    sentences = [
        f"{title} from {format_points(facts.last_close)}, {facts.interval:.0%} interval: "
        f"{format_interval(facts.next_low, facts.next_middle, facts.next_high)} one session ahead, {last} ({facts.source})."
    ]
    if not facts.is_calibrated:
        sentences.append("The interval is not calibrated: too few outcomes are known.")
    if previous := facts.describe_previous():
        sentences.append(f"That of {facts.previous_session}: {previous}.")
    if facts.problem:
        sentences.append(f"The current model cannot be used: {facts.problem}.")
    if facts.drift_since:
        sentences.append(f"Drift since {facts.drift_since}" + (f": {facts.drift}. {facts.advice}" if facts.drift else "."))
    return " ".join(sentences)
