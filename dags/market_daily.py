"""
### KOSPI: prices, headlines and forecast of every session

Checks whether the exchange was open, collects the index and the day's headlines, and issues a forecast. On training days (by
default the 1st and the 15th) it trains the forecaster and plots its forecast. A run is about one **session**: the day of its
logical date in Seoul. On a closed or suspect day nothing is collected. Prices and headlines are collected in parallel, and
neither waits for the other: a feed drops its headlines within days, and forecast and training need the prices only. The
forecast does not wait for the training: it uses the current model of an earlier session. With several indexes (the setting
SYMBOLS), the tasks from `decide` to `plot` are mapped: each index has its own, and one that fails does not stop the others.

Every step commits its artifact with a manifest and returns the manifest's URI (XCom `return_value`; small facts in `facts`); the
task's links lead to both. Forecast and training get the URI of the session's prices from there, the plot that of the model: to use
what was revised since, clear the step that makes it too. Clearing a task is always safe: a step returns what is committed and does not compute it again. To
make a session's artifacts anew, beside the earlier revisions, trigger or backfill a run with the param `remake`, a reason.

Exit codes: 65 and 78 are never retried, 69 is retried until midnight, 75 is retried within minutes, 99 skips the task. A monitor
outside Airflow posts to Slack; no task does.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, get_current_context, task
from airflow_steps import indexes, remake
from airflow_steps.airflow_internals.skipping import skip_downstream
from airflow_steps.callbacks import on_run_end, on_task_failure, on_task_retry
from airflow_steps.operator import StepOperator
from airflow_steps.settings import Settings
from airflow_steps.timetable import SessionTimetable
from kubernetes.client import models as k8s
from step_contract import training_days
from step_contract.facts import DecisionFacts
from step_contract.schemas import MARKET_TIME_ZONE

SETTINGS = Settings.read()
# The exchange closes at 15:30, an hour later on the day of the college entrance exam; the source follows within an hour.
AFTER_CLOSE = SessionTimetable(
    f"{SETTINGS.schedule_time.minute} {SETTINGS.schedule_time.hour} * * *", timezone=MARKET_TIME_ZONE.key
)
TRAINING_DAYS = ", ".join(SETTINGS.training_days)

SESSION = f"{{{{ logical_date.in_timezone('{MARKET_TIME_ZONE.key}').to_date_string() }}}}"
COMMON = {"session": SESSION, "artifacts": SETTINGS.artifacts} | remake.OPTION
INDEX = COMMON | {"symbol": indexes.symbol_option(SETTINGS.symbols)}
PRICES = INDEX | {"prices_url": SETTINGS.prices_url}
# Instead of trainer_cpu and trainer_memory: a forecast loads a network, and fits none.
SMALL = k8s.V1ResourceRequirements(requests={"cpu": "100m", "memory": "1Gi"}, limits={"memory": "1Gi"})

with DAG(
    "market_daily",
    description="Collects the KOSPI and its headlines and forecasts every session, trains and plots on training days",
    doc_md=__doc__,
    schedule=AFTER_CLOSE if SETTINGS.schedule_enabled else None,
    start_date=datetime(1995, 5, 2, tzinfo=MARKET_TIME_ZONE),  # the source's first session; manual runs may be for any
    catchup=False,
    max_active_runs=SETTINGS.max_active_runs,
    # Runs of other DAGs and assets could take a scheduled run's id.
    allowed_run_types=["scheduled", "manual", "backfill"],  # type: ignore[list-item] # Airflow converts them
    dagrun_timeout=timedelta(hours=12),
    on_success_callback=on_run_end,
    on_failure_callback=on_run_end,
    params={"remake": remake.PARAM},
    default_args={
        "owner": "market-data",
        "retries": SETTINGS.retries,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(minutes=10),
        "on_failure_callback": on_task_failure,
        "on_retry_callback": on_task_retry,
    },
    tags=["market", "krx"],
):
    fetch_headlines = StepOperator(
        program="collector",
        step="fetch-headlines",
        options=COMMON | {"feeds": SETTINGS.feeds},
        trigger_rule="one_success",  # of several indexes, the first whose exchange was open
        doc_md="Collects the day's headlines. If some feeds are broken or no longer hold the day, the result says partial; if "
        "no feed holds it, not available for this session.\n\n**When it fails:** 69: no feed can be read, or there is no "
        "headline while a feed may still recover. Clear it the same day: feeds drop their entries within days.",
    )

    def add_index() -> None:
        """Add the tasks of an index; those of several symbols do not wait for each other."""
        decide = StepOperator(
            program="collector",
            step="decide",
            options=PRICES,
            doc_md="Decides whether the session is `open`, `closed` or `suspect`.\n\n**When it fails:** 69: the source is down.",
        )

        @task(**SETTINGS.light_task, doc_md="Selects the branch.\n\n**When it fails:** see its log; clear `decide`.")
        def branch(facts: dict[str, Any]) -> None:
            """Skip the tasks that the decision's state does not select: each is named after a state."""
            skip_downstream(get_current_context(), {DecisionFacts.parse(facts).state})

        exchange_open = EmptyOperator(
            task_id="open", doc_md="Marks a day on which the exchange was open.\n\n**When it fails:** clear it."
        )
        closed = EmptyOperator(
            task_id="closed", doc_md="Marks a day on which the exchange was closed.\n\n**When it fails:** clear it."
        )
        suspect = EmptyOperator(
            task_id="suspect",
            doc_md="Marks a day on which calendar and source contradict each other.\n\n**When it fails:** clear it. If it "
            "succeeds, check the source. For a special closure, add a line to `images/collector/collector/overrides.csv`, deploy, "
            "and clear `decide`. If the bar was only late, clear `decide`.",
        )
        fetch_prices = StepOperator(
            program="collector",
            step="fetch-prices",
            options=PRICES,
            doc_md="Collects the session's bar.\n\n**When it fails:** 69: it is not published yet. 65: the file is invalid, or "
            "the source has corrected a committed session; the message names line and column, or both versions.",
        )
        forecast = StepOperator(
            program="trainer",
            step="forecast",
            options=INDEX | {"prices": fetch_prices.manifest},
            container_resources=SMALL,
            doc_md="Issues the session's forecast from the current model, or from a baseline without one, and scores earlier "
            "forecasts. It is skipped while there are too few sessions; its log names what to collect.\n\n**When it fails:** 65: a "
            "price or the issued forecast is damaged; the message names the object.",
        )

        @task(
            **SETTINGS.light_task,
            trigger_rule="none_failed",
            doc_md=f"Skips the training unless the session's day is a training day: {TRAINING_DAYS}. This applies to open, closed "
            "and suspect days; an open day needs its prices, not its headlines.\n\n**When it fails:** a task upstream has failed; "
            "clear it.",
        )
        def is_training_day(session: str) -> None:
            """Skip the training unless the session's day is a training day."""
            if not training_days.is_training_day(date.fromisoformat(session), SETTINGS.training_days):
                skip_downstream(get_current_context())

        with TaskGroup("model", tooltip=f"On training days: {TRAINING_DAYS}", prefix_group_id=False):
            train = StepOperator(
                program="trainer",
                step="train",
                # On a closed or suspect day, there is none: the history ends with the latest session.
                options=INDEX | {"history_years": SETTINGS.history_years, "prices": fetch_prices.manifest},
                # monitoring/alerts.yaml (StepFailingRepeatedly: six hours) and helm/values.yaml (buckets of step.run) follow
                # from this.
                execution_timeout=timedelta(hours=2),
                doc_md="Trains on every session up to this one; resumes from a checkpoint.\n\n**When it fails:** 65: too little "
                "history; the message says how to collect it.",
            )
            plot = StepOperator(
                program="trainer",
                step="plot",
                options=INDEX | {"plot_language": SETTINGS.plot_language, "model": train.manifest},
                doc_md="Plots the forecast.\n\n**When it fails:** 65: the model is missing or damaged; clear `train`.",
            )

        branch(decide.facts) >> [exchange_open, closed, suspect]
        exchange_open >> [fetch_prices, fetch_headlines]
        fetch_prices >> forecast
        [fetch_prices, closed, suspect] >> is_training_day(SESSION) >> train >> plot

    indexes.add_for_each_index(SETTINGS.symbols, add_index, tooltip="An index: its prices, forecast and model")
