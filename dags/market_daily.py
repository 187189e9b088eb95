"""
### The KOSPI, every day after the close

Decides whether the exchange was open, collects the index and the day's headlines, and on the 1st and the 15th trains the
forecaster and plots its forecast. A run is about one **session**: the logical date's day in Seoul.

A closed or suspect day collects nothing. The graph reads from left to right; a step's links lead to what it made.

- `decide`: says `open`, `closed` or `suspect`. **When it fails:** 69: the source is down, it tries again.
- `branch`: leads on to what the decision asks for. **When it fails:** Its log names the answer of `decide`.
- `closed`: the exchange was closed. **When it fails:** It does nothing, and cannot.
- `suspect`: calendar and source contradict each other. **When it fails:** It does nothing, and cannot. What to do about the day: look at the source. Was it a special closure, add a line to `images/collector/collector/overrides.csv`, deploy, clear `decide`. Is the bar only late, clear `decide`.
- `fetch_prices`: the session's bar. **When it fails:** 69: not published yet, it tries again. 65: the file is wrong, or the source has corrected a session that is committed; the message names line and column, or both versions.
- `fetch_headlines`: the day's headlines. **When it fails:** 69: no feed can be read. A single broken feed is left out and named in the manifest.
- `is_training_day`: lets the training through on the 1st and the 15th, open day or not. **When it fails:** A step before it failed: see there.
- `train`: trains on every session up to this one. **When it fails:** 65: too little history; the message says how to collect it. Interrupted, it goes on where it was.
- `plot`: draws the forecast. **When it fails:** 65: the model is missing or damaged; clear `train`.

Every step commits its artifact under a manifest and returns the manifest's URI (XCom `return_value`, small facts in `facts`).
Clearing a task is always safe: what is committed is returned and not made again.
Exit codes: 65 and 78 are never tried again, 69 after half an hour until midnight, 75 after two minutes, 99 is skipped.
No task speaks to Slack: a watcher outside Airflow tells how each run is getting on, what failed and what to do about it.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, task
from airflow_steps.callbacks import at_end
from airflow_steps.docs import document
from airflow_steps.failure_log import note_failure, note_retry
from airflow_steps.operator import StepOperator
from airflow_steps.settings import Settings
from airflow_steps.timetable import SessionTimetable

MARKET = ZoneInfo("Asia/Seoul")
# The exchange closes at 15:30, an hour later on the day of the college entrance exam; the source follows within the hour.
AFTER_THE_CLOSE = SessionTimetable("0 18 * * *", timezone="Asia/Seoul")
TRAINING_DAYS = (1, 15)

SETTINGS = Settings.read()
SESSION = "{{ logical_date.in_timezone('Asia/Seoul').to_date_string() }}"
COMMON = {"session": SESSION, "artifacts": SETTINGS.artifacts}
INDEX = COMMON | {"symbol": SETTINGS.symbol}
MODEL = INDEX | {"history_years": SETTINGS.history_years}
DECIDED = "{{ ti.xcom_pull('decide', key='facts')['%s'] }}"

with DAG(
    "market_daily",
    description="Collects the KOSPI and its headlines every session, trains and plots on the 1st and the 15th",
    schedule=AFTER_THE_CLOSE if SETTINGS.scheduled else None,
    start_date=datetime(1995, 5, 2, tzinfo=MARKET),  # the source's first session: a run by hand may be for any
    catchup=False,
    max_active_runs=SETTINGS.max_active_runs,
    # Another DAG or an asset could take a scheduled run's name.
    allowed_run_types=["scheduled", "manual", "backfill"],  # type: ignore[list-item] # Airflow converts them
    dagrun_timeout=timedelta(hours=12),
    on_success_callback=at_end,
    on_failure_callback=at_end,
    default_args={
        "owner": "market-data",
        "retries": SETTINGS.retries,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(minutes=10),
        "on_failure_callback": note_failure,
        "on_retry_callback": note_retry,
        # Branch and gate take a moment and should not cost a worker pod each; a step sees to itself.
        "executor": SETTINGS.light_executor,
    },
    tags=["market", "krx"],
) as dag:
    decide = StepOperator(
        task_id="decide", program="collector", step="decide", options=INDEX | {"prices_url": SETTINGS.prices_url}
    )

    @task.branch
    def branch(state: str) -> str:
        """Names the task that a decision leads to."""
        return {"open": "fetch_prices", "closed": "closed", "suspect": "suspect"}[state]

    with TaskGroup("collect", tooltip="The session's prices and headlines", prefix_group_id=False):
        fetch_prices = StepOperator(
            task_id="fetch_prices",
            program="collector",
            step="fetch-prices",
            options=INDEX | {"prices_url": SETTINGS.prices_url},
        )
        fetch_headlines = StepOperator(
            task_id="fetch_headlines", program="collector", step="fetch-headlines", options=COMMON | {"feeds": SETTINGS.feeds}
        )
    closed = EmptyOperator(task_id="closed")
    suspect = EmptyOperator(task_id="suspect")

    @task.short_circuit(trigger_rule="none_failed")
    def is_training_day(session: str) -> bool:
        """Whether the session's day is one to train on, whichever branch ran."""
        return date.fromisoformat(session).day in TRAINING_DAYS

    with TaskGroup("forecast", tooltip="On the 1st and the 15th", prefix_group_id=False):
        train = StepOperator(
            task_id="train",
            program="trainer",
            step="train",
            options=MODEL,
            execution_timeout=timedelta(hours=2),
        )
        plot = StepOperator(
            task_id="plot", program="trainer", step="plot", options=MODEL | {"plot_language": SETTINGS.plot_language}
        )

    gate = is_training_day(SESSION)
    decide >> branch(DECIDED % "state") >> [fetch_prices, closed, suspect]
    fetch_prices >> fetch_headlines
    [fetch_headlines, closed, suspect] >> gate
    gate >> train >> plot
    document(dag, __doc__)
