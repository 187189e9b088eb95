"""DAGs whose steps, pods and triggerers fail on purpose."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow_steps.settings import get_setting
from airflow_steps.timetable import SessionTimetable
from drill_steps import python_step, shell_step
from kubernetes.client import models as k8s

RUNNERS = ("triggerer", "worker")
EXIT_CODES = {"success": "0", "invalid_data": "65", "source_unavailable": "69", "error": "1", "nothing_to_do": "99"}

with DAG("drill_runners", schedule=None, catchup=False, default_args={"retries": 1, "retry_delay": timedelta(hours=1)}):
    for runner in RUNNERS:
        for outcome, code in EXIT_CODES.items():
            name = f"{outcome}_{runner}"
            python_step(name, step=name.replace("_", "-"), options={"code": code}, runner=runner)

with DAG("drill_long", schedule=None, catchup=False, max_active_runs=8):
    python_step("long", step="long", options={"seconds": "40"}, retries=1, retry_delay=timedelta(seconds=1))

with DAG("drill_short", schedule=None, catchup=False):
    python_step("short", step="short")

with DAG("drill_days", schedule="0 0 * * *", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    python_step("day", step="day")

# Runs every minute by the timetable of market_daily; a test unpauses it for a while.
every_minute = SessionTimetable("* * * * *", timezone="Asia/Seoul")
with DAG(
    "drill_schedule",
    schedule=every_minute,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=["quiet"],
):
    EmptyOperator(task_id="nothing")

with DAG("drill_timeout", schedule=None, catchup=False):
    python_step("late", step="late", options={"seconds": "300"}, execution_timeout=timedelta(seconds=10))

with DAG("drill_failures", schedule=None, catchup=False, default_args={"retries": 1}):
    small = k8s.V1ResourceRequirements(requests={"memory": "128Mi"}, limits={"memory": "128Mi"})
    for runner in RUNNERS:
        too_much = {"megabytes": "150"}
        python_step(f"memory_{runner}", step=f"memory-{runner}", options=too_much, container_resources=small, runner=runner)
    python_step("crash", step="crash", options={"crash": "yes"})
    python_step("rejected", step="rejected", container_security_context=k8s.V1SecurityContext(privileged=True))
    python_step("unpullable", step="unpullable", image="nowhere.invalid/no-such-image:1", startup_timeout_seconds=20)
    python_step("not_present", step="not-present", image="no-such-image:1", image_pull_policy="Never")
    python_step("missing_program", step="missing-program", cmds=["/no/such/program"])
    no_node = {"kubernetes.io/hostname": "no-such-node"}
    python_step("unschedulable", step="unschedulable", node_selector=no_node, startup_timeout_seconds=20)

with DAG("drill_oddities", schedule=None, catchup=False, user_defined_macros={"greet": lambda: "hello"}):
    python_step("chatty", step="chatty", options={"lines": "60000"})
    python_step("quiet", step="quiet")
    sleeper = k8s.V1Container(
        name="sidecar",
        image=get_setting(os.environ, "COLLECTOR_IMAGE"),
        command=["sleep", "600"],
        security_context=k8s.V1SecurityContext(allow_privilege_escalation=False, capabilities=k8s.V1Capabilities(drop=["ALL"])),
        resources=k8s.V1ResourceRequirements(requests={"cpu": "10m", "memory": "16Mi"}, limits={"memory": "64Mi"}),
    )
    sidecar = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base"), sleeper]))
    python_step("sidecar", step="sidecar", full_pod_spec=sidecar)
    # A triggerer has the serialized DAG, without the macros of its file; a worker has the file.
    python_step("unrendered", step="unrendered", options={"note": "{{ greet() }}"})

with DAG("drill_many", schedule=None, catchup=False):
    first = python_step("noop", step="noop")
    for number in range(100):
        first >> shell_step(f"step_{number:03}", "{{ ti.xcom_pull('noop') }}", seconds=1)

with DAG("drill_disruptions", schedule=None, catchup=False, default_args={"retries": 1}):
    # One is evicted by the kubelet, the other preempted by a pod of higher priority.
    disk = {"ephemeral-storage": "20Mi"}
    limited = k8s.V1ResourceRequirements(requests={"cpu": "100m"} | disk, limits={"memory": "256Mi"} | disk)
    # The kubelet measures a volume once in 60 to 120 s (its volumeStatsAggPeriod and a jitter), and compares every 10 s.
    python_step("evicted", step="evicted", options={"disk": "60", "seconds": "600"}, container_resources=limited, retries=0)
    python_step("preempted", step="preempted", options={"seconds": "30"}, priority_class_name="drill-low")
