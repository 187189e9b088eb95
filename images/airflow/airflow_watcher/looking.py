"""One look at Airflow: all that the watcher judges by, read together."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from airflow_steps import failure_log
from step_contract.errors import StepError
from step_contract.store import Store

from airflow_watcher.airflow_api import Airflow, Unreachable
from airflow_watcher.seen import DELETED, ENDED, Backfill, Dag, Health, Run, Task

log = logging.getLogger(__name__)
QUIET = "quiet"  # the tag of a DAG that somebody else looks after
LATEST = 3  # backfills of a DAG that are looked through for a run's own


@dataclass(frozen=True)
class Look:
    """What was seen: Airflow's health, its DAGs, runs that go on or have changed, those that were deleted, backfills."""

    health: Health
    dags: Sequence[Dag]
    runs: Sequence[Run]
    deleted: Sequence[Run]
    backfills: Sequence[Backfill]


class Eyes:
    """Looks at `airflow`; `store` holds what was noted of failures.

    Remembers which runs went on at the last look, and since when nobody runs a task.
    """

    def __init__(self, airflow: Airflow, store: Store) -> None:
        self.airflow, self.store = airflow, store
        self._active: dict[tuple[str, str], Run] = {}
        self._gone: list[Run] = []
        self._unattended: dict[tuple[str, str, str, int], datetime] = {}
        self._still: set[tuple[str, str, str, int]] = set()

    def look(self, changed_since: datetime, now: datetime) -> Look:
        """What there is to see `now`; raises Unreachable."""
        try:
            return self._look(changed_since, now)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Unreachable(f"it answers what is not expected ({type(error).__name__}: {error})") from error

    def _look(self, changed_since: datetime, now: datetime) -> Look:
        self._still = set()
        health, dags = self.airflow.health(), self.airflow.dags()
        loud = [dag for dag in dags if QUIET not in dag.tags]
        quiet = {dag.dag_id for dag in dags} - {dag.dag_id for dag in loud}
        found = [run for run in self.airflow.runs(changed_since) if run.dag not in quiet]
        deleted = self._deleted(found)
        runs = [self._noted(replace(run, tasks=self._tasks(run, now))) for run in found if run.kind != "backfill"]
        self._unattended = {name: since for name, since in self._unattended.items() if name in self._still}
        self.airflow.forget(runs)
        return Look(health, loud, runs, deleted, self._backfills([run for run in found if run.kind == "backfill"]))

    def _tasks(self, run: Run, now: datetime) -> list[Task]:
        """The run's tasks; one that nobody runs is so since it was first seen so, however long it ran before."""
        tasks = []
        for task in self.airflow.tasks(run):
            name = (run.dag, run.run_id, task.name, task.number)
            if task.unattended:
                self._still.add(name)
                task = replace(task, since=self._unattended.setdefault(name, now))
            tasks.append(task)
        return tasks

    def _deleted(self, found: Sequence[Run]) -> list[Run]:
        there = {(run.dag, run.run_id) for run in found}
        missing = [run for name, run in self._active.items() if name not in there and run.kind != "backfill"]
        self._gone += [replace(run, state=DELETED) for run in missing if not self.airflow.is_there(run)]
        self._active = {(run.dag, run.run_id): run for run in found if run.state not in ENDED}
        return list(self._gone)

    def settle(self) -> None:
        """Forgets the runs that were deleted: that was told."""
        self._gone.clear()

    def _backfills(self, runs: Sequence[Run]) -> list[Backfill]:
        """The backfills that these runs are of, each with all its runs."""
        changed = {(run.dag, run.run_id) for run in runs}
        found = []
        for dag in sorted({run.dag for run in runs}):
            for backfill in self.airflow.backfills(dag)[:LATEST]:
                of_it = self.airflow.runs_of(backfill)
                if changed & {(run.dag, run.run_id) for run in of_it}:
                    found.append(replace(backfill, runs=[self._noted(run) if run.state == "failed" else run for run in of_it]))
        return found

    def _noted(self, run: Run) -> Run:
        try:
            return replace(run, notes=failure_log.read_failures(self.store, run.dag, run.run_id))
        except StepError as error:
            log.warning("why something failed is not known: %s", error)
            return run
