"""A step as an Airflow task."""

from __future__ import annotations

import copy
import logging
import shlex
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.sdk.exceptions import AirflowException, TaskDeferralError
from airflow.triggers.base import StartTriggerArgs
from kubernetes.client import models as k8s
from step_contract.errors import ConfigurationError

from airflow_steps.failure_log import note_failure, note_retry
from airflow_steps.links import LINKS
from airflow_steps.local_runner import StepProcess
from airflow_steps.memory import with_memory
from airflow_steps.outcome import counted, settle
from airflow_steps.pod_client import REMOVE
from airflow_steps.pod_spec import pod_arguments
from airflow_steps.pod_status import end_of, labels, pod_name
from airflow_steps.retry_policy import KEY, StepFailed, StepRefused, StepRetryPolicy, rules
from airflow_steps.settings import Settings
from airflow_steps.termination import Ended, command_line
from airflow_steps.trigger import StepTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pydantic import JsonValue

QUIET = logging.getLogger(f"{__name__}.quiet")
QUIET.setLevel(logging.WARNING)
# Which phases of an ended pod the triggerer removes, by the stock operator's names of what to do.
REMOVED = {
    "delete_pod": "Succeeded,Failed",
    "delete_active_pod": "",
    "delete_succeeded_pod": "Succeeded",
    "keep_pod": "",
}


