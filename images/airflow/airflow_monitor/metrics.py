"""The monitor's gauges, which it sends through Airflow's StatsD client: see docs/monitoring.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time

from airflow_steps.metrics import format_name
from step_contract import paths
from step_contract.errors import DataError
from step_contract.facts import ForecastFacts
from step_contract.schemas import MARKET_TIME_ZONE

from airflow_monitor.models import FINISHED, Dag, Run, Thresholds
from airflow_monitor.snapshot import Snapshot

# Names in StatsD; `statsd.extraMappings` in helm/values.yaml maps them to names and labels in Prometheus.
LAST_POLL = "market_daily.monitor.last_poll"  # Unix time
DAG_LATE = "market_daily.dag.{dag_id}.late_seconds"
LAST_SESSION = "market_daily.last_collected_session"  # Unix time of the session's midnight in Seoul
FORECAST_DRIFT = "market_daily.forecast_drift"  # 1 or 0
TASK_INSTANCES = "market_daily.task_instances.{state}"

COUNTED_STATES = ("queued", "scheduled", "deferred", "running", "up_for_retry")
PRICES_DIRECTORY = paths.prices_root("KS11").partition("/")[0]


def collect_gauges(
    snapshot: Snapshot, now: datetime, thresholds: Thresholds, last_session: date | None
) -> Iterator[tuple[str, float]]:
    """Yield the name and value of each gauge; `last_session` is the last session whose prices were collected."""
    yield LAST_POLL, now.timestamp()
    states = Counter(ti.state for run in snapshot.runs if run.state not in FINISHED for ti in run.task_instances)
    for state in COUNTED_STATES:
        yield format_name(TASK_INSTANCES, state=state), states[state]
    for dag in snapshot.dags:
        if not dag.is_paused and not dag.is_stale:
            yield format_name(DAG_LATE, dag_id=dag.dag_id), late_seconds(dag, snapshot.runs, now, thresholds)
    if last_session:
        yield LAST_SESSION, datetime.combine(last_session, time(), MARKET_TIME_ZONE).timestamp()
    forecasts = [ForecastFacts.from_facts(ti.facts) for run in snapshot.runs for ti in run.task_instances]
    # Between two sessions, the exporter keeps the value. A forecast of an earlier session says nothing about now.
    current = [
        forecast
        for forecast in forecasts
        if forecast and forecast.is_issued and forecast.session == (last_session and last_session.isoformat())
    ]
    if current:  # of several indexes, one that drifts is enough
        yield FORECAST_DRIFT, float(any(forecast.drift_since for forecast in current))


def late_seconds(dag: Dag, runs: Sequence[Run], now: datetime, thresholds: Thresholds) -> float:
    """Return how many seconds the DAG is behind: its next run is overdue, or a run has exceeded its limit."""
    unfinished = [run for run in runs if run.dag_id == dag.dag_id and run.state not in FINISHED]
    delays = [(now - run.expected_start - thresholds.get_late_after(dag.dag_id)).total_seconds() for run in unfinished]
    delays += [(now - dag.next_run_after).total_seconds()] if dag.next_run_after else []
    return max(0.0, *delays) if delays else 0.0


def latest_session(runs: Sequence[Run], previous: date | None) -> date | None:
    """Return the latest session whose prices a step of `runs` has committed, or `previous` if that is later."""
    sessions = [previous] if previous else []
    manifests = [ti.manifest for run in runs for ti in run.task_instances if ti.manifest]
    for manifest in manifests:
        if PRICES_DIRECTORY in manifest.split("/"):
            try:
                sessions.append(paths.parse_session(manifest))
            except DataError:
                continue
    return max(sessions, default=None)
