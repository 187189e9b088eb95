"""The pipeline's metrics, sent by Airflow's own StatsD client. docs/monitoring.md describes each.

A metric is one UDP datagram: sending never blocks, and it is lost if nothing listens or Airflow's metrics are off. Labels are
parts of the StatsD name; `statsd.extraMappings` in helm/values.yaml turns them into Prometheus labels.
"""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_steps.airflow_internals import statsd_client

if TYPE_CHECKING:
    from step_contract.errors import ExitCode, Termination

    from airflow_steps.pods.slots import PodSlots
    from airflow_steps.pods.spec import TaskInstanceKey

# Gauges of one triggerer, repeated: the exporter drops those of a triggerer that is gone.
POD_SLOTS = "market_daily.pod_slots.{measure}.{triggerer}"  # `limit`, `acquired`, `waiting`
POD_SLOTS_SECONDS = 10.0
# Timers; StatsD's unit is the millisecond.
STEP_QUEUE = "market_daily.step.queue.{dag_id}.{task_id}"  # waiting for a slot and the quota
STEP_START = "market_daily.step.start.{dag_id}.{task_id}"  # from the pod's creation to the container's start
STEP_RUN = "market_daily.step.run.{dag_id}.{task_id}"  # from the container's start to its end
# A counter of attempts.
STEP_ATTEMPTS = "market_daily.step.attempts.{dag_id}.{task_id}.{outcome}"


def format_name(name: str, **labels: str) -> str:
    """Return `name` with its labels filled in, each in characters that StatsD accepts and without dots."""
    clean = {key: statsd_client.normalize_name(text).replace(".", "__") for key, text in labels.items()}
    return name.format(**clean)


def observe_duration(name: str, ti: TaskInstanceKey, duration: timedelta) -> None:
    """Record a duration of the attempt: `name` is STEP_QUEUE, STEP_START or STEP_RUN."""
    statsd_client.observe_duration(format_name(name, dag_id=ti.dag_id, task_id=ti.task_id), duration)


def count_termination(ti: TaskInstanceKey, termination: ExitCode | Termination) -> None:
    """Count an attempt of a step by its outcome."""
    statsd_client.count(format_name(STEP_ATTEMPTS, dag_id=ti.dag_id, task_id=ti.task_id, outcome=termination.name.lower()))


async def report_slots(slots: PodSlots) -> None:
    """Send the state of this triggerer's slots until none is acquired and no step waits for one."""
    if slots.reporting:
        return
    slots.reporting = True
    try:
        _send_slots(slots)
        while slots.acquired or slots.waiting:
            await asyncio.sleep(POD_SLOTS_SECONDS)
            _send_slots(slots)
    finally:
        slots.reporting = False


def _send_slots(slots: PodSlots) -> None:
    values = {"limit": slots.limit, "acquired": slots.acquired, "waiting": slots.waiting}
    for measure, value in values.items():
        statsd_client.set_gauge(format_name(POD_SLOTS, measure=measure, triggerer=socket.gethostname()), value)
