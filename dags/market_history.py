"""
### The sessions of past years

Collects every session from `from` to `to` that is not committed yet, as the daily runs would have, with one pod of each step for
a whole range instead of one for each session. `steps` selects what is made. Two ways to start it:

- Trigger it manually, for example once before the first training: one run for the whole range.
- **Backfill** it (`make backfill`): one run for each month, so that the months are retried, paused and counted by themselves.

Both can be repeated: committed sessions are skipped, unless `remake` states a reason to make them anew. The forecasts of a month
use the models of the months before, so with `forecast` or `train` the months must run one after another.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param, get_current_context, task
from airflow_steps import indexes, remake
from airflow_steps.airflow_internals.skipping import skip_downstream
from airflow_steps.callbacks import on_run_end, on_task_failure, on_task_retry
from airflow_steps.operator import StepOperator
from airflow_steps.settings import Settings
from airflow_steps.timetable import MonthTimetable
from step_contract.schemas import MARKET_TIME_ZONE

SETTINGS = Settings.read()
STEPS = ("decide", "fetch_prices", "fetch_headlines", "forecast", "train", "plot")

# A backfill's run has one month, of which the params may cut off a part; a manual run has the range of the params, by default
# the five years before it. Dates in ISO format are ordered as texts.
RANGE = {
    "from": "{% if dag_run.run_type == 'backfill' %}{{ [params['from'] or '', logical_date.strftime('%Y-%m-%d')] | max }}"
    "{% else %}{{ params['from'] or (dag_run.run_after - macros.timedelta(days=1826)).strftime('%Y-%m-%d') }}{% endif %}",
    "to": "{% if dag_run.run_type == 'backfill' %}"
    "{{ [params['to'] or '9999-12-31', ((logical_date.replace(day=28) + macros.timedelta(days=4)).replace(day=1)"
    " - macros.timedelta(days=1)).strftime('%Y-%m-%d')] | min }}"
    "{% else %}{{ params['to'] or dag_run.run_after.strftime('%Y-%m-%d') }}{% endif %}",
}
COMMON = RANGE | {"artifacts": SETTINGS.artifacts} | remake.OPTION
INDEX = COMMON | {"symbol": indexes.symbol_option(SETTINGS.symbols)}
PRICES = INDEX | {"prices_url": SETTINGS.prices_url}
TRAINING_DAYS = {"training_days": ",".join(SETTINGS.training_days)}
WHEN_IT_FAILS = "**When it fails:** the message names the first session that failed and how many; the others are committed. "

with DAG(
    "market_history",
    description="Collects the sessions of past years: by hand, or month by month in a backfill",
    doc_md=__doc__,
    schedule=MonthTimetable(),
    start_date=datetime(1995, 5, 1, tzinfo=MARKET_TIME_ZONE),
    catchup=False,
    dagrun_timeout=timedelta(hours=12),
    on_success_callback=on_run_end,
    on_failure_callback=on_run_end,
    params={
        "from": Param(None, type=["null", "string"], format="date", description="the first day; a backfill has its own range"),
        "to": Param(None, type=["null", "string"], format="date", description="the last day; a backfill has its own range"),
        "steps": Param(
            ["fetch_prices"],
            type="array",
            items={"type": "string", "enum": list(STEPS)},
            examples=list(STEPS),
            minItems=1,
            description="what is made of each session; a training needs the prices",
        ),
        "remake": remake.PARAM,
    },
    default_args={
        "owner": "market-data",
        "bulk": True,
        "retries": SETTINGS.retries,
        "retry_delay": timedelta(minutes=5),
        "on_failure_callback": on_task_failure,
        "on_retry_callback": on_task_retry,
    },
    tags=["market", "krx", "late:180"],  # minutes after which Slack reports a run as late
):

    @task(**SETTINGS.light_task, doc_md="Selects the steps.\n\n**When it fails:** see its log; clear it.")
    def select() -> None:
        """Skip the steps that are not selected."""
        context = get_current_context()
        skip_downstream(context, context["params"]["steps"])

    def add_index() -> None:
        """Add the tasks of an index."""
        decide = StepOperator(
            program="collector",
            step="decide",
            options=PRICES,
            execution_timeout=timedelta(hours=1),
            doc_md="Decides for every day whether the exchange was open.\n\n" + WHEN_IT_FAILS + "69: the source is down.",
        )
        fetch_prices = StepOperator(
            program="collector",
            step="fetch-prices",
            options=PRICES,
            execution_timeout=timedelta(hours=1),
            doc_md="Writes one Parquet partition per session of the range.\n\n**When it fails:** 69: a year's file is missing; the "
            "message names it. 65: the file is invalid (the message names line and column), the source has corrected a session, "
            "or calendar and source contradict each other on a day; all other sessions are committed.",
            trigger_rule="none_failed",  # a step that is not selected is skipped
        )
        train = StepOperator(
            program="trainer",
            step="train",
            options=INDEX | TRAINING_DAYS | {"history_years": SETTINGS.history_years},
            execution_timeout=timedelta(hours=6),
            doc_md="Trains a model on each training day of the range, in order.\n\n"
            + WHEN_IT_FAILS
            + "65: too little history.",
            trigger_rule="none_failed",  # a step that is not selected is skipped
        )
        forecast = StepOperator(
            program="trainer",
            step="forecast",
            options=INDEX,
            execution_timeout=timedelta(hours=2),
            doc_md="Issues the forecast of each session that has none, as it would have been issued on its evening.\n\n"
            + WHEN_IT_FAILS
            + "65: a price or an issued forecast is damaged.",
            trigger_rule="none_failed",  # a step that is not selected is skipped
        )
        plot = StepOperator(
            program="trainer",
            step="plot",
            options=INDEX | TRAINING_DAYS | {"plot_language": SETTINGS.plot_language},
            execution_timeout=timedelta(hours=1),
            doc_md="Plots the forecast of each of these models.\n\n" + WHEN_IT_FAILS + "65: a model is missing or damaged.",
            trigger_rule="none_failed",  # a step that is not selected is skipped
        )
        select() >> [decide, fetch_prices, train, forecast, plot]
        # Each waits for all before it: a step that is not selected is skipped at once. A plot shows the forecasts before it.
        fetch_prices >> [train, forecast, plot]
        train >> [forecast, plot]
        forecast >> plot

    fetch_headlines = StepOperator(
        program="collector",
        step="fetch-headlines",
        options=COMMON | {"feeds": SETTINGS.feeds},
        execution_timeout=timedelta(hours=1),
        doc_md="Collects what the feeds still hold of each session, and records what they do not.\n\n"
        + WHEN_IT_FAILS
        + "69: no feed can be read.",
    )
    select.override(task_id="select_headlines")() >> fetch_headlines
    indexes.add_for_each_index(SETTINGS.symbols, add_index, tooltip="An index: its prices, forecasts and models")
