"""The operator of a step: a KubernetesPodOperator that needs no worker and verifies the step's artifact."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import XComArg
from airflow.sdk.exceptions import AirflowException, TaskDeferralError, TaskDeferralTimeout
from airflow.triggers.base import StartTriggerArgs
from kubernetes.client import models as k8s
from kubernetes.client.exceptions import ApiException
from step_contract.errors import ConfigurationError

from airflow_steps.airflow_internals.operators import parse_pod, serialize_pod, set_upstream
from airflow_steps.airflow_internals.task_instances import get_first_try, has_attempts_left
from airflow_steps.airflow_internals.task_log import copy_silently
from airflow_steps.callbacks import on_task_failure, on_task_retry
from airflow_steps.lineage_events import make_operator_lineage
from airflow_steps.links import LINKS
from airflow_steps.local_runner import StepProcess
from airflow_steps.operator_arguments import IN_WORKER, find_worker_arguments, select_runner
from airflow_steps.outcome import PermanentStepError, StepFailedError, StepOutput, counted, verify_outcome
from airflow_steps.pods.client import DELETE_PHASES, describe_error, is_quota_exceeded
from airflow_steps.pods.spec import (
    increase_container_memory,
    make_pod_annotations,
    make_pod_arguments,
    make_pod_labels,
    make_pod_name,
    merge_env_vars,
)
from airflow_steps.pods.status import get_exit_status
from airflow_steps.retry_policy import LOST_RETRY_DELAY, StepRetryPolicy, read_retry_rules
from airflow_steps.settings import Settings
from airflow_steps.termination import ExitStatus
from airflow_steps.trigger import FAILURES_KEY, StepTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pydantic import JsonValue

# In every DAG, so that the monitor can explain a failure. A user's callbacks are called after these.
CALLBACKS = {"on_failure_callback": on_task_failure, "on_retry_callback": on_task_retry}
# In which phases the triggerer deletes a finished pod, by the stock operator's `on_finish_action`.
DELETED_PHASES = {
    "delete_pod": "Succeeded,Failed",
    "delete_active_pod": "",
    "delete_succeeded_pod": "Succeeded",
    "keep_pod": "",
}
QUOTA_POLL_SECONDS = 2.0
# Beyond the timeouts of the pod, which end it with a better message.
TIMEOUT_MARGIN_SECONDS = 120


class StepOperator(KubernetesPodOperator):
    """Runs one step of a program in its image; succeeds only if the step committed a complete artifact.

    The manifest's URI is the task's return value; small facts are the XCom `facts`. STEP_RUNNER selects who runs the step:
    `triggerer` (a pod that the triggerer creates and follows, without a worker pod), `worker` (a worker that waits for the
    pod, as the stock operator does) or `process` (a local process). The outcome is the same. An argument that applies only in
    a worker, such as `pool` or `outlets`, selects `worker` for its task (`operator_arguments`).

    `execution_timeout` limits the step itself: it becomes the pod's deadline. The task's own timeout is longer by what the
    pod may wait for a slot and take to start.

    :param program: the program, and its image: `collector`, `trainer`
    :param step: the program's step, such as `fetch-prices`
    :param options: the step's options, templated, or XComArgs; each becomes `--name value`. A flag cannot be passed: give
        the program an option with a value instead (`add_option` in its `cli`). None leaves an option to the step's default
    :param task_id: by default the step's name with underscores
    :param runner: takes precedence over STEP_RUNNER
    :param bulk: the step of a collection that can wait: other steps get a slot first, and three quarters of
        the slots are left to them.
        So it is for each run of a backfill
    :param env_vars: merged with the deployment's, as are `env_from`, `labels`, `node_selector`, `tolerations`,
        `container_resources`, `volumes` and `volume_mounts`
    :param kwargs: KubernetesPodOperator's; they take precedence over the deployment's. `on_failure_callback` and
        `on_retry_callback` are called in addition to those that record failures
    """

    ui_color = "#dbe9f6"
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        program: str,
        step: str,
        options: Mapping[str, str | XComArg | None],
        task_id: str | None = None,
        runner: str | None = None,
        bulk: bool = False,
        env_vars: Sequence[k8s.V1EnvVar] | Mapping[str, str] = (),
        labels: Mapping[str, str] | None = None,
        env_from: Sequence[k8s.V1EnvFromSource] = (),
        node_selector: Mapping[str, str] | None = None,
        tolerations: Sequence[k8s.V1Toleration] = (),
        container_resources: k8s.V1ResourceRequirements | None = None,
        volumes: Sequence[k8s.V1Volume] = (),
        volume_mounts: Sequence[k8s.V1VolumeMount] = (),
        **kwargs: Any,
    ) -> None:
        settings = Settings.read()
        task_id = task_id or step.replace("-", "_")
        given = dict(kwargs.get("default_args") or {}) | kwargs
        runner, worker_arguments = select_runner(task_id, runner, settings.runner, given)
        if runner == "process":
            pod_arguments: dict[str, Any] = {"env_vars": merge_env_vars(env_vars)}
        else:
            pod_arguments = make_pod_arguments(
                program,
                env_vars=env_vars,
                env_from=env_from,
                node_selector=node_selector,
                tolerations=tolerations,
                container_resources=container_resources,
                volumes=volumes,
                volume_mounts=volume_mounts,
            )
        arguments = {
            "arguments": make_arguments(step, options),
            "executor": None,
            "random_name_suffix": False,
            "deferrable": False,
        }
        super().__init__(
            task_id=task_id,
            # Network policies select pods by program.
            labels={"app.kubernetes.io/name": program} | dict(labels or {}),
            **(arguments | pod_arguments | kwargs),
        )
        for value in options.values():
            set_upstream(self, value)
        policy = StepRetryPolicy(self.retries or 0, self.retry_delay, read_retry_rules())
        self.retry_policy, self.retries, self.retry_delay = policy, policy.total_retries, LOST_RETRY_DELAY
        self.program = program
        self.step = step
        self.runner = runner
        self.bulk = bulk
        self._worker_arguments = worker_arguments  # why a worker runs the step although the triggerer should
        self.step_output: StepOutput | None = None
        self._process: StepProcess | None = None
        self._exit_status: ExitStatus | None = None
        if runner == "process":
            return
        if not self.active_deadline_seconds:
            deadline = self.execution_timeout or timedelta(seconds=settings.run_timeout_seconds)
            self.active_deadline_seconds = int(deadline.total_seconds())
        if self.execution_timeout:
            waiting_seconds = settings.queue_timeout_seconds + self.startup_timeout_seconds + TIMEOUT_MARGIN_SECONDS
            self.execution_timeout += timedelta(seconds=waiting_seconds)
        if runner == "triggerer":
            self._start_from_trigger(settings)

    @property
    def facts(self) -> Any:
        """A reference (XComArg) to the step's facts, a dictionary, for the arguments of another task."""
        return XComArg(operator=self, key="facts")

    @property
    def manifest(self) -> str:
        """A template of the manifest's URI for another step's options; empty if this step was skipped, as an option not given.

        Unlike `output`, it makes this task no upstream task of the other. In a mapped task group, it is the same index's.
        """
        return f"{{{{ ti.xcom_pull(task_ids='{self.task_id}', map_indexes=ti.map_index) or '' }}}}"

    def __setattr__(self, key: str, value: Any) -> None:
        """Set an attribute. The step runs in a worker if the attribute, set after construction, needs one."""
        if key in CALLBACKS:
            value = _add_callback(CALLBACKS[key], value)
        super().__setattr__(key, value)
        if self.__dict__.get("start_from_trigger"):
            self._run_in_worker(find_worker_arguments(self.task_id, {key: value}))

    def add_inlets(self, inlets: Iterable[Any]) -> None:
        """Add assets that the task reads, as `asset > task` does."""
        super().add_inlets(inlets)
        self._run_in_worker(["inlets"])

    def add_outlets(self, outlets: Iterable[Any]) -> None:
        """Add assets that the task updates, as `task > asset` does."""
        super().add_outlets(outlets)
        self._run_in_worker(["outlets"])

    def _run_in_worker(self, arguments: list[str]) -> None:
        if arguments and self.start_from_trigger:
            self.start_from_trigger, self.start_trigger_args, self.runner = False, None, "worker"
            self._worker_arguments += arguments

    def _start_from_trigger(self, settings: Settings) -> None:
        # Otherwise every parse of the DAG file would log the creation of a pod.
        pod = copy_silently(self).build_pod_request_obj(dry_run=True)
        phases = DELETED_PHASES[self.on_finish_action.value]
        pod.metadata.annotations = (pod.metadata.annotations or {}) | {DELETE_PHASES: phases}
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{StepTrigger.__module__}.{StepTrigger.__name__}",
            trigger_kwargs={
                "step": self.step,
                "pod_template_dict": serialize_pod(pod),
                "container": self.base_container_name,
                "start_timeout": self.startup_timeout_seconds,
                "run_timeout": self.active_deadline_seconds,
                "max_pods": settings.max_pods,
                "queue_timeout": settings.queue_timeout_seconds,
                "bulk": self.bulk,
            },
            next_method="execute_complete",
        )

    def execute(self, context: Context) -> str:
        """Run the step in a worker. Return the URI of its manifest; raise as `verify_outcome` does."""
        for name in self._worker_arguments:
            reason = IN_WORKER.get(name, "the triggerer might ignore it")
            self.log.info("a worker runs this step because of its argument %s: %s", name, reason)
        if self.runner != "process":
            super().execute(context)
            return self._complete(
                self._exit_status or ExitStatus(None, b"", (), "the termination of its pod was not observed"), context
            )
        self.log.info("%s %s", self.program, shlex.join(self.arguments))
        try:
            self._process = StepProcess(self.program, self.arguments, self._get_plain_variables())
        except ConfigurationError as error:
            raise PermanentStepError(str(error), error.code) from error
        return self._complete(self._process.run(self.log.info), context)

    def _get_plain_variables(self) -> dict[str, str]:
        """Return the task's own environment variables that are not taken from a Kubernetes object."""
        variables = merge_env_vars(self.env_vars)
        return {variable.name: variable.value for variable in variables if variable.value is not None}

    def execute_complete(self, context: Context, event: dict[str, Any]) -> str:
        """Complete, in a worker, a task that the trigger could not complete itself."""
        return self._complete(ExitStatus.from_event(event), context)

    def _complete(self, status: ExitStatus, context: Context) -> str:
        try:
            with counted(context["ti"]):
                output = verify_outcome(self.step, status)
        except StepFailedError as error:
            raise self._count_attempts(error, context) from None
        self.step_output = output
        context["ti"].xcom_push(key="return_value", value=output.manifest)
        context["ti"].xcom_push(key="facts", value=dict(output.facts))
        return output.manifest

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the datasets of a step that has ended in a worker, for the OpenLineage provider."""
        return make_operator_lineage(self.step_output)

    def _count_attempts(self, error: StepFailedError, context: Context) -> StepFailedError:
        """Return the error with the number of attempts that failed this way since the task was first run or last cleared."""
        policy, ti = self.retry_policy, context["ti"]
        if not isinstance(policy, StepRetryPolicy) or not self.retries:
            return error
        first_try = get_first_try(ti.max_tries, self.retries)
        failures = [failure for failure in _get_failures(context) if failure[0] != ti.try_number]
        failures.append([ti.try_number, error.termination.value])
        context["task_state_store"].set(FAILURES_KEY, cast("JsonValue", failures))
        # The next attempt's trigger cannot read the task state store.
        ti.xcom_push(key=FAILURES_KEY, value=[termination for _, termination in failures])
        attempt = sum(number >= first_try and value == error.termination.value for number, value in failures)
        max_attempts = policy.max_attempts(error.termination)
        # A mapped task has fewer max_tries than the policy allows.
        will_retry = attempt < max_attempts and has_attempts_left(ti)
        count = f"attempt {attempt} of {max_attempts}" + ("; will be retried" if will_retry else "")
        return StepFailedError(f"{error} [{count}]", error.termination, attempt, max_attempts, error.reason)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume the task, as any operator. If its trigger failed, run the step here: its pod, if there is one, is adopted.

        Raises TaskDeferralTimeout if the task timed out; its pod is deleted, as the trigger does not.
        """
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            self._delete_attempts_pod(context)
            raise
        except TaskDeferralError as error:
            self.log.warning("the trigger failed (%s); this worker runs the step", error)
            try:
                return self.execute(context)
            except ApiException as denied:
                if denied.status != 403:
                    raise
                self._delete_attempts_pod(context)  # workers may not run steps: permissions.workersRunSteps in helm/values.yaml
                raise error from denied

    def _delete_attempts_pod(self, context: Context) -> None:
        self.pod = k8s.V1Pod(metadata=k8s.V1ObjectMeta(name=make_pod_name(context["ti"]), namespace=self.namespace))
        self.on_kill()

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> k8s.V1Pod:
        """Build the pod as KubernetesPodOperator does, and with a `context` name it after the attempt."""
        pod = super().build_pod_request_obj(context, dry_run=dry_run)
        if context:
            pod.metadata.name = make_pod_name(context["ti"])
            pod.metadata.labels |= make_pod_labels(context["ti"])
            pod.metadata.annotations = (pod.metadata.annotations or {}) | make_pod_annotations(context["ti"])
        # With a context this is a worker; a mapped task runs in one although its runner is the triggerer.
        if context and self.retries:
            content = serialize_pod(pod)
            failures = [termination for _, termination in _get_failures(context)]
            if change := increase_container_memory(content, self.base_container_name, failures):
                self.log.info("%s", change)
                pod = parse_pod(content)
        return pod

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Context) -> k8s.V1Pod:
        """Create the attempt's pod, or adopt it; wait up to STEP_QUEUE_TIMEOUT_SECONDS for the namespace's quota."""
        deadline, reported = time.monotonic() + Settings.read().queue_timeout_seconds, False
        while True:
            try:
                return super().get_or_create_pod(pod_request_obj, context)
            except ApiException as error:
                if not is_quota_exceeded(error.status, error.body) or time.monotonic() > deadline:
                    raise
                if not reported:
                    self.log.info("waiting for the cluster to admit the pod: %s", describe_error(error))
                reported = True
                time.sleep(QUOTA_POLL_SECONDS)

    def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Context | None = None) -> None:
        """Keep or delete the finished pod, as KubernetesPodOperator does; `verify_outcome` judges its exit status."""
        self._exit_status = get_exit_status(remote_pod, self.base_container_name) if remote_pod else None
        with suppress(AirflowException):
            super().cleanup(pod, remote_pod, xcom_result, context)

    def on_kill(self) -> None:
        """Terminate the step when its task is cleared, stopped, or its state is set."""
        if self._process:
            self._process.stop()
        if self.runner != "process":
            super().on_kill()


def make_arguments(step: str, options: Mapping[str, str | XComArg | None]) -> list[str]:
    """Return the arguments of a program: the step and its options. An XComArg becomes a template that pulls it."""
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None)
    return [step, *(word for pair in pairs for word in pair)]


def _add_callback(own: Any, others: Any) -> list[Any]:
    """Return the callbacks with `own` among them."""
    callbacks = list(others) if isinstance(others, list | tuple) else [others] if others else []
    return callbacks if own in callbacks else [own, *callbacks]


def _get_failures(context: Context) -> list[list[Any]]:
    """Return the failed attempts before this one, each with its number and termination."""
    return cast("list[list[Any]]", context["task_state_store"].get(FAILURES_KEY, []))
