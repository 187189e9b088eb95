"""Chains and fans of steps that do nothing, run by StepOperator and by the stock operator."""

from __future__ import annotations

from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG, chain
from airflow_steps.pods.spec import make_pod_arguments
from drill_steps import REPORT_MANIFEST, python_step, shell_step

MANIFEST = "s3://market/artifacts/drills/noop/manifest.json"
CHAIN = 3
FANS = {"few": 6, "fan": 10}
LABELS = {"app.kubernetes.io/name": "collector", "app.kubernetes.io/component": "step"}


def stock_step(task_id: str, seconds: float, *, deferrable: bool) -> KubernetesPodOperator:
    """Return the stock operator with the pod of a step; how it follows the pod is left to its defaults."""
    arguments: dict[str, Any] = make_pod_arguments("collector") | {"deferrable": deferrable, "active_deadline_seconds": 600}
    for name in ("startup_timeout_seconds", "startup_check_interval_seconds"):
        del arguments[name]
    arguments |= {"cmds": ["sh", "-c", REPORT_MANIFEST, "sh"], "arguments": [MANIFEST, str(seconds)]}
    return KubernetesPodOperator(task_id=task_id, labels=LABELS, retries=0, executor=None, **arguments)


def step(task_id: str, seconds: float, way: str) -> Any:
    """Return a step that takes `seconds`, with the operator that `way` names."""
    if way == "ours":
        return shell_step(task_id, MANIFEST, seconds=seconds, retries=0)
    return stock_step(task_id, seconds, deferrable=way == "deferrable")


with DAG("bench_prepare", schedule=None, catchup=False, tags=["quiet"]):
    python_step("noop", step="noop")

for way in ("ours", "stock", "deferrable"):
    with DAG(f"bench_chain_{way}", schedule=None, catchup=False, tags=["quiet"]):
        chain(*(step(f"step_{number}", 0, way) for number in range(CHAIN)))
    for shape, width in FANS.items():
        with DAG(f"bench_{shape}_{way}", schedule=None, catchup=False, max_active_tasks=width, tags=["quiet"]):
            for number in range(width):
                step(f"step_{number:02}", 1, way)
