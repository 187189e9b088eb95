"""Reads the recorded failures of runs from the object store, and keeps what it has read while the store is unavailable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from airflow_steps.failure_log import FailureRecord, read_failures
from step_contract.errors import StepError
from step_contract.store import Store

from airflow_monitor.models import FINISHED, Run, RunKey

log = logging.getLogger(__name__)
# A failure is recorded a moment after its task's state changes, or later if another component runs the callback.
RECORD_TIMEOUT = timedelta(minutes=3)


@dataclass
class _KnownFailures:
    """The records of a run, as read for `read_for`; its version is `version` since `changed_at`."""

    version: Hashable
    changed_at: datetime
    read_for: tuple[Hashable, int] | None = None
    records: Sequence[FailureRecord] = ()


class FailureReader:
    """Reads records from `store`. `heartbeat` is called before each read."""

    def __init__(self, store: Store, heartbeat: Callable[[], None]) -> None:
        self.store, self.heartbeat = store, heartbeat
        self._known: dict[RunKey, _KnownFailures] = {}

    def attach(self, run: Run, version: Hashable, now: datetime, reconciliation: int = 0) -> Run:
        """Return the run with its recorded failures; read them only if some may have been added.

        Args:
            version: differs from that of the previous call if the run or one of its task instances has changed.
            reconciliation: differs if the records have to be read again all the same.
        """
        if run.key not in self._known and not _may_have_failures(run):
            return run
        known = self._known.setdefault(run.key, _KnownFailures(version, now))
        if known.version != version:
            known.version, known.changed_at = version, now
        is_expected = now - known.changed_at < RECORD_TIMEOUT and _lacks_record(run, known.records)
        if known.read_for != (version, reconciliation) or is_expected:
            self.heartbeat()
            try:
                known.records = read_failures(self.store, run.dag_id, run.run_id)
                known.read_for = version, reconciliation
            except StepError as error:
                log.warning("Cannot read the recorded failures: dag_id=%s run_id=%s: %s", run.dag_id, run.run_id, error)
        is_unreadable = known.read_for is None or known.read_for[0] != version
        return replace(run, failures=known.records, failures_unreadable=is_unreadable)

    def retain(self, keys: Set[RunKey]) -> None:
        """Forget all other runs."""
        self._known = {key: known for key, known in self._known.items() if key in keys}


def _may_have_failures(run: Run) -> bool:
    """Return whether failures may be recorded; a task that was marked as success shows no trace of an earlier failure."""
    has_failed = (ti.state in ("failed", "up_for_retry") or ti.try_number > 1 for ti in run.task_instances)
    return run.state in FINISHED or any(has_failed)


def _lacks_record(run: Run, records: Sequence[FailureRecord]) -> bool:
    """Return whether an attempt that ended, or the run, has no record. One that a person cleared never has one."""
    recorded = {(record.task_id, record.map_index, record.try_number): record for record in records}
    if run.state == "failed" and not any(ti.state == "failed" for ti in run.task_instances):
        return not any(not record.will_retry for record in records)
    for ti in run.task_instances:
        latest = recorded.get((ti.task_id, ti.map_index, ti.try_number))
        if ti.state in ("failed", "up_for_retry") and (latest is None or latest.will_retry != (ti.state == "up_for_retry")):
            return True
        if any((ti.task_id, ti.map_index, number) not in recorded for number in range(1, ti.try_number)):
            return True
    return False
