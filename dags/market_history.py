"""
### The sessions of past years, in one go

Collects every session from `from` to `to` that is not committed yet. Run it by hand, once, before the first training, and
again after a gap. Running it twice is safe: what is committed is passed over.

- `fetch_range`: one Parquet partition for each session of the range. **When it fails:** 69: a year's file is not there; the message names it. 65: the file is wrong; the message names line and column.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param
from airflow_steps.callbacks import at_end
from airflow_steps.docs import document
from airflow_steps.operator import StepOperator
from airflow_steps.settings import Settings

SETTINGS = Settings.read()

with DAG(
    "market_history",
    description="Collects the sessions of past years, by hand, before the first training",
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(hours=12),
    on_success_callback=at_end,
    on_failure_callback=at_end,
    params={
        "from": Param("2021-01-01", type="string", format="date", description="the first day"),
        "to": Param("2025-12-31", type="string", format="date", description="the last day"),
    },
    default_args={
        "owner": "market-data",
        "retries": SETTINGS.retries,
        "retry_delay": timedelta(minutes=5),
    },
    tags=["market", "krx"],
) as dag:
    StepOperator(
        task_id="fetch_range",
        program="collector",
        step="fetch-prices",
        options={
            "from": "{{ params['from'] }}",
            "to": "{{ params['to'] }}",
            "artifacts": SETTINGS.artifacts,
            "symbol": SETTINGS.symbol,
            "prices_url": SETTINGS.prices_url,
        },
        execution_timeout=timedelta(hours=1),
    )
    document(dag, __doc__)
