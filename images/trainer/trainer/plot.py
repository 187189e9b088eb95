"""The step `plot`: the forecast of a trained model as a picture."""

from __future__ import annotations

import json
from datetime import date

from step_contract import paths
from step_contract.commit import Committed, Content, commit, find, load, read
from step_contract.errors import DataError
from step_contract.manifest import canonical, digest
from step_contract.schemas import FORECAST_FILE, METRICS_FILE, MODEL_VERSION, PLOT_FILE, PLOT_VERSION
from step_contract.store import Store

from trainer.config import TrainingConfig
from trainer.dataset import committed, read_closes
from trainer.figure import PlotData, render_png
from trainer.forecast_history import PLOTTED_SESSIONS, issued, select_plottable
from trainer.texts import LANGUAGES, in_words

STEP = "plot"


def plot(store: Store, symbol: str, session: date, recipe: TrainingConfig, language: str) -> Committed:
    """Draws the forecast of the model of `session` by `recipe`, or returns the plot committed from the same model and prices.

    Beside it what earlier models have forecast, or where there are none what the validation has. Raises DataError when there
    is no such model, when it was trained on other prices, and when it or a price is damaged.
    """
    model_directory = paths.model(symbol, session, recipe.model)
    model = load(store, model_directory)
    if model is None:
        where = store.uri(f"{model_directory}/{paths.MANIFEST}")
        raise DataError(
            f"{where} is missing: train it with trainer train --session {session} --symbol {symbol}, "
            "and the same --history-years and --model-config as here"
        )
    if model.schema_version != MODEL_VERSION:
        raise DataError(
            f"{store.uri(model_directory)} has schema version {model.schema_version}, this program reads {MODEL_VERSION}: "
            f"remove its folder and run trainer train --session {session} --symbol {symbol} again"
        )
    files = read(store, model_directory, model)
    forecast = json.loads(files[FORECAST_FILE])
    partitions = committed(store, symbol, date.fromisoformat(forecast["last_session"]), last=PLOTTED_SESSIONS)
    sessions = partitions.sessions
    before = select_plottable(issued(store, symbol, session, recipe.model, sessions[0]), sessions)
    past = before or select_plottable(forecast["out_of_sample"], sessions)
    plot_recipe = recipe.plot(language, digest(canonical(past)))
    directory = paths.plot(symbol, session, plot_recipe)
    inputs = {"symbol": symbol, "forecast": model.file(FORECAST_FILE).sha256}
    inputs |= {"prices": partitions.digest, "recipe": plot_recipe}
    if drawn := find(store, directory, inputs):
        return drawn
    closes = read_closes(store, partitions)
    last, trained_on = f"{sessions[-1]} at {closes[-1]}", f"{forecast['last_session']} at {forecast['last_close']}"
    if last != trained_on:
        raise DataError(
            f"{store.uri(model_directory)} was trained up to {trained_on}, but the prices now end with {last}: restore them, "
            f"or remove its folder and run trainer train --session {session} --symbol {symbol} again"
        )
    worth = in_words(json.loads(files[METRICS_FILE]), forecast["interval"], LANGUAGES[language])
    picture = render_png(PlotData(sessions, closes, forecast, past, bool(before), worth), language)
    facts = {"in_words": model.facts["in_words"], "past_forecasts": len(past)}
    content = Content({PLOT_FILE: picture}, rows=0, schema_version=PLOT_VERSION, facts=facts)
    return commit(store, directory, step=STEP, session=session, inputs=inputs, content=content)
