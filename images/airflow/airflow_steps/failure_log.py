"""Why attempts failed: one object for each in the object store, which the monitor reads to notify Slack.

A failing task neither waits for Slack nor depends on it: it stores the reason, and the monitor delivers it.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from step_contract import paths
from step_contract.errors import RETRY_RULES, RetryRule, StepError, Termination
from step_contract.store import CircuitBreakerStore, Store
from step_contract.strict_json import parse_object

from airflow_steps.airflow_internals.task_instances import is_task_timeout
from airflow_steps.airflow_internals.task_log import redact_secrets
from airflow_steps.outcome import PermanentStepError, StepFailedError, make_printable
from airflow_steps.redaction import redact_text
from airflow_steps.retry_policy import StepRetryPolicy, read_retry_rules
from airflow_steps.settings import Settings

log = logging.getLogger(__name__)
WORKER_LOST = "no failure reason recorded: the worker was killed or did not start"
CHECK_PODS = "Check Airflow's pods (`kubectl get pods`) and the end of the attempt's log."
MAX_REASON_LENGTH = 1500
MAX_RECORD_BYTES = 2**20


@dataclass(frozen=True)
class FailureRecord:
    """A failed attempt of a task, or a run that timed out.

    Attributes:
        task_id: "" for a run that failed without a task.
        map_index: -1 for a task that is not mapped.
        will_retry: whether Airflow retries the task.
        meaning: the kind of failure, as in `step_contract.errors`.
        reason: what happened.
        advice: what the person on call should do.
        attempt: how many attempts have failed this way, of `max_attempts`; both are None for a task that is no step.
        recorded_at: ISO 8601 with time zone, as is `next_attempt_at`.
        next_attempt_at: None if it is not known.
        permanent: whether another attempt would fail in the same way, even if Airflow retries the task.
    """

    task_id: str
    map_index: int
    try_number: int
    will_retry: bool
    meaning: str
    reason: str
    advice: str
    attempt: int | None
    max_attempts: int | None
    recorded_at: str
    next_attempt_at: str | None = None
    permanent: bool = False

    def to_json(self) -> bytes:
        """Serialize the record."""
        return json.dumps(asdict(self), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> FailureRecord:
        """Parse a record. Raises ValueError or TypeError if it is invalid."""
        record = cls(**parse_object(data, MAX_RECORD_BYTES))
        for name, types in FIELD_TYPES.items():
            if type(getattr(record, name)) not in types:
                raise TypeError(f"{name} has the wrong type")
        for timestamp in filter(None, (record.recorded_at, record.next_attempt_at)):
            if datetime.fromisoformat(timestamp).tzinfo is None:
                raise ValueError(f"{timestamp} has no time zone")
        return record


FIELD_TYPES = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(FailureRecord).items()}


def record_failure(ti: Any, error: BaseException | str | None, *, will_retry: bool) -> None:
    """Record why an attempt of a task failed; `error` is None if its worker was lost."""
    delay = getattr(ti.task, "retry_delay", None)
    if isinstance(error, StepFailedError | PermanentStepError):
        rule = read_retry_rules()[error.termination]
        policy = getattr(ti.task, "retry_policy", None)
        delay = policy.get_delay(error.termination) if isinstance(policy, StepRetryPolicy) else delay
        record = _make_record(ti, will_retry, rule, rule.meaning, error.reason)
        record = replace(record, attempt=error.attempt, max_attempts=error.max_attempts)
    elif is_task_timeout(error):
        rule = RETRY_RULES[Termination.TIMED_OUT]
        record = _make_record(ti, will_retry, rule, rule.meaning, str(error))
    elif error:
        record = _make_record(ti, will_retry, RETRY_RULES[Termination.ERROR], "failed", str(error))
    else:
        record = _make_lost_record(ti, will_retry)
    next_attempt_at = (datetime.now(UTC) + delay).isoformat(timespec="seconds") if will_retry and delay else None
    write_failure(ti.dag_id, ti.run_id, replace(record, next_attempt_at=next_attempt_at))


def record_run_timeout(dag_id: str, run_id: str) -> None:
    """Record that the run exceeded its DAG's `dagrun_timeout`."""
    reason, advice = "the run exceeded its dagrun_timeout", RETRY_RULES[Termination.TIMED_OUT].advice
    write_failure(dag_id, run_id, FailureRecord("", -1, 1, False, reason, reason, advice, None, None, _now()))


