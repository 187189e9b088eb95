"""What the monitor reads from Airflow (runs, tasks, backfills, DAGs, health), and its thresholds. Times are UTC and aware."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any

from airflow_steps.failure_log import FailureRecord
from step_contract.paths import find_symbol
from step_contract.schemas import MARKET_TIME_ZONE

FINISHED = ("success", "failed")
DELETED = "deleted"  # not a state of Airflow: it no longer has the run
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
        index_name: what its map index stands for, such as an index's symbol; empty if that is not known, or it is not mapped.
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
    index_name: str = ""

    @property
    def name(self) -> str:
        """The task's id, with what the map index of a mapped task stands for, or the map index."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.index_name or self.map_index}]"

    @property
    def key(self) -> str:
        """What identifies it within its run, as a part of the keys of messages."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


def name_indexes(task_instances: Iterable[TaskInstance]) -> list[TaskInstance]:
    """Return the task instances, the mapped ones with what their map index stands for, if that is known and unambiguous.

    That is Airflow's own name of the map index, which only workers record, or the symbol of an artifact.
    """
    listed, candidates = list(task_instances), dict[int, set[str]]()
    for ti in listed:
        if ti.map_index >= 0:
            found = {ti.index_name, find_symbol(ti.manifest or "")} - {""}
            candidates.setdefault(ti.map_index, set()).update(found)
    names = {map_index: name for map_index, found in candidates.items() if len(found) == 1 for name in found}
    if len(set(names.values())) < len(names):  # the map indexes of one symbol stand for something else
        return listed
    return [replace(ti, index_name=ti.index_name or names.get(ti.map_index, "")) for ti in listed]


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
    def indexes(self) -> dict[int, str]:
        """What each map index stands for, if that is known."""
        return dict(sorted((ti.map_index, ti.index_name) for ti in self.task_instances if ti.index_name))

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
    """A DAG.

    Attributes:
        is_stale: no file defines it any more.
        next_run_after: when its next scheduled run is due.
        late_after: the limit that its tag `late:MINUTES` sets; None without a valid one.
        late_tag_error: what is wrong with its tags of this kind.
    """

    dag_id: str
    is_paused: bool
    is_stale: bool
    tags: frozenset[str]
    next_run_after: datetime | None
    late_after: timedelta | None = None
    late_tag_error: str = ""


@dataclass(frozen=True)
class Health:
    """Airflow's health.

    Attributes:
        components: status and latest heartbeat by component.
        import_errors: the last line of the traceback by DAG file.
    """

    components: Mapping[str, tuple[str, datetime | None]]
    import_errors: Mapping[str, str]


# How long each may last before a person is notified; Thresholds has those that are settings.
# The first deployment creates the database and the monitor's login before the API responds.
STARTUP_GRACE = timedelta(minutes=10)
IMPORT_ERROR_GRACE = timedelta(seconds=30)
# The store's circuit breaker stays open for half a minute after an error.
STORE_GRACE = timedelta(minutes=2)
# The scheduler creates a run within seconds of its due time.
SCHEDULING_GRACE = timedelta(minutes=5)
# The callback records a failure a moment after the task's state changes; half a minute later if another component runs it.
RECORD_GRACE = timedelta(seconds=40)
# An incident is resolved once it has been absent for this long. After a single heartbeat, Airflow considers a component healthy
# for 30 seconds, even if that component has been killed since or is still starting.
RECOVERY_PERIOD = timedelta(seconds=45)
QUEUE_TIMEOUT = timedelta(minutes=10)  # a task that is queued or scheduled


@dataclass(frozen=True)
class Thresholds:
    """When a person is notified: the settings LATE_MINUTES and MONITOR_GRACE_SECONDS, and the DAGs' tags `late:MINUTES`.

    Attributes:
        late_after: a run is late if it has not finished this long after its expected start.
        grace_period: a component may be unhealthy, or a trigger orphaned, for this long. A component that is redeployed or
            rescheduled is down for about a minute.
        dags_late_after: `late_after` of DAGs that have their own, by DAG id.
    """

    late_after: timedelta = timedelta(minutes=60)
    grace_period: timedelta = timedelta(minutes=2)
    dags_late_after: Mapping[str, timedelta] = field(default_factory=dict)

    def with_dags(self, dags: Iterable[Dag]) -> Thresholds:
        """Return the thresholds with the limits that the tags of `dags` set."""
        return replace(self, dags_late_after={dag.dag_id: dag.late_after for dag in dags if dag.late_after})

    def get_late_after(self, dag_id: str) -> timedelta:
        """Return how long after its expected start a run of the DAG may finish."""
        return self.dags_late_after.get(dag_id, self.late_after)
