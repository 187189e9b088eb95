"""
### The sessions of past years

Collects (backfills) every session from `from` to `to` that is not committed yet. Trigger it manually, once before the first training and
again after a gap. Triggering it twice is safe: committed sessions are skipped, unless `remake` states a reason to make them anew.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param
from airflow_steps import indexes, remake
from airflow_steps.callbacks import on_run_end
from airflow_steps.operator import StepOperator
from airflow_steps.settings import Settings

SETTINGS = Settings.read()

with DAG(
    "market_history",
    description="Collects the sessions of past years, triggered manually before the first training",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(hours=12),
    on_success_callback=on_run_end,
    on_failure_callback=on_run_end,
    params={
        "from": Param("2021-01-01", type="string", format="date", description="the first day"),
        "to": Param("2025-12-31", type="string", format="date", description="the last day"),
        "remake": remake.PARAM,
    },
    default_args={
        "owner": "market-data",
        "retries": SETTINGS.retries,
        "retry_delay": timedelta(minutes=5),
    },
    tags=["market", "krx", "late:180"],  # minutes after which Slack reports a run as late
):

    def add_index() -> None:
        """Add the tasks of an index."""
        StepOperator(
            task_id="fetch_range",
            program="collector",
            step="fetch-prices",
            options={
                "from": "{{ params['from'] }}",
                "to": "{{ params['to'] }}",
                "artifacts": SETTINGS.artifacts,
                "symbol": indexes.symbol_option(SETTINGS.symbols),
                "prices_url": SETTINGS.prices_url,
                **remake.OPTION,
            },
            execution_timeout=timedelta(hours=1),
            doc_md="Writes one Parquet partition per session of the range.\n\n**When it fails:** 69: a year's file is missing; the "
            "message names it. 65: the file is invalid; the message names line and column.",
        )

    indexes.add_for_each_index(SETTINGS.symbols, add_index, tooltip="An index: its prices")
