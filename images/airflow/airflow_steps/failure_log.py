"""What is noted when a task fails, for the watcher to tell: an object for each try, in the object store.

A task's failure must not wait for Slack, nor be lost with it: the callback writes down why, and is done.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import redact
from step_contract import paths
from step_contract.errors import RETRY_RULES, RetryRule, StepError, Termination
from step_contract.store import CircuitBreakerStore, Store

from airflow_steps.redaction import discreet
from airflow_steps.retry_policy import StepFailed, StepRefused, rules
from airflow_steps.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)
KILLED = "no reason reached Airflow: what ran it was killed, or could not start"
LOOK = "Look at Airflow's pods (`kubectl get pods`) and at the try's log as far as it goes."
LONGEST = 1500  # characters of a reason


@dataclass(frozen=True)
class Note:
    """A try that failed: of which task, what kind of failure, why, and what a person should do.

    `again`: whether it will be tried again. `times` of `tries` by this cause; None where the task's own number of tries holds.
    `next_at`: when, where that is known; times are ISO 8601 in UTC. `task_id` is empty of a run that failed without a task.
    `final`: whether another try gives the same, so that a person is needed even where Airflow tries again.
    """

    task_id: str
    map_index: int
    number: int
    again: bool
    meaning: str
    why: str
    advice: str
    times: int | None
    tries: int | None
    at: str
    next_at: str | None = None
    final: bool = False

    def to_json(self) -> bytes:
        """The note as it is stored."""
        return json.dumps(asdict(self), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Note:
        """The note that `to_json` stored; raises ValueError or TypeError where it is none."""
        note = cls(**json.loads(data))
        texts, numbers = (note.task_id, note.meaning, note.why, note.advice, note.at), (note.map_index, note.number)
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(number, int) for number in numbers):
            raise ValueError("what should be text or a number is none")
        for moment in filter(None, (note.at, note.next_at)):
            if datetime.fromisoformat(moment).tzinfo is None:
                raise ValueError(f"{moment} names no time zone")
        return note


def note_failure(context: Context) -> None:
    """Notes that the task has failed for good."""
    _note(context, again=False)


def note_retry(context: Context) -> None:
    """Notes that the task will be tried again."""
    _note(context, again=True)


def note_end(context: Context) -> None:
    """Notes that a run was ended as it took too long; what fails by a task, that task's note tells."""
    if context.get("reason") == "timed_out":
        why = "it took longer than it may"
        keep(*run_of(context), Note("", -1, 1, False, why, why, RETRY_RULES[Termination.TIMED_OUT].advice, None, None, _now()))


def note_step_end(this: Any, error: Exception) -> None:
    """Notes how the step of the try `this` ended: all that is known of it where the worker that is to raise `error` is lost."""
    if isinstance(error, StepFailed | StepRefused):
        rule = rules()[error.cause]
        note = _of_try(this, rule.max_attempts > 1, rule, rule.meaning, error.said)
        _keep(paths.termination(this.dag_id, this.run_id, note.task_id, note.map_index, note.number), note)


def _note(context: Context, *, again: bool) -> None:
    this, error = cast("Any", context["ti"]), context.get("exception")
    delay = getattr(this.task, "retry_delay", None)
    if isinstance(error, StepFailed | StepRefused):
        rule = rules()[error.cause]
        delay = delay if rule.delay_seconds is None else timedelta(seconds=rule.delay_seconds)
        note = replace(_of_try(this, again, rule, rule.meaning, error.said), times=error.times, tries=error.tries)
    elif type(error).__name__ in ("AirflowTaskTimeout", "TaskDeferralTimeout"):
        rule = RETRY_RULES[Termination.TIMED_OUT]
        note = _of_try(this, again, rule, rule.meaning, str(error))
    elif error:
        note = _of_try(this, again, RETRY_RULES[Termination.ERROR], "it failed", str(error))
    else:
        note = _of_lost(this, again)
    next_at = (datetime.now(UTC) + delay).isoformat(timespec="seconds") if again and delay else None
    keep(this.dag_id, this.run_id, replace(note, next_at=next_at))


def _of_try(this: Any, again: bool, rule: RetryRule, meaning: str, why: str) -> Note:
    index = -1 if this.map_index is None else this.map_index
    said = discreet(str(redact(why)))[:LONGEST]
    return Note(
        this.task_id,
        index,
        this.try_number,
        again,
        meaning,
        said,
        rule.advice,
        None,
        None,
        _now(),
        final=rule.max_attempts == 1,
    )


def _of_lost(this: Any, again: bool) -> Note:
    """The note of a try whose worker was lost: by how its step ended, where a triggerer has noted that."""
    note = replace(_of_try(this, again, RETRY_RULES[Termination.ERROR], "it failed", KILLED), advice=LOOK)
    try:
        path = paths.termination(this.dag_id, this.run_id, note.task_id, note.map_index, note.number)
        ended = Note.from_json(_store().read(path) or b"")
    except (StepError, ValueError, TypeError):
        return note
    lost = "and the worker that was to settle it was killed, or could not start"
    return replace(note, meaning=ended.meaning, why=f"{ended.why}; {lost}", advice=f"{ended.advice} {LOOK}", final=ended.final)


def run_of(context: Context) -> tuple[str, str]:
    """The names of DAG and run; what Airflow hands to a DAG's callback has them, and not always the run itself."""
    run: Any = context.get("dag_run") or SimpleNamespace(dag_id=context["dag"].dag_id, run_id=context["run_id"])
    return run.dag_id, run.run_id


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def keep(dag: str, run: str, note: Note) -> None:
    """Stores the note. Never raises: a task ends as it ends, and its log keeps what could not be noted."""
    _keep(paths.failure(dag, run, note.task_id or "run", note.map_index, note.number), note)


def _keep(path: str, note: Note) -> None:
    try:
        _store().replace(path, note.to_json())
    except Exception as error:
        log.error("could not be noted for Slack (%s: %s): %s", type(error).__name__, error, note)


def _store() -> CircuitBreakerStore:
    return CircuitBreakerStore(Settings.read().artifacts or "")


def read(store: Store, dag: str, run: str) -> list[Note]:
    """What was noted of the run, in order of time; what is no note is passed over."""
    found = []
    for name, data in store.read_many(store.list(paths.failures(dag, run))).items():
        try:
            found.append(Note.from_json(data or b""))
        except (ValueError, TypeError):
            log.warning("%s is not a note", store.uri(name))
    return sorted(found, key=lambda note: (note.at, note.number))
