"""What the watcher sees of Airflow: runs, their tasks, and what was noted when one of them failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from airflow_steps.failure_log import FailureRecord

SEOUL = ZoneInfo("Asia/Seoul")
ENDED = ("success", "failed")
DELETED = "deleted"  # no state of Airflow's: what is no longer there has none


@dataclass(frozen=True)
class Task:
    """A task instance in its latest try. `since`: when it came into its state. `manifest`: the URI of what its step made.

    `picture`: whether there is one among that. `unattended`: it waits for a trigger that no triggerer runs.
    """

    task_id: str
    state: str
    number: int = 1
    map_index: int = -1
    since: datetime | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    manifest: str | None = None
    picture: bool = False
    unattended: bool = False

    @property
    def name(self) -> str:
        """The task's name, of a mapped one with its index."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


@dataclass(frozen=True)
class Run:
    """A run, its tasks in the order in which they started, and what was noted of their failures. Times are UTC and aware."""

    dag: str
    run_id: str
    kind: str
    state: str
    due: datetime
    logical_date: datetime | None = None
    queued: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    conf: Mapping[str, Any] = field(default_factory=dict)
    tasks: Sequence[Task] = ()
    notes: Sequence[FailureRecord] = ()

    @property
    def session(self) -> date | None:
        """The session that the run is about; None where it is about none."""
        if self.logical_date is None:
            return None
        return self.logical_date.astimezone(SEOUL).date()

    def next_try(self, task: Task) -> datetime | None:
        """When a task that waits for its next try has it; None where nobody noted it."""
        for note in reversed(self.notes):
            if (note.task_id, note.map_index, note.try_number) == (
                task.task_id,
                task.map_index,
                task.number,
            ) and note.next_attempt_at:
                return datetime.fromisoformat(note.next_attempt_at)
        return None

    @property
    def since(self) -> datetime:
        """When the run could begin: made, due, and its logical date not ahead. That it was made late is told by itself."""
        made = self.queued or self.started or self.due
        return max(made, self.due, self.logical_date or made)


@dataclass(frozen=True)
class Backfill:
    """A backfill and the runs that belong to it."""

    id: int
    dag: str
    first: date
    last: date
    created: datetime
    completed: datetime | None
    runs: Sequence[Run]


@dataclass(frozen=True)
class Dag:
    """A DAG: whether it is paused, whether no file defines it any more, its tags, and when its next run is due."""

    dag_id: str
    paused: bool
    gone: bool
    tags: frozenset[str]
    next_due: datetime | None


@dataclass(frozen=True)
class Health:
    """What Airflow says of itself: each component's status, when it was last heard of, and DAG files that do not load.

    `broken`: by file, the last line of why.
    """

    components: Mapping[str, tuple[str, datetime | None]]
    broken: Mapping[str, str]
