"""Contracts of `airflow_internals` with the installed Airflow: timetables, task instances, callbacks, operators.

A failure says what of this project depends on the assumption; the adapter's docstring says what to change.
"""

from __future__ import annotations

import inspect
import logging
from datetime import UTC, datetime, timedelta
from itertools import product
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
import structlog
from airflow.api_fastapi.execution_api.routes.task_instances import _is_eligible_to_retry
from airflow.callbacks.callback_requests import DagCallbackRequest
from airflow.dag_processing.processor import _execute_dag_callbacks
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models import taskinstance
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskInstanceState, XComArg
from airflow.sdk.exceptions import AirflowTaskTimeout, TaskDeferralError, TaskDeferralTimeout
from airflow_steps.airflow_internals import operators, task_instances, task_log
from airflow_steps.airflow_internals.timetables import CronTimetable, DagRunType
from airflow_steps.pods.spec import make_pod_labels
from kubernetes.client import models as k8s


@pytest.mark.parametrize("name", ["_timezone", "_interval", "_get_next", "_align_to_next"])
def test_airflows_cron_timetable_has_the_parts_that_schedules_use(name: str) -> None:
    timetable = CronTimetable("0 18 * * *", timezone="Asia/Seoul")
    assert hasattr(timetable, name), f"SessionTimetable computes scheduled runs with CronTriggerTimetable.{name}"


def test_a_cron_timetable_gives_zone_interval_and_next_times() -> None:
    timetable = CronTimetable("0 18 * * *", timezone="Asia/Seoul", interval=timedelta(hours=1))
    at = pendulum.datetime(2026, 3, 20, 9, tz="UTC")  # 18:00 in Seoul
    assert str(timetable.time_zone) == "Asia/Seoul", "SessionTimetable names runs by the local time"
    assert timetable.interval == timedelta(hours=1), "SessionTimetable derives a run's data interval"
    assert timetable.align_to_next(at) == at, "SessionTimetable: a scheduled time is its own next one"
    assert timetable.get_next(at) == at.add(days=1), "SessionTimetable: the schedule goes on after a run"


def test_run_types_have_the_values_of_run_ids() -> None:
    message = "SessionTimetable advances the schedule by these runs; the monitor recognizes them by their ids"
    assert (DagRunType.SCHEDULED.value, DagRunType.BACKFILL_JOB.value) == ("scheduled", "backfill"), message


class Session:
    """Accepts what Airflow does with a session of its ORM."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: iter(())


@pytest.mark.parametrize(("last_try", "retries"), [(1, 0), (3, 2), (7, 11)])
def test_clearing_a_task_leaves_its_first_try_computable(last_try: int, retries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts are numbered on; Airflow itself computes max_tries."""
    task = SimpleNamespace(retries=retries)
    dag = SimpleNamespace(has_task=lambda task_id: True, get_task=lambda task_id: task)
    monkeypatch.setattr("airflow.models.dagbag.DBDagBag.get_dag_for_run", lambda *args, **kwargs: dag)
    ti = SimpleNamespace(
        dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=last_try, max_tries=retries, state="failed", task=task
    )
    ti.dag_version_id = "v"
    ti.dag_run = SimpleNamespace(created_dag_version_id="v", dag_id="d", run_id="r", bundle_version=None, context_carrier=None)
    ti.prepare_db_for_next_try = ti.refresh_from_task = ti.clear_next_method_args = lambda *args, **kwargs: None
    taskinstance.clear_task_instances([ti], Session(), dag_run_state=False)  # type: ignore[list-item, arg-type]
    assert ti.max_tries == last_try + retries, "StepRetryPolicy and StepOperator count attempts since a task was last cleared"
    assert task_instances.get_first_try(ti.max_tries, retries) == last_try + 1


def test_airflow_retries_attempts_up_to_max_tries() -> None:
    for try_number, max_tries in product(range(1, 5), range(1, 5)):
        ti = SimpleNamespace(try_number=try_number, max_tries=max_tries)
        expected = _is_eligible_to_retry(TaskInstanceState.RUNNING, try_number, max_tries)
        assert task_instances.has_attempts_left(ti) == expected, "StepFailedError reports whether a step will be retried"


def test_a_task_timeout_is_recognized_by_its_exception() -> None:
    for error in (AirflowTaskTimeout("x"), TaskDeferralTimeout("x")):
        assert task_instances.is_task_timeout(error), "failure records explain a task's timeout"
    assert not task_instances.is_task_timeout(TaskDeferralError("x"))
    assert not issubclass(TaskDeferralTimeout, TaskDeferralError), (
        "StepOperator.resume_execution deletes the pod after a timeout, and runs the step after another failure of the trigger"
    )


