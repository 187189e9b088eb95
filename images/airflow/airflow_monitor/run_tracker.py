"""Tracks Airflow's runs from poll to poll, so that a poll requests only what has changed since the previous one.

Each poll lists the runs and task instances that were updated since the previous poll. What that can miss, it finds otherwise:
a deleted run by the number of unfinished runs, a change that was committed late by reading each unfinished run again every
few minutes, and a lost triggerer, which changes no task instance, by listing the deferred ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from airflow_monitor.airflow_client import AirflowClient
from airflow_monitor.models import DELETED, FINISHED, Run, RunKey, StepResult, TaskInstance, name_indexes

# Overlap of two polls: a transaction may commit this long after it has set `updated_at`, by a clock that differs this much.
OVERLAP = timedelta(minutes=3)
RECONCILE_INTERVAL = timedelta(minutes=5)
MIN_RUNS_RECONCILED, MAX_POLLS_RECONCILING = 2, 40
DEFERRED_INTERVAL = timedelta(seconds=30)
# A worker stores the links of a step a moment after it has set the task's state.
LINK_DELAY = timedelta(seconds=30)


@dataclass(frozen=True)
class ReadResult:
    """The result of a step's attempt, as read from its XComs `keys`; it is to be read again at `again_at`, if ever."""

    attempt: tuple[int, datetime | None]
    keys: frozenset[str]
    result: StepResult
    again_at: datetime | None


@dataclass
class TrackedRun:
    """A run as last read.

    Attributes:
        run: without task instances.
        task_instances: without results, by task id and map index.
        version: the number of changes.
        reconciliations: how often it was read again without a change.
        changed_at: when a poll last found a change.
        read_at: when all task instances were last read; None if they have to be read.
        results: by task id and map index.
    """

    run: Run
    changed_at: datetime
    version: int = 0
    reconciliations: int = 0
    read_at: datetime | None = None
    task_instances: dict[tuple[str, int], TaskInstance] = field(default_factory=dict)
    results: dict[tuple[str, int], ReadResult] = field(default_factory=dict)

    def update(self, run: Run, now: datetime) -> None:
        """Replace the run; its task instances have to be read if it has changed."""
        if run != self.run:
            self.run, self.read_at = run, None
            self.mark_changed(now)

    def merge(self, ti: TaskInstance, now: datetime) -> None:
        """Replace a task instance; one whose trigger is orphaned is in its state since that was first seen."""
        key = ti.task_id, ti.map_index
        known = self.task_instances.get(key)
        if ti.is_orphaned:
            was_orphaned = known is not None and known.is_orphaned and known.try_number == ti.try_number
            ti = replace(ti, state_since=known.state_since if known and was_orphaned else now)
        if ti != known:
            self.task_instances[key] = ti
            self.mark_changed(now)
        if ti.map_index >= 0:  # a mapped task has one task instance without an index until it is expanded
            self.task_instances.pop((ti.task_id, -1), None)

    def mark_changed(self, now: datetime) -> None:
        """Record a change."""
        self.version, self.changed_at = self.version + 1, now

    @property
    def is_unfinished(self) -> bool:
        """Whether Airflow has the run, queued or running."""
        return self.run.state not in (*FINISHED, DELETED)

    @property
    def has_details(self) -> bool:
        """Whether its task instances are read. A backfill is reported as a whole."""
        return self.run.run_type != "backfill"

    def to_run(self) -> Run:
        """Return the run with its task instances and their results."""
        task_instances = []
        for ti in sorted(self.task_instances.values(), key=_start_time):
            if ti.state == "success" and (ti.task_id, ti.map_index) in self.results:
                result = self.results[ti.task_id, ti.map_index].result
                ti = replace(ti, facts=result.facts, manifest=result.manifest, has_picture=result.has_picture)
            task_instances.append(ti)
        return replace(self.run, task_instances=name_indexes(task_instances))


