"""
### A deployment works

Runs every program once on the sample that the collector's image carries, beside the real artifacts, and tells nobody. Each
`make deploy` ends with a run of it; a run by hand shows whether the cluster still does what it did then.

- `decide`: starts a pod of the collector. **When it fails:** image, registry, quota, or rights: the log says which. 75 or 78: the bucket, its keys, or a network policy.
- `fetch_range`: commits ten months of sessions. **When it fails:** as above.
- `train`, `plot`: train and draw in pods of the trainer. **When it fails:** no node for it (`trainer_node_selector`), or too little memory
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG
from airflow_steps.docs import document
from airflow_steps.operator import StepOperator
from airflow_steps.settings import Settings

SETTINGS = Settings.read()
SAMPLE = {"prices_url": "file:///sample/krx/index/year_{symbol}/{year}.csv", "symbol": "KS11"}
SESSION = "2026-01-15"
ARTIFACTS = {"artifacts": f"{SETTINGS.artifacts}/smoke/{{{{ run_id }}}}"}
MODEL = ARTIFACTS | {"symbol": "KS11", "session": SESSION}

with DAG(
    "market_smoke",
    description="Runs every program once on the sample, to see that a deployment works",
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(minutes=15),
    default_args={"owner": "market-data", "retries": 0, "execution_timeout": timedelta(minutes=3)},
    # Whoever deploys sees how it ends; Slack need not hear of it.
    tags=["market", "deployment", "quiet"],
) as dag:
    decide = StepOperator(
        task_id="decide", program="collector", step="decide", options=ARTIFACTS | SAMPLE | {"session": SESSION}
    )
    fetch_range = StepOperator(
        task_id="fetch_range",
        program="collector",
        step="fetch-prices",
        options=ARTIFACTS | SAMPLE | {"from": "2025-03-01", "to": SESSION},
    )
    train = StepOperator(task_id="train", program="trainer", step="train", options=MODEL)
    plot = StepOperator(task_id="plot", program="trainer", step="plot", options=MODEL)
    decide >> fetch_range >> train >> plot
    document(dag, __doc__)
