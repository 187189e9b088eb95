"""Tracks backfills from poll to poll, so that a poll requests a backfill's runs only if it finds one that it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from airflow_monitor.airflow_client import AirflowClient
from airflow_monitor.failure_reader import FailureReader
from airflow_monitor.models import DELETED, FINISHED, Backfill, Run, RunKey

MAX_BACKFILLS = 3  # latest backfills of a DAG that are searched for a run


class BackfillTracker:
    """Reads backfills through `client`, and the failures of their runs through `failures`."""

    def __init__(self, client: AirflowClient, failures: FailureReader) -> None:
        self.client, self.failures = client, failures
        self._backfills: dict[int, Backfill] = {}
        self._runs: dict[int, dict[RunKey, Run]] = {}
        self._without_backfill: set[RunKey] = set()

    def poll(self, runs: Sequence[Run], now: datetime) -> list[Backfill]:
        """Return the backfills that these runs belong to, each with all its runs. Raises AirflowUnavailableError.

        Args:
            runs: runs of backfills that are unfinished or have changed, as they are now.
        """
        current = {run.key: run for run in runs}
        self._without_backfill &= current.keys()
        for dag_id in sorted({run.dag_id for run in runs}):
            known = {key for id in self._ids(dag_id) for key in self._runs[id]} | self._without_backfill
            if any(key not in known for key in current if key[0] == dag_id):
                self._read(dag_id, with_runs=True)
            elif any(self._is_completing(id, current) for id in self._ids(dag_id)):
                self._read(dag_id, with_runs=False)
        self._without_backfill |= current.keys() - {key for own in self._runs.values() for key in own}
        for id, own in list(self._runs.items()):
            self._runs[id] = {key: current.get(key, run) for key, run in own.items()}
            if not current.keys() & own.keys():
                del self._runs[id], self._backfills[id]
        return [self._with_runs(id, now) for id in sorted(self._runs, reverse=True)]

    def _ids(self, dag_id: str) -> list[int]:
        return [id for id, backfill in self._backfills.items() if backfill.dag_id == dag_id]

    def _is_completing(self, id: int, current: dict[RunKey, Run]) -> bool:
        """Return whether all runs have finished, and Airflow has not yet been seen to have completed the backfill."""
        states = {current.get(key, run).state for key, run in self._runs[id].items()}
        return self._backfills[id].completed_at is None and not states - {*FINISHED, DELETED}

    def _read(self, dag_id: str, *, with_runs: bool) -> None:
        for backfill in self.client.list_backfills(dag_id, MAX_BACKFILLS):
            if with_runs:
                self._runs[backfill.id] = {run.key: run for run in self.client.list_backfill_runs(backfill)}
            if backfill.id in self._runs:
                self._backfills[backfill.id] = backfill

    def _with_runs(self, id: int, now: datetime) -> Backfill:
        runs = [run for run in self._runs[id].values() if run.state != DELETED]
        attached = [self.failures.attach(run, (run.state, run.end_date), now) for run in runs]
        return replace(self._backfills[id], runs=attached)
