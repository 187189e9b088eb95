"""Numbers for who watches the pipeline, by Airflow's own way: StatsD. docs/monitoring.md says what each means.

A number is a datagram: nobody waits for it, and where nobody listens, or Airflow's metrics are off, it is lost. Labels are
parts of the name; `statsd.extraMappings` in helm/values.yaml makes labels of them again.
"""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

from airflow.sdk.configuration import conf
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory

if TYPE_CHECKING:
    from step_contract.errors import ExitCode, Termination

    from airflow_steps.pod_status import Try
    from airflow_steps.slots import Slots

# Gauges of a triggerer, sent again and again: the exporter forgets those of one that is gone.
SLOTS = "market_daily.slots.{what}.{triggerer}"  # `there`, `taken`, `waiting`
SLOTS_SECONDS = 10.0
# Timers, in milliseconds as StatsD has them.
WAITED = "market_daily.steps.waited.{dag_id}.{task_id}"  # for a slot and the quota
STARTED = "market_daily.steps.started.{dag_id}.{task_id}"  # from the pod's creation to the container's start
RAN = "market_daily.steps.ran.{dag_id}.{task_id}"  # from the container's start to its end
# A counter.
ENDED = "market_daily.steps.ended.{dag_id}.{task_id}.{cause}"
# Gauges of the process that watches Airflow from outside.
WATCHER_ROUND = "market_daily.watcher.round"  # Unix time
DAG_LATE = "market_daily.dag.{dag_id}.late_seconds"
SESSION_COLLECTED = "market_daily.session.collected"  # Unix time of the session's midnight
TASKS = "market_daily.tasks.{state}"


def named(name: str, **labels: str) -> str:
    """`name` with its labels filled in, in characters that StatsD takes, dots among them only where `name` has them."""
    clean = {key: stats.normalize_name_for_stats(text, False).replace(".", "__") for key, text in labels.items()}
    return name.format(**clean)


@cache
def _set_up() -> None:
    # Airflow does so where tasks run; where triggers run, and beside it, only as a by-product of other imports.
    stats.initialize(factory=get_stats_factory(), export_legacy_names=conf.getboolean("metrics", "legacy_names_on"))


def connect() -> None:
    """Looks the server's name up. The first number does so itself, but may not make an event loop wait for it."""
    _set_up()
    stats.timer()


def gauge(name: str, value: float) -> None:
    """Sends `value` as what `name` is now."""
    _set_up()
    stats.gauge(name, value)


def took(name: str, this: Try, time: timedelta) -> None:
    """Sends how long a part of this try took: `name` is WAITED, STARTED or RAN."""
    _set_up()
    stats.timing(named(name, dag_id=this.dag_id, task_id=this.task_id), time)


def count_end(this: Try, cause: ExitCode | Termination) -> None:
    """Counts that the step of this try has ended by `cause`."""
    _set_up()
    stats.incr(named(ENDED, dag_id=this.dag_id, task_id=this.task_id, cause=cause.name.lower()))


async def tell_load(slots: Slots) -> None:
    """Sends how many of this triggerer's slots are taken and how many steps wait for one, until none is and none does."""
    if slots.told:
        return
    slots.told = True
    try:
        _send_load(slots)
        while slots.taken or slots.waiting:
            await asyncio.sleep(SLOTS_SECONDS)
            _send_load(slots)
    finally:
        slots.told = False


def _send_load(slots: Slots) -> None:
    numbers = {"there": slots.limit, "taken": slots.taken, "waiting": slots.waiting}
    for what, number in numbers.items():
        gauge(named(SLOTS, what=what, triggerer=socket.gethostname()), number)