def test_the_context_of_a_dags_callback_names_run_and_timeout() -> None:
    contexts: list[Any] = []
    with DAG(
        "callbacks", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), on_failure_callback=contexts.append
    ) as dag:
        EmptyOperator(task_id="t")
    request = DagCallbackRequest(
        filepath="f", bundle_name="b", bundle_version=None, dag_id="callbacks", run_id="run 1", msg=task_instances.RUN_TIMEOUT
    )
    _execute_dag_callbacks(SimpleNamespace(dags={"callbacks": dag}), request, structlog.get_logger())  # type: ignore[arg-type]
    [context] = contexts
    assert task_instances.get_run_key(context) == ("callbacks", "run 1"), "on_run_end reports a run by its ids"
    assert task_instances.is_run_timeout(context), "on_run_end records runs that exceeded dagrun_timeout"


def test_the_scheduler_gives_a_timed_out_run_its_reason() -> None:
    source = inspect.getsource(SchedulerJobRunner._schedule_dag_run)
    assert f'reason="{task_instances.RUN_TIMEOUT}"' in source, "on_run_end records runs that exceeded dagrun_timeout"


@pytest.fixture
def operator() -> KubernetesPodOperator:
    return KubernetesPodOperator(task_id="step", name="step", image="collector:1")


def test_a_silent_copy_of_an_operator_logs_warnings_only(operator: KubernetesPodOperator) -> None:
    own: Any = operator.log
    silent: Any = task_log.copy_silently(operator)
    assert silent.log is task_log.SILENT_LOGGER, "each parse of a DAG file would log the creation of every step's pod"
    assert operator.log is own and not task_log.SILENT_LOGGER.isEnabledFor(logging.INFO)


@pytest.mark.parametrize("map_index", [-1, 3])
def test_the_stock_operator_finds_a_pod_by_our_labels(operator: KubernetesPodOperator, map_index: int) -> None:
    ti: Any = SimpleNamespace(
        id="1", dag_id="market_daily", task_id="fetch", run_id="manual__2026-01-15T00:00:00+00:00", map_index=map_index
    )
    ti.try_number = 2
    context: Any = {"ti": ti, "run_id": ti.run_id, "dag": SimpleNamespace()}
    selector = operator._build_find_pod_label_selector(context, exclude_checked=False)
    expected = dict(pair.split("=") for pair in selector.split(",") if "=" in pair)
    assert expected.items() <= make_pod_labels(ti).items(), (
        "a worker adopts the pod that a triggerer has created for the attempt"
    )
    assert expected[operators.OPERATOR_LABEL] == "True"


OVERRIDDEN = {
    "build_pod_request_obj": ["self", "context", "dry_run"],
    "get_or_create_pod": ["self", "pod_request_obj", "context"],
    "cleanup": ["self", "pod", "remote_pod", "xcom_result", "context"],
    "execute": ["self", "context"],
    "resume_execution": ["self", "next_method", "next_kwargs", "context"],
    "on_kill": ["self"],
    "add_inlets": ["self", "inlets"],
    "add_outlets": ["self", "outlets"],
}


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_the_stock_operator_calls_the_methods_that_a_step_overrides(name: str) -> None:
    parameters = list(inspect.signature(getattr(KubernetesPodOperator, name)).parameters)
    assert parameters == OVERRIDDEN[name], f"StepOperator.{name} overrides it"


def test_the_stock_operator_ends_with_cleanup() -> None:
    names = inspect.unwrap(KubernetesPodOperator.execute_sync).__code__.co_names
    assert {"get_or_create_pod", "build_pod_request_obj"} <= set(names), "StepOperator names the pod and waits for the quota"
    assert "cleanup" in inspect.getsource(KubernetesPodOperator), "StepOperator reads the exit status in cleanup"


def test_a_pod_survives_serialization() -> None:
    pod = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name="a"),
        spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", image_pull_policy="Always")]),
    )
    content = operators.serialize_pod(pod)
    assert content["spec"]["containers"] == [{"name": "base", "imagePullPolicy": "Always"}], "a trigger's pod template"
    assert operators.parse_pod(content) == pod, "a worker raises the memory of a step that was OOM-killed"


def test_variables_of_all_forms_are_converted() -> None:
    variable = k8s.V1EnvVar(name="A", value="1")
    for given in ({"A": "1"}, [variable]):
        assert operators.convert_variables(given) == [variable], "env_vars of a step are merged with the deployment's"


def test_an_xcomarg_makes_its_task_upstream(operator: KubernetesPodOperator) -> None:
    with DAG("upstream", schedule=None):
        first, second = EmptyOperator(task_id="first"), EmptyOperator(task_id="second")
        operators.set_upstream(second, XComArg(first, key="facts"))
    assert second.upstream_task_ids == {"first"}, "an XComArg among a step's options is a dependency"
