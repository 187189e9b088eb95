"""What the monitor reads from Airflow: runs, task instances, backfills, DAGs and component health. Times are UTC and aware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from airflow_steps.failure_log import FailureRecord
from step_contract.schemas import MARKET_TIME_ZONE

FINISHED = ("success", "failed")
DELETED = "deleted"  # not a state of Airflow's: a deleted run has none
RunKey = tuple[str, str]  # ids of the DAG and of the run


@dataclass(frozen=True)
class StepResult:
    """What a step that succeeded has returned: see TaskInstance."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    manifest: str | None = None
    has_picture: bool = False


@dataclass(frozen=True)
class TaskInstance:
    """A task instance in its latest attempt.

    Attributes:
        state: Airflow's state; empty before the task is scheduled.
        state_since: when the task instance entered that state.
        facts: the small values of its step's result.
        manifest: URI of the manifest that its step committed.
        has_picture: whether that artifact contains a picture.
        start_date: when the attempt started; `end_date`: when it ended.
        is_orphaned: it is deferred, and no live triggerer runs its trigger.
    """

    task_id: str
    state: str
    try_number: int = 1
    map_index: int = -1
    state_since: datetime | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    manifest: str | None = None
    has_picture: bool = False
    start_date: datetime | None = None
    end_date: datetime | None = None
    is_orphaned: bool = False

    @property
    def name(self) -> str:
        """The task's id, with the map index of a mapped task."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


@dataclass(frozen=True)
class Run:
    """A DAG run, its task instances in the order in which they started, and the recorded failures of their attempts.

    Attributes:
        failures_unreadable: `failures` may lack the latest ones, as the object store could not be read.
    """

    dag_id: str
    run_id: str
    run_type: str
    state: str
    run_after: datetime
    logical_date: datetime | None = None
    queued_at: datetime | None = None
    start_date: datetime | None = None
    end_date: datetime | None = None
    conf: Mapping[str, Any] = field(default_factory=dict)
    task_instances: Sequence[TaskInstance] = ()
    failures: Sequence[FailureRecord] = ()
    failures_unreadable: bool = False

    @property
    def key(self) -> RunKey:
        """What identifies the run."""
        return self.dag_id, self.run_id

    @property
    def session(self) -> date | None:
        """The trading session that the run is for, as a date in Seoul; None without a logical date."""
        if self.logical_date is None:
            return None
        return self.logical_date.astimezone(MARKET_TIME_ZONE).date()

    def next_attempt_at(self, ti: TaskInstance) -> datetime | None:
        """Return when the next attempt of a task instance in state up_for_retry starts; None if its failure record lacks it."""
        attempt = (ti.task_id, ti.map_index, ti.try_number)
        for failure in reversed(self.failures):
            if (failure.task_id, failure.map_index, failure.try_number) == attempt and failure.next_attempt_at:
                return datetime.fromisoformat(failure.next_attempt_at)
        return None

    @property
    def expected_start(self) -> datetime:
        """The earliest time at which the run could start: once created, due, and with its logical date reached.

        A run that was created too late has an incident of its own.
        """
        created_at = self.queued_at or self.start_date or self.run_after
        return max(created_at, self.run_after, self.logical_date or created_at)


@dataclass(frozen=True)
class Backfill:
    """A backfill from one session to another, both inclusive and in Seoul, with its runs."""

    id: int
    dag_id: str
    from_date: date
    to_date: date
    created_at: datetime
    completed_at: datetime | None
    runs: Sequence[Run]


@dataclass(frozen=True)
class Dag:
    """A DAG. `is_stale`: no file defines it any more. `next_run_after`: when its next scheduled run is due."""

    dag_id: str
    is_paused: bool
    is_stale: bool
    tags: frozenset[str]
    next_run_after: datetime | None


@dataclass(frozen=True)
class Health:
    """Airflow's health.

    Attributes:
        components: status and latest heartbeat by component.
        import_errors: the last line of the traceback by DAG file.
    """

    components: Mapping[str, tuple[str, datetime | None]]
    import_errors: Mapping[str, str]


@dataclass(frozen=True)
class Thresholds:
    """When a person is notified.

    Attributes:
        late_after: a run is late if it has not finished this long after its expected start.
        grace_period: a component may be unhealthy, or a trigger orphaned, for this long. A component that is redeployed or
            rescheduled is down for about a minute.
    """

    late_after: timedelta = timedelta(minutes=60)
    grace_period: timedelta = timedelta(minutes=2)
