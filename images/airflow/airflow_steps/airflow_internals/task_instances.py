"""What Airflow counts and passes on for an attempt of a task and for a run: numbers of attempts, and contexts of callbacks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

# Exceptions with which Airflow ends a task that exceeded its `execution_timeout`: in a worker, and in the triggerer.
TASK_TIMEOUTS = ("AirflowTaskTimeout", "TaskDeferralTimeout")
RUN_TIMEOUT = "timed_out"


def get_first_try(max_tries: int | None, retries: int) -> int:
    """Return the number of the first attempt since the task was first run or last cleared.

    Relies on the arithmetic of `clear_task_instances` in airflow.models.taskinstance: `try_number` is never reset, and each
    time a task is cleared `max_tries` becomes the number of the last attempt plus the task's `retries`. A mapped task has fewer
    `max_tries`, as its `retries` are those that `partial` was given: the result is at least 1. If clearing a task starts its
    numbers anew, return 1.
    """
    return max(1, (max_tries or 0) - retries + 1)


def has_attempts_left(ti: Any) -> bool:
    """Return whether Airflow would retry the attempt if it failed now.

    Relies on `_is_eligible_to_retry` in airflow.api_fastapi.execution_api.routes.task_instances: `max_tries` is the number of
    the last attempt that may be retried, not of the last attempt.
    """
    return bool(ti.try_number <= (ti.max_tries or 0))


def is_task_timeout(error: BaseException | str | None) -> bool:
    """Return whether a callback's exception means that the task exceeded its `execution_timeout`.

    Relies on the classes' names: a callback may get the class of airflow.sdk.exceptions or of airflow.exceptions, and
    TaskDeferralTimeout is no subclass of another exception that means the same. If one of them is renamed, change
    TASK_TIMEOUTS.
    """
    return type(error).__name__ in TASK_TIMEOUTS


def is_run_timeout(context: Context | Mapping[str, Any]) -> bool:
    """Return whether a DAG's callback is called because the run exceeded `dagrun_timeout`.

    Relies on the `reason` that airflow.jobs.scheduler_job_runner passes with a DagCallbackRequest. If it is named differently,
    change RUN_TIMEOUT.
    """
    return context.get("reason") == RUN_TIMEOUT


def get_run_key(context: Context | Mapping[str, Any]) -> tuple[str, str]:
    """Return DAG id and run id for a DAG's callback.

    Relies on airflow.dag_processing.processor: the context has `dag_run` only if the request carries it, otherwise `dag` and
    `run_id`.
    """
    run: Any = context.get("dag_run") or SimpleNamespace(dag_id=context["dag"].dag_id, run_id=context["run_id"])
    return run.dag_id, run.run_id
