"""The step `plot`: the forecast of a trained model as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime

from step_contract import paths
from step_contract.commit import Committed, Content, read_file
from step_contract.errors import ConfigurationError, DataError
from step_contract.lineage.references import read_sources
from step_contract.manifest import canonical, digest
from step_contract.revisions import Artifact, Logic, Revision, select_revisions
from step_contract.schemas import FORECAST_FILE, METRICS_FILE, MODEL_VERSION, PLOT_FILE, PLOT_VERSION
from step_contract.store import Store

from trainer.config import plot_digest
from trainer.dataset import read_prices
from trainer.figure import PlotData, render_png
from trainer.forecast_history import PLOTTED_SESSIONS, count_baselines, read_past_forecasts, select_plottable
from trainer.partitions import PricePartitions, list_partitions, read_recorded_partitions
from trainer.texts import LANGUAGES, summarize_evaluation

LOGIC = Logic("trainer", "plot", code_version=1, schema_version=PLOT_VERSION)


def find_latest_model(store: Store, symbol: str, session: date, as_of: datetime | None = None) -> Revision:
    """Return the model of the session that was committed last, whatever its configuration.

    Models that reproduce a past result do not count. With `as_of`, it is the last one that was committed by then, or else the
    one that was trained with the same `as_of` since.

    Raises DataError if there is none, or the latest revision of one is damaged.
    """
    models = paths.group_revisions(store.list(paths.session_models(symbol, session)))
    found = list(select_revisions(store, models, as_of).values())
    if not found and as_of:
        pinned = paths.group_revisions(store.list(paths.session_models(symbol, session, pinned=True)))
        time = as_of.isoformat()
        found = [model for model in select_revisions(store, pinned).values() if model.manifest.inputs.get("as_of") == time]
    if not found:
        uri = store.uri(paths.session_models(symbol, session))
        time = f" that was committed by {as_of.isoformat()}, or trained with the same --as-of" if as_of else ""
        raise DataError(f"{uri} has no model{time}: run {_make_command(symbol, session)}")
    return max(found, key=lambda model: (model.manifest.created, model.path))


def check_model(store: Store, model: Revision, symbol: str, session: date) -> None:
    """Raise ConfigurationError if the model is of another session, DataError if its schema version cannot be plotted."""
    manifest, uri = model.manifest, store.uri(model.path)
    if manifest.session != session:
        raise ConfigurationError(f"--model {uri} is of another session: use one of --session {session}")
    if manifest.schema_version != MODEL_VERSION:
        command = f"run {_make_command(symbol, session)} --remake REASON"
        advice = "upgrade the program" if manifest.schema_version > MODEL_VERSION else command
        raise DataError(f"{uri} has schema version {manifest.schema_version}, this program supports {MODEL_VERSION}: {advice}")


def _make_command(symbol: str, session: date) -> str:
    return f"trainer train --session {session} --symbol {symbol}"


def plot(
    store: Store,
    symbol: str,
    session: date,
    model: Revision,
    language: str,
    remake: str = "",
    as_of: datetime | None = None,
) -> Committed:
    """Commit the plot of the model's forecast, or return the one committed from the same model and prices.

    The prices are those that the model was trained on. It shows the forecasts of earlier sessions too, or the validation's if
    there are none; with `as_of`, those that were committed by then. If the latest one was made from another model or other
    prices, the new one is its next revision. `remake` is a person's reason for a revision from the same.

    Raises:
        ConfigurationError: the model is of another session.
        DataError: the model or a price is missing or damaged, or the model was trained on other prices.
    """
    check_model(store, model, symbol, session)
    forecast, metrics = (
        json.loads(read_file(store, model.directory, model.manifest.file(name))) for name in (FORECAST_FILE, METRICS_FILE)
    )
    partitions = find_prices(store, symbol, model, date.fromisoformat(forecast["last_session"]), as_of)
    sessions = partitions.sessions
    config = paths.parse_config(model.directory)
    preferred_config = model.manifest.inputs.get("as_of_config", config)
    known = {
        past.content["last_session"]: past
        for past in read_past_forecasts(store, symbol, session, preferred_config, sessions[0], as_of)
    }
    issued = select_plottable([past.content for past in known.values()], sessions)
    past = issued or select_plottable(forecast["out_of_sample"], sessions)
    plot_config = plot_digest(config, language, digest(canonical(past)))
    inputs = {"symbol": symbol, "forecast": model.manifest.file(FORECAST_FILE).sha256}
    inputs |= {"prices": partitions.digest, "config": plot_config}
    directory, changed = paths.plot(symbol, session, plot_config), "the model or the prices changed: {differences}"
    artifact = Artifact(store, directory, LOGIC, session=session, inputs=inputs, remake=remake, changed=changed)
    if committed := artifact.find():
        return committed
    with _advise(store, symbol, session, model):
        closes = read_prices(store, partitions)["close"]
    last, trained_on = f"{sessions[-1]} at {closes.iloc[-1]}", f"{forecast['last_session']} at {forecast['last_close']}"
    if last != trained_on:
        raise DataError(
            f"{store.uri(model.path)} was trained up to {trained_on}, but the prices now end with {last}: restore them, "
            f"or run {_make_command(symbol, session)} again, which commits a revision beside it"
        )
    evaluation = summarize_evaluation(metrics, forecast["interval"], LANGUAGES[language])
    picture = render_png(PlotData(closes, forecast, past, bool(issued), evaluation, count_baselines(past)), language)
    facts = {"evaluation": model.manifest.facts["evaluation"], "past_forecasts": len(past)}
    sources = [model.source(store, "model"), *partitions.sources]
    sources += [known[shown["last_session"]].source for shown in issued]
    return artifact.commit(Content({PLOT_FILE: picture}, 0, PLOT_VERSION, facts, sources))


@contextmanager
def _advise(store: Store, symbol: str, session: date, model: Revision) -> Iterator[None]:
    """Add to an error about the model's prices what to do if another revision of them repairs it: the model names this one."""
    try:
        yield
    except DataError as error:
        retrain = f"{_make_command(symbol, session)} --remake REASON"
        raise DataError(
            f"{error}. {store.uri(model.path)} was trained on it: after a revision beside it, run {retrain}"
        ) from None


def find_prices(store: Store, symbol: str, model: Revision, until: date, as_of: datetime | None) -> PricePartitions:
    """Return the prices of the last sessions that the model was trained on, up to `until`.

    A model of before manifests named their sources does not record them: then these are the latest revisions, or the latest
    ones that were committed by `as_of`.
    """
    sources = read_sources(store, model.directory, model.manifest)
    with _advise(store, symbol, model.manifest.session, model):
        recorded = read_recorded_partitions(store, symbol, sources, PLOTTED_SESSIONS)
    if recorded:
        return recorded
    return list_partitions(store, symbol, until, last=PLOTTED_SESSIONS, as_of=as_of)
