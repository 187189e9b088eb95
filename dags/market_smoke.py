"""
### Smoke test of a deployment

Runs every program once on the sample in the collector's image. Its artifacts are stored beside the real ones, under `smoke/`, and
nothing is posted to Slack. `make deploy` ends with a run of it; trigger it manually to check the cluster at any time.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG
from airflow_steps.operator import StepOperator
from airflow_steps.settings import Settings

SETTINGS = Settings.read()
SAMPLE = {"prices_url": "file:///sample/krx/index/year_{symbol}/{year}.csv", "symbol": "KS11"}
SESSION = "2026-01-15"
ARTIFACTS = {"artifacts": f"{SETTINGS.artifacts}/smoke/{{{{ run_id }}}}"}
MODEL = ARTIFACTS | {"symbol": "KS11", "session": SESSION}
NO_TRAINER = "**When it fails:** no node matches `trainer_node_selector`, or the trainer has too little memory."

with DAG(
    "market_smoke",
    description="Runs every program once on the sample, to verify a deployment",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    dagrun_timeout=timedelta(minutes=15),
    default_args={"owner": "market-data", "retries": 0, "execution_timeout": timedelta(minutes=3)},
    # quiet: the monitor ignores this DAG, because `make deploy` reports the outcome.
    tags=["market", "deployment", "quiet"],
):
    decide = StepOperator(
        program="collector",
        step="decide",
        options=ARTIFACTS | SAMPLE | {"session": SESSION},
        doc_md="Starts a pod of the collector.\n\n**When it fails:** image, registry, quota or permissions: the log names it. "
        "75 or 78: the bucket, its keys, or a network policy.",
    )
    fetch_range = StepOperator(
        task_id="fetch_range",
        program="collector",
        step="fetch-prices",
        options=ARTIFACTS | SAMPLE | {"from": "2025-03-01", "to": SESSION},
        doc_md="Commits ten months of sessions.\n\n**When it fails:** the causes are those of `decide`.",
    )
    train = StepOperator(
        program="trainer",
        step="train",
        options=MODEL | {"prices": fetch_range.manifest},
        doc_md=f"Trains a model.\n\n{NO_TRAINER}",
    )
    plot = StepOperator(
        program="trainer",
        step="plot",
        options=MODEL | {"model": train.manifest},
        doc_md=f"Plots its forecast.\n\n{NO_TRAINER}",
    )
    [decide, fetch_range] >> train >> plot
