"""Airflow's own StatsD client, for metrics of the project.

Relies on the modules airflow.sdk.observability.stats and .metrics.stats_utils, which Airflow's components use. If they move,
change the imports; if they are removed, use the package `statsd` with the options of `[metrics]`.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cache

from airflow.sdk.configuration import conf
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics.stats_utils import get_stats_factory


@cache
def _initialize() -> None:
    # Airflow initializes its client in task processes; in the triggerer, and outside Airflow, only by chance of an import.
    stats.initialize(factory=get_stats_factory(), export_legacy_names=conf.getboolean("metrics", "legacy_names_on"))


def connect() -> None:
    """Resolve the server's host name. The first metric would do so too, but would block the event loop."""
    _initialize()
    stats.timer()


def normalize_name(text: str) -> str:
    """Return `text` in characters that StatsD accepts."""
    return str(stats.normalize_name_for_stats(text, False))


def set_gauge(name: str, value: float) -> None:
    """Set the gauge `name`."""
    _initialize()
    stats.gauge(name, value)


def observe_duration(name: str, duration: timedelta) -> None:
    """Record a duration, in StatsD's milliseconds."""
    _initialize()
    stats.timing(name, duration)


def count(name: str) -> None:
    """Increase the counter `name` by one."""
    _initialize()
    stats.incr(name)
