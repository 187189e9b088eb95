"""Chains of four and fans of twenty steps that do nothing, by this project's way and by the stock one."""

from __future__ import annotations

from airflow.sdk import DAG, chain
from e2e.drill_steps import python_step, shell_step

MANIFEST = "s3://market/artifacts/drills/noop/manifest.json"

with DAG("bench_prepare", schedule=None, catchup=False):
    python_step("noop", step="noop")

for runner in ("triggerer", "worker"):
    with DAG(f"bench_chain_{runner}", schedule=None, catchup=False):
        chain(*(shell_step(f"step_{number}", MANIFEST, runner=runner) for number in range(4)))
    with DAG(f"bench_fan_{runner}", schedule=None, catchup=False, max_active_tasks=20):
        for number in range(20):
            shell_step(f"step_{number:02}", MANIFEST, seconds=1, runner=runner)
