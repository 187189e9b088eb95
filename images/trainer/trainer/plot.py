"""The step `plot`: the forecast of a trained model as a picture."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

from step_contract import paths
from step_contract.commit import Committed, Content, read
from step_contract.errors import DataError
from step_contract.manifest import Manifest, canonical, digest
from step_contract.revisions import Artifact, Logic, list_revisions, select_revisions
from step_contract.schemas import FORECAST_FILE, METRICS_FILE, MODEL_VERSION, PLOT_FILE, PLOT_VERSION
from step_contract.store import Store

from trainer.config import TrainingConfig
from trainer.dataset import list_partitions, read_prices
from trainer.figure import PlotData, render_png
from trainer.forecast_history import PLOTTED_SESSIONS, count_baselines, read_past_forecasts, select_plottable
from trainer.texts import LANGUAGES, summarize_evaluation

LOGIC = Logic("trainer", "plot", code_version=1, schema_version=PLOT_VERSION)


def find_model(store: Store, symbol: str, session: date, config: TrainingConfig) -> tuple[str, Manifest]:
    """Return the directory and the manifest of the latest revision of the session's model.

    With `config.as_of`, this is the latest one that was committed by then, or else the one that was trained with the same
    `as_of` since.

    Raises:
        DataError: there is none, it is damaged, or its schema version cannot be plotted.
    """
    directory = paths.model(symbol, session, replace(config, as_of=None).digest)
    found = select_revisions(store, {directory: list_revisions(store, directory)}, config.as_of)
    if not found and config.as_of:
        directory = paths.model(symbol, session, config.digest, pinned=True)
        found = select_revisions(store, {directory: list_revisions(store, directory)})
    command = f"trainer train --session {session} --symbol {symbol}"
    if not found:
        uri = store.uri(f"{directory}/{paths.MANIFEST}")
        raise DataError(f"{uri} is missing: run {command} with the same --history-years and --model-config")
    [(path, model)] = found.values()
    if model.schema_version != MODEL_VERSION:
        advice = "upgrade the program" if model.schema_version > MODEL_VERSION else f"run {command} --remake REASON"
        raise DataError(
            f"{store.uri(path)} has schema version {model.schema_version}, this program supports {MODEL_VERSION}: {advice}"
        )
    return path.rpartition("/")[0], model


def plot(store: Store, symbol: str, session: date, config: TrainingConfig, language: str, remake: str = "") -> Committed:
    """Commit the plot of the model's forecast, or return the one committed from the same model and prices.

    It shows the forecasts of earlier sessions too, or the validation's if there are none. If the latest one was made from
    another model or other prices, the new one is its next revision. `remake` is a person's reason for a revision from the same.

    Raises:
        DataError: the model is missing or was trained on other prices, or the model or a price is damaged.
    """
    model_directory, model = find_model(store, symbol, session, config)
    files = read(store, model_directory, model)
    forecast = json.loads(files[FORECAST_FILE])
    until, as_of = date.fromisoformat(forecast["last_session"]), config.as_of
    partitions = list_partitions(store, symbol, until, last=PLOTTED_SESSIONS, as_of=as_of)
    sessions = partitions.sessions
    issued_config = replace(config, as_of=None).digest
    issued = select_plottable(read_past_forecasts(store, symbol, session, issued_config, sessions[0], as_of), sessions)
    past = issued or select_plottable(forecast["out_of_sample"], sessions)
    plot_config = config.plot_digest(language, digest(canonical(past)))
    directory = paths.plot(symbol, session, plot_config)
    inputs = {"symbol": symbol, "forecast": model.file(FORECAST_FILE).sha256}
    inputs |= {"prices": partitions.digest, "config": plot_config}
    changed = "the model or the prices changed: {differences}"
    artifact = Artifact(store, directory, LOGIC, session=session, inputs=inputs, remake=remake, changed=changed)
    if committed := artifact.find():
        return committed
    closes = read_prices(store, partitions)["close"]
    last, trained_on = f"{sessions[-1]} at {closes.iloc[-1]}", f"{forecast['last_session']} at {forecast['last_close']}"
    if last != trained_on:
        raise DataError(
            f"{store.uri(model_directory)} was trained up to {trained_on}, but the prices now end with {last}: restore them, "
            f"or run trainer train --session {session} --symbol {symbol} again, which commits a revision beside it"
        )
    evaluation = summarize_evaluation(json.loads(files[METRICS_FILE]), forecast["interval"], LANGUAGES[language])
    picture = render_png(PlotData(closes, forecast, past, bool(issued), evaluation, count_baselines(past)), language)
    facts = {"evaluation": model.facts["evaluation"], "past_forecasts": len(past)}
    return artifact.commit(Content({PLOT_FILE: picture}, rows=0, schema_version=PLOT_VERSION, facts=facts))