def record_termination(ti: Any, error: Exception) -> None:
    """Record how the attempt's step terminated, so that the reason is known even if the worker that raises `error` is lost."""
    if isinstance(error, StepFailedError | PermanentStepError):
        rule = read_retry_rules()[error.termination]
        record = _make_record(ti, rule.max_attempts > 1, rule, rule.meaning, error.reason)
        _write(paths.termination(ti.dag_id, ti.run_id, record.task_id, record.map_index, record.try_number), record)


def _make_record(ti: Any, will_retry: bool, rule: RetryRule, meaning: str, reason: str) -> FailureRecord:
    return FailureRecord(
        ti.task_id,
        -1 if ti.map_index is None else ti.map_index,
        ti.try_number,
        will_retry,
        meaning,
        make_printable(redact_text(str(redact_secrets(reason))))[:MAX_REASON_LENGTH],
        rule.advice,
        None,
        None,
        _now(),
        permanent=rule.max_attempts == 1,
    )


def _make_lost_record(ti: Any, will_retry: bool) -> FailureRecord:
    """Return the record of an attempt whose worker was lost, with its step's termination if a triggerer recorded it."""
    record = _make_record(ti, will_retry, RETRY_RULES[Termination.ERROR], "failed", WORKER_LOST)
    record = replace(record, advice=CHECK_PODS)
    try:
        path = paths.termination(ti.dag_id, ti.run_id, record.task_id, record.map_index, record.try_number)
        step = FailureRecord.from_json(get_shared_store().read(path) or b"")
    except (StepError, ValueError, TypeError):
        return record
    reason = f"{step.reason}; the worker that should set the task's state was killed or did not start"
    advice = f"{step.advice} {CHECK_PODS}"
    return replace(record, meaning=step.meaning, reason=reason, advice=advice, permanent=step.permanent)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_failure(dag_id: str, run_id: str, record: FailureRecord) -> None:
    """Store the record. Never raises: if the store is unavailable, the record is only logged."""
    _write(paths.failure(dag_id, run_id, record.task_id or "run", record.map_index, record.try_number), record)


def _write(path: str, record: FailureRecord) -> None:
    try:
        get_shared_store().replace(path, record.to_json())
    except Exception as error:
        log.error("cannot store the failure record (%s: %s): %s", type(error).__name__, error, record)


def get_shared_store() -> CircuitBreakerStore:
    """Return the store of the deployment's artifacts, one for all callers in the process: its circuit breaker is shared.

    Raises ConfigurationError if ARTIFACTS is invalid.
    """
    # Airflow forks, and an S3 file system must not be used in a child process.
    return _make_store(Settings.read().artifacts or "", os.getpid())


@lru_cache(maxsize=4)
def _make_store(root: str, pid: int) -> CircuitBreakerStore:
    return CircuitBreakerStore(root)


def read_failures(store: Store, dag_id: str, run_id: str) -> list[FailureRecord]:
    """Return the records of the run, ordered by time. Invalid records are logged and skipped."""
    records = []
    for name, data in store.read_many(store.list(paths.failures(dag_id, run_id))).items():
        try:
            records.append(FailureRecord.from_json(data or b""))
        except (ValueError, TypeError):
            log.warning("invalid failure record: %s", store.uri(name))
    return sorted(records, key=lambda record: (record.recorded_at, record.try_number))
