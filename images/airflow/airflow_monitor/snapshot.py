"""A snapshot of Airflow: everything that the monitor judges by, as of one poll."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from step_contract.store import Store

from airflow_monitor.airflow_client import AirflowClient, AirflowUnavailableError
from airflow_monitor.backfill_tracker import BackfillTracker
from airflow_monitor.failure_reader import FailureReader
from airflow_monitor.models import DELETED, Backfill, Dag, Health, Run
from airflow_monitor.run_tracker import RunTracker

QUIET_TAG = "quiet"  # DAGs with this tag are not monitored


@dataclass(frozen=True)
class Snapshot:
    """Airflow's health, its DAGs, runs that are unfinished or have changed, runs that were deleted, and backfills.

    Attributes:
        taken_at: the snapshot contains every change up to then, by Airflow's clock.
    """

    health: Health
    dags: Sequence[Dag]
    runs: Sequence[Run]
    deleted_runs: Sequence[Run]
    backfills: Sequence[Backfill]
    taken_at: datetime


class SnapshotReader:
    """Reads snapshots through `client`; `store` holds the recorded failures."""

    def __init__(self, client: AirflowClient, store: Store) -> None:
        self.client = client
        self._runs, self._failures = RunTracker(client), FailureReader(store, client.heartbeat)
        self._backfills = BackfillTracker(client, self._failures)

    def read(self, updated_since: datetime, now: datetime) -> Snapshot:
        """Return the snapshot of `now`, with the runs that have changed since. Raises AirflowUnavailableError."""
        try:
            return self._read(updated_since, now)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AirflowUnavailableError(f"unexpected response ({type(error).__name__}: {error})") from error

    def _read(self, updated_since: datetime, now: datetime) -> Snapshot:
        health = self.client.get_health()
        taken_at = self.client.server_time or now
        dags = self.client.list_dags()
        monitored = [dag for dag in dags if QUIET_TAG not in dag.tags]
        quiet_ids = {dag.dag_id for dag in dags} - {dag.dag_id for dag in monitored}
        self._runs.poll(updated_since, taken_at, quiet_ids, now)
        tracked_runs = sorted(
            (tracked for tracked in self._runs.tracked.values() if tracked.run.dag_id not in quiet_ids),
            key=lambda tracked: tracked.run.run_after,
        )
        backfills = self._backfills.poll([tracked.run for tracked in tracked_runs if not tracked.has_details], now)
        detailed = [tracked for tracked in tracked_runs if tracked.has_details]
        runs = [self._failures.attach(tracked.to_run(), tracked.version, now, tracked.reconciliations) for tracked in detailed]
        self._failures.retain({run.key for run in (*runs, *(run for backfill in backfills for run in backfill.runs))})
        deleted = [run for run in runs if run.state == DELETED]
        return Snapshot(health, monitored, [run for run in runs if run.state != DELETED], deleted, backfills, taken_at)

    def forget(self, changed_until: datetime) -> None:
        """Forget the finished and deleted runs that have not changed since: all about them was delivered."""
        self._runs.forget(changed_until)