class RunTracker:
    """Tracks the runs that are unfinished, or have changed and were not forgotten, through `client`.

    A poll that fails midway loses nothing: the next one lists the same changes, and what was to be read is still to be read.
    """

    def __init__(self, client: AirflowClient) -> None:
        self.client = client
        self.tracked: dict[RunKey, TrackedRun] = {}
        self._read_until: datetime | None = None
        self._read_since: datetime | None = None
        self._deferred_at: datetime | None = None
        self._listed: set[RunKey] = set()

    def poll(self, updated_since: datetime, server_time: datetime, ignored_dags: Set[str], now: datetime) -> None:
        """Bring the runs up to date. Raises AirflowUnavailableError.

        Args:
            updated_since: the changes to track; those since the previous poll, unless this is earlier than in any poll before.
            server_time: a time before the poll, by Airflow's clock.
            ignored_dags: ids of DAGs whose task instances are not read.
        """
        is_complete = self._read_until is not None and self._read_since is not None and updated_since >= self._read_since
        since = self._read_until - OVERLAP if is_complete and self._read_until else updated_since
        listed = self.client.list_updated_runs(since)
        self._listed = {run.key for run in listed}
        for run in listed:
            self._update(run, now)
        unfinished = [tracked for tracked in self.tracked.values() if tracked.is_unfinished]
        if not is_complete or self.client.count_unfinished_runs() != len(unfinished):
            self._reconcile_runs(now)
        watched = {
            key: tracked
            for key, tracked in self.tracked.items()
            if tracked.has_details and tracked.run.dag_id not in ignored_dags
        }
        if due := [tracked.run.run_after for tracked in watched.values() if tracked.read_at]:
            self._merge(self.client.list_updated_task_instances(since, min(due)), watched, now)
        self._read_deferred(watched, now)
        for tracked in self._find_due(watched, now):
            self._read_task_instances(tracked, now)
        for tracked in watched.values():
            if tracked.run.state != DELETED:
                self._read_results(tracked, now)
        self._read_until, self._read_since = server_time, min(self._read_since or updated_since, updated_since)

    def forget(self, changed_until: datetime) -> None:
        """Forget runs that are not unfinished and have not changed since, nor according to the latest poll."""
        for key, tracked in list(self.tracked.items()):
            if not tracked.is_unfinished and tracked.changed_at <= changed_until and key not in self._listed:
                del self.tracked[key]

    def _update(self, run: Run, now: datetime) -> None:
        tracked = self.tracked.get(run.key)
        if tracked:
            tracked.update(run, now)
        else:
            self.tracked[run.key] = TrackedRun(run, now)

    def _reconcile_runs(self, now: datetime) -> None:
        """Read all unfinished runs, and those that were unfinished; mark those that Airflow does not have as deleted."""
        unfinished = {run.key: run for run in self.client.list_unfinished_runs()}
        for run in unfinished.values():
            self._update(run, now)
        for key, tracked in self.tracked.items():
            if tracked.is_unfinished and key not in unfinished:
                run_now = self.client.get_run(tracked.run)
                if run_now:
                    tracked.update(run_now, now)
                else:
                    tracked.run = replace(tracked.run, state=DELETED)
                    tracked.mark_changed(now)

    def _merge(self, changes: Iterator[tuple[RunKey, TaskInstance]], watched: dict[RunKey, TrackedRun], now: datetime) -> None:
        for key, ti in changes:
            # A run that was not read yet is read below, with all its task instances.
            if key in watched and watched[key].read_at:
                watched[key].merge(ti, now)

    def _read_deferred(self, watched: dict[RunKey, TrackedRun], now: datetime) -> None:
        deferred = (ti for tracked in watched.values() for ti in tracked.task_instances.values() if ti.state == "deferred")
        if next(deferred, None) and _is_due(self._deferred_at, DEFERRED_INTERVAL, now):
            self._merge(self.client.list_deferred_task_instances(), watched, now)
            self._deferred_at = now

    def _find_due(self, watched: dict[RunKey, TrackedRun], now: datetime) -> list[TrackedRun]:
        """Return the runs whose task instances have to be read, and a few of those that were not read for long."""
        present = [tracked for tracked in watched.values() if tracked.run.state != DELETED]
        changed = [tracked for tracked in present if not tracked.read_at]
        read = sorted(
            ((tracked.read_at, key) for key, tracked in watched.items() if tracked.is_unfinished and tracked.read_at),
        )
        old = [watched[key] for read_at, key in read if _is_due(read_at, RECONCILE_INTERVAL, now)]
        for tracked in old[: max(MIN_RUNS_RECONCILED, len(read) // MAX_POLLS_RECONCILING)]:
            tracked.reconciliations += 1
            changed.append(tracked)
        return changed

    def _read_task_instances(self, tracked: TrackedRun, now: datetime) -> None:
        task_instances = self.client.list_task_instances(tracked.run)
        for ti in task_instances:
            tracked.merge(ti, now)
        removed = tracked.task_instances.keys() - {(ti.task_id, ti.map_index) for ti in task_instances}
        for key in removed:
            del tracked.task_instances[key]
            tracked.mark_changed(now)
        tracked.read_at = now

    def _read_results(self, tracked: TrackedRun, now: datetime) -> None:
        """Read the results of steps that have succeeded since; those without a picture once more, `LINK_DELAY` later."""
        due = []
        for ti in tracked.task_instances.values():
            if ti.state == "success":
                known = tracked.results.get((ti.task_id, ti.map_index))
                if known is None or known.attempt != (ti.try_number, ti.end_date) or (known.again_at and now >= known.again_at):
                    due.append(ti)
        keys = self.client.list_xcom_keys(tracked.run) if due else {}
        for ti in due:
            key = ti.task_id, ti.map_index
            known, attempt = tracked.results.get(key), (ti.try_number, ti.end_date)
            task_keys = keys.get(key, frozenset[str]())
            if known and known.attempt == attempt:
                result, again_at = known.result, None
                if task_keys != known.keys:
                    result = self.client.get_step_result(tracked.run, ti, task_keys)
            else:
                result = self.client.get_step_result(tracked.run, ti, task_keys)
                again_at = None if result.has_picture else now + LINK_DELAY
            tracked.results[key] = ReadResult(attempt, task_keys, result, again_at)


def _start_time(ti: TaskInstance) -> float:
    return ti.start_date.timestamp() if ti.start_date else float("inf")


def _is_due(previous: datetime | None, interval: timedelta, now: datetime) -> bool:
    """Return whether `interval` has passed; also if the clock was set back."""
    return previous is None or not timedelta() <= now - previous < interval
