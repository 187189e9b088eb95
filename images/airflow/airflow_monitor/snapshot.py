"""A snapshot of Airflow: everything that the monitor judges by, read in one poll."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from airflow_steps.failure_log import read_failures
from step_contract.errors import StepError
from step_contract.store import Store

from airflow_monitor.airflow_client import AirflowClient, AirflowUnavailableError
from airflow_monitor.models import DELETED, FINISHED, Backfill, Dag, Health, Run, TaskInstance

log = logging.getLogger(__name__)
QUIET_TAG = "quiet"  # DAGs with this tag are not monitored
MAX_BACKFILLS = 3  # latest backfills of a DAG that are searched for a run


@dataclass(frozen=True)
class Snapshot:
    """Airflow's health, its DAGs, runs that are unfinished or were updated, runs that were deleted, and backfills."""

    health: Health
    dags: Sequence[Dag]
    runs: Sequence[Run]
    deleted_runs: Sequence[Run]
    backfills: Sequence[Backfill]


class SnapshotReader:
    """Reads snapshots through `client`; `store` holds the recorded failures.

    Remembers which runs were unfinished in the last snapshot, and since when each orphaned trigger has been orphaned.
    """

    def __init__(self, client: AirflowClient, store: Store) -> None:
        self.client, self.store = client, store
        self._unfinished: dict[tuple[str, str], Run] = {}
        self._deleted: list[Run] = []
        self._orphaned_since: dict[tuple[str, str, str, int], datetime] = {}
        self._orphaned_now: set[tuple[str, str, str, int]] = set()

    def read(self, updated_since: datetime, now: datetime) -> Snapshot:
        """Return the snapshot of `now`. Raises AirflowUnavailableError."""
        try:
            return self._read(updated_since, now)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AirflowUnavailableError(f"unexpected response ({type(error).__name__}: {error})") from error

    def _read(self, updated_since: datetime, now: datetime) -> Snapshot:
        self._orphaned_now = set()
        health, dags = self.client.get_health(), self.client.list_dags()
        monitored = [dag for dag in dags if QUIET_TAG not in dag.tags]
        quiet_ids = {dag.dag_id for dag in dags} - {dag.dag_id for dag in monitored}
        all_runs = [run for run in self.client.list_runs(updated_since) if run.dag_id not in quiet_ids]
        deleted_runs = self._find_deleted(all_runs)
        runs = [self._with_details(run, now) for run in all_runs if run.run_type != "backfill"]
        self._orphaned_since = {key: since for key, since in self._orphaned_since.items() if key in self._orphaned_now}
        self.client.keep_xcoms_of(runs)
        backfills = self._read_backfills([run for run in all_runs if run.run_type == "backfill"])
        return Snapshot(health, monitored, runs, deleted_runs, backfills)

    def _with_details(self, run: Run, now: datetime) -> Run:
        return self._with_failures(replace(run, task_instances=self._read_task_instances(run, now)))

    def _read_task_instances(self, run: Run, now: datetime) -> list[TaskInstance]:
        """Return the run's task instances; an orphaned one is in its state since it was first seen orphaned."""
        task_instances = []
        for ti in self.client.list_task_instances(run):
            if ti.is_orphaned:
                key = (run.dag_id, run.run_id, ti.name, ti.try_number)
                self._orphaned_now.add(key)
                ti = replace(ti, state_since=self._orphaned_since.setdefault(key, now))
            task_instances.append(ti)
        return task_instances

    def _with_failures(self, run: Run) -> Run:
        try:
            return replace(run, failures=read_failures(self.store, run.dag_id, run.run_id))
        except StepError as error:
            log.warning("Cannot read the recorded failures: dag_id=%s run_id=%s: %s", run.dag_id, run.run_id, error)
            return run

    def _find_deleted(self, runs: Sequence[Run]) -> list[Run]:
        """Return the runs that were deleted while unfinished, until they are forgotten."""
        keys = {(run.dag_id, run.run_id) for run in runs}
        missing = [run for key, run in self._unfinished.items() if key not in keys and run.run_type != "backfill"]
        self._deleted += [replace(run, state=DELETED) for run in missing if not self.client.run_exists(run)]
        self._unfinished = {(run.dag_id, run.run_id): run for run in runs if run.state not in FINISHED}
        return list(self._deleted)

    def forget_deleted(self) -> None:
        """Forget the deleted runs, once their messages were delivered."""
        self._deleted.clear()

    def _read_backfills(self, runs: Sequence[Run]) -> list[Backfill]:
        """Return the backfills that these runs belong to, each with all its runs."""
        keys = {(run.dag_id, run.run_id) for run in runs}
        backfills = []
        for dag_id in sorted({run.dag_id for run in runs}):
            for backfill in self.client.list_backfills(dag_id)[:MAX_BACKFILLS]:
                own_runs = self.client.list_backfill_runs(backfill)
                if keys & {(run.dag_id, run.run_id) for run in own_runs}:
                    with_failures = [self._with_failures(run) if run.state == "failed" else run for run in own_runs]
                    backfills.append(replace(backfill, runs=with_failures))
        return backfills