class StepOperator(KubernetesPodOperator):
    """Runs one step of an image's program; succeeds only with an artifact that is there and whole.

    The URI of the artifact's manifest is the task's return value, small facts are the XCom `facts`. Who runs the step is the
    setting `STEP_RUNNER`: `triggerer` (a pod that the triggerer starts and follows; no worker pod), `worker` (the stock way: a
    worker that waits for the pod) or `process` (on this machine, no pod). The outcome is the same.

    `execution_timeout` is the time that the step itself may take; the pod's deadline. The task's own limit is set longer by
    what the pod may wait for a slot and take to start.

    :param program: the program, which is its image's name too: `collector`, `trainer`
    :param step: the program's step, such as `fetch-prices`
    :param options: the step's options by name, templated; those that are None are left to the step's own default
    :param kwargs: KubernetesPodOperator's; they go before what the deployment sets
    """

    ui_color = "#dbe9f6"
    operator_extra_links = LINKS

    def __init__(
        self, *, program: str, step: str, options: Mapping[str, str | None], runner: str | None = None, **kwargs: Any
    ) -> None:
        settings = Settings.read()
        runner = runner or settings.runner
        arguments: dict[str, Any] = {"arguments": command_line(step, options), "executor": None}
        # Whatever DAG a step is in, the watcher can tell why it failed.
        kwargs = {"on_failure_callback": note_failure, "on_retry_callback": note_retry} | kwargs
        # Network policies tell programs apart by it.
        kwargs["labels"] = {"app.kubernetes.io/name": program} | dict(kwargs.get("labels") or {})
        super().__init__(
            **(arguments | ({} if runner == "process" else pod_arguments(program)) | {"random_name_suffix": False} | kwargs)
        )
        policy = StepRetryPolicy(self.retries or 0, rules())
        self.retry_policy, self.retries = policy, policy.bound
        self.program = program
        self.step = step
        self.options = options
        self.runner = runner
        self.made: tuple[str, tuple[str, ...]] | None = None
        self._process: StepProcess | None = None
        self._ended: Ended | None = None
        if runner == "process":
            return
        if not self.active_deadline_seconds:
            limit = self.execution_timeout or timedelta(seconds=settings.run_seconds)
            self.active_deadline_seconds = int(limit.total_seconds())
        if self.execution_timeout:
            self.execution_timeout += timedelta(seconds=self.startup_timeout_seconds + settings.queue_seconds + 120)
        if runner == "triggerer":
            self._start_from_trigger(settings)

    def _start_from_trigger(self, settings: Settings) -> None:
        builder = copy.copy(self)
        # Or every parse of the file would tell of a pod that nobody creates.
        builder._cached_logger = QUIET  # type: ignore[assignment]
        pod = builder.build_pod_request_obj(dry_run=True)
        pod.metadata.annotations = (pod.metadata.annotations or {}) | {REMOVE: REMOVED[self.on_finish_action.value]}
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{StepTrigger.__module__}.{StepTrigger.__name__}",
            trigger_kwargs={
                "step": self.step,
                "pod_template_dict": PodGenerator.serialize_pod(pod),
                "container": self.base_container_name,
                "start_seconds": self.startup_timeout_seconds,
                "run_seconds": self.active_deadline_seconds,
                "limit": settings.step_pods,
                "queue_seconds": settings.queue_seconds,
            },
            next_method="finish",
        )

    def execute(self, context: Context) -> str:
        """Runs the step to its end; returns the URI of its artifact's manifest. Raises as `settle` does."""
        if self.runner != "process":
            super().execute(context)
            return self._settle(self._ended or Ended(None, b"", (), "its pod was not seen to end"), context)
        self.log.info("%s %s", self.program, shlex.join(self.arguments))
        try:
            self._process = StepProcess(self.program, self.arguments)
        except ConfigurationError as error:
            raise StepRefused(str(error), error.code) from error
        return self._settle(self._process.run(self.log.info), context)

    def finish(self, context: Context, event: dict[str, Any]) -> str:
        """Goes on, in a worker, from an end that the triggerer did not take for a success."""
        return self._settle(Ended.from_event(event), context)

    def _settle(self, ended: Ended, context: Context) -> str:
        try:
            with counted(context["ti"]):
                made = settle(self.step, ended)
        except StepFailed as failed:
            raise self._counted(failed, context) from None
        self.made = made.manifest, made.files
        context["ti"].xcom_push(key="return_value", value=made.manifest)
        context["ti"].xcom_push(key="facts", value=dict(made.facts))
        return made.manifest

    def _counted(self, failed: StepFailed, context: Context) -> StepFailed:
        """The same failure with how often there was one like it, since the task was first run or last cleared."""
        policy, this = self.retry_policy, context["ti"]
        if not isinstance(policy, StepRetryPolicy) or not self.retries:
            return failed
        # Airflow raises the most tries by what the task may have each time it is cleared.
        first = (this.max_tries or 0) - self.retries + 1
        before = [one for one in _failures(context) if one[0] != this.try_number]
        failures = [*before, [this.try_number, failed.cause.value]]
        context["task_state_store"].set(KEY, cast("JsonValue", failures))
        # What the trigger of the next try can read.
        this.xcom_push(key=KEY, value=[cause for _, cause in failures])
        times = sum(number >= first and cause == failed.cause.value for number, cause in failures)
        tries = policy.tries(failed.cause)
        told = f"{times} of {tries}, it is tried again" if times < tries else f"{times} of {tries}"
        return StepFailed(f"{failed} [{told}]", failed.cause, times, tries, failed.said)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As any operator's; on the time-out or the failure of the trigger, which deletes nothing itself, the pod goes."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralError:
            self.pod = k8s.V1Pod(metadata=k8s.V1ObjectMeta(name=pod_name(context["ti"]), namespace=self.namespace))
            self.on_kill()
            raise

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> k8s.V1Pod:
        """The pod as KubernetesPodOperator builds it; of a try, with that try's one name."""
        pod = super().build_pod_request_obj(context, dry_run=dry_run)
        if context:
            pod.metadata.name = pod_name(context["ti"])
            pod.metadata.labels |= labels(context["ti"])
        if context and self.runner == "worker" and self.retries:
            content = PodGenerator.serialize_pod(pod)
            if told := with_memory(content, self.base_container_name, [cause for _, cause in _failures(context)]):
                self.log.info("%s", told)
                pod = PodGenerator.deserialize_model_dict(content)
        return pod

    def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Context | None = None) -> None:
        """Keeps or removes the ended pod, as any KubernetesPodOperator; how it ended `settle` judges."""
        self._ended = end_of(remote_pod, self.base_container_name) if remote_pod else None
        with suppress(AirflowException):
            super().cleanup(pod, remote_pod, xcom_result, context)

    def on_kill(self) -> None:
        """Ends the step when its task is cleared, marked or stopped."""
        if self._process:
            self._process.stop()
        if self.runner != "process":
            super().on_kill()


def _failures(context: Context) -> list[list[Any]]:
    """The earlier tries that failed, each with its number and cause."""
    return cast("list[list[Any]]", context["task_state_store"].get(KEY, []))
