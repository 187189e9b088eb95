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
from trainer.dataset import list_partitions, read_closes
from trainer.figure import PlotData, render_png
from trainer.forecast_history import PLOTTED_SESSIONS, read_forecasts, select_plottable
from trainer.texts import LANGUAGES, summarize_evaluation

STEP = "plot"


def plot(store: Store, symbol: str, session: date, config: TrainingConfig, language: str) -> Committed:
    """Commit the plot of the model's forecast, or return the one committed from the same model and prices.

    It shows the forecasts of earlier models too, or the validation's if there are none.

    Raises:
        DataError: the model is missing or was trained on other prices, or the model or a price is damaged.
    """
    model_directory = paths.model(symbol, session, config.digest)
    model = load(store, model_directory)
    if model is None:
        uri = store.uri(f"{model_directory}/{paths.MANIFEST}")
        raise DataError(
            f"{uri} is missing: run trainer train --session {session} --symbol {symbol} "
            "with the same --history-years and --model-config"
        )
    if model.schema_version != MODEL_VERSION:
        raise DataError(
            f"{store.uri(model_directory)} has schema version {model.schema_version}, this program supports {MODEL_VERSION}: "
            f"remove its folder and run trainer train --session {session} --symbol {symbol} again"
        )
    files = read(store, model_directory, model)
    forecast = json.loads(files[FORECAST_FILE])
    partitions = list_partitions(store, symbol, date.fromisoformat(forecast["last_session"]), last=PLOTTED_SESSIONS)
    sessions = partitions.sessions
    issued = select_plottable(read_forecasts(store, symbol, session, config.digest, sessions[0]), sessions)
    past = issued or select_plottable(forecast["out_of_sample"], sessions)
    plot_config = config.plot_digest(language, digest(canonical(past)))
    directory = paths.plot(symbol, session, plot_config)
    inputs = {"symbol": symbol, "forecast": model.file(FORECAST_FILE).sha256}
    inputs |= {"prices": partitions.digest, "config": plot_config}
    if committed := find(store, directory, inputs):
        return committed
    closes = read_closes(store, partitions)
    last, trained_on = f"{sessions[-1]} at {closes[-1]}", f"{forecast['last_session']} at {forecast['last_close']}"
    if last != trained_on:
        raise DataError(
            f"{store.uri(model_directory)} was trained up to {trained_on}, but the prices now end with {last}: restore them, "
            f"or remove its folder and run trainer train --session {session} --symbol {symbol} again"
        )
    evaluation = summarize_evaluation(json.loads(files[METRICS_FILE]), forecast["interval"], LANGUAGES[language])
    picture = render_png(PlotData(sessions, closes, forecast, past, bool(issued), evaluation), language)
    facts = {"evaluation": model.facts["evaluation"], "past_forecasts": len(past)}
    content = Content({PLOT_FILE: picture}, rows=0, schema_version=PLOT_VERSION, facts=facts)
    return commit(store, directory, step=STEP, session=session, inputs=inputs, content=content)
