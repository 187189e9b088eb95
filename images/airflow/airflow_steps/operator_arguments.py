"""Which arguments of BaseOperator and KubernetesPodOperator apply to a step that starts from the triggerer.

Airflow and the provider implement some arguments only in a worker. A step that has one of these runs in a worker pod; none is
ignored. Reasons and observations are in docs/decisions/0022-arguments-of-a-step.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import BaseOperator
from step_contract.errors import ConfigurationError

# Evaluated when the DAG is parsed, by the scheduler before it starts a task, or by the worker that resumes a failed one.
SCHEDULING = """
    task_id task_group dag owner default_args params doc doc_md doc_json doc_yaml doc_rst task_display_name
    allow_nested_operators start_date end_date depends_on_past ignore_first_depends_on_past wait_for_downstream
    wait_for_past_depends_before_skipping trigger_rule retries retry_delay execution_timeout sla map_index_template
    on_failure_callback on_retry_callback email email_on_failure email_on_retry executor executor_config queue resources
    run_as_user
"""
# Part of the pod, or of how the triggerer follows it. The last line is for polling; the triggerer watches.
POD = """
    namespace image cmds arguments ports env_vars env_from configmaps secrets pod_runtime_info_envs volumes volume_mounts
    container_resources image_pull_policy image_pull_secrets init_containers base_container_name labels annotations affinity
    node_selector tolerations schedulername priority_class_name runtime_class_name service_account_name
    automount_service_account_token hostnetwork host_aliases hostname subdomain dnspolicy dns_config security_context
    container_security_context full_pod_spec pod_template_file pod_template_dict termination_grace_period
    termination_message_policy active_deadline_seconds startup_timeout_seconds on_finish_action
    startup_check_interval_seconds base_container_status_polling_interval log_events_on_startup
"""
FROM_TRIGGERER = frozenset(f"{SCHEDULING} {POD}".split())
# Why the argument needs a worker.
IN_WORKER = {
    "pool": "the scheduler applies it to tasks that it queues",
    "pool_slots": "the scheduler applies it to tasks that it queues",
    "max_active_tis_per_dag": "the scheduler applies it to tasks that it queues",
    "max_active_tis_per_dagrun": "the scheduler applies it to tasks that it queues",
    "priority_weight": "the scheduler applies it to tasks that it queues",
    "weight_rule": "the scheduler applies it to tasks that it queues",
    "inlets": "a worker reads the asset's events",
    "outlets": "a worker registers the asset's event",
    "on_execute_callback": "a worker calls it",
    "on_success_callback": "a worker calls it",
    "on_skipped_callback": "a worker calls it",
    "pre_execute": "a worker calls it",
    "post_execute": "a worker calls it",
    "logger_name": "a worker's logger has it",
    "kubernetes_conn_id": "the triggerer uses its own cluster",
    "in_cluster": "the triggerer uses its own cluster",
    "cluster_context": "the triggerer uses its own cluster",
    "config_file": "the triggerer uses its own cluster",
    "schedule_timeout_seconds": "the triggerer has one timeout for scheduling and start",
    "durable": "the triggerer always adopts the attempt's pod",
    "reattach_on_restart": "the triggerer always adopts the attempt's pod",
    "on_kill_action": "the triggerer always deletes the pod",
    "callbacks": "the provider calls them in a worker",
    "progress_callback": "the provider calls it in a worker",
    "get_logs": "the triggerer always streams the step's log",
    "container_logs": "the triggerer streams the step's log only",
    "init_container_logs": "the triggerer streams the step's log only",
    "log_formatter": "the triggerer streams the step's log as it is",
    "container_name_log_prefix_enabled": "the triggerer streams the step's log as it is",
    "log_events_on_failure": "the triggerer logs a pod's events only if it does not start",
}
DEFERRABLE = "it only applies to the provider's deferrable mode, and a step is deferred anyway"
# Why the argument cannot apply to a step, whoever runs it.
REJECTED = {
    "name": "a pod is named after its attempt",
    "random_name_suffix": "a pod is named after its attempt",
    "retry_policy": "a step has its own: set the retries, or the settings STEP_…_MAX_ATTEMPTS and STEP_…_RETRY_DELAY_SECONDS",
    "retry_exponential_backoff": "delays are fixed: set retry_delay, or the settings STEP_…_RETRY_DELAY_SECONDS",
    "max_retry_delay": "delays are fixed: set retry_delay, or the settings STEP_…_RETRY_DELAY_SECONDS",
    "do_xcom_push": "a step always pushes its manifest's URI, and its facts as `facts`, without a sidecar",
    "xcom_sidecar_container_security_context": "a step pushes XComs without a sidecar",
    "multiple_outputs": "a step's value is its manifest's URI; read its facts from the XCom `facts`",
    "skip_on_exit_code": "a step skips its task with exit code 99",
    "render_template_as_native_obj": "the arguments of a pod are text",
    "is_delete_operator_pod": "the provider ignores it: set on_finish_action",
    "log_pod_spec_on_failure": "a step's failure is explained by its message, exit status and log",
    "deferrable": DEFERRABLE,
    "poll_interval": DEFERRABLE,
    "logging_interval": DEFERRABLE,
    "trigger_kwargs": DEFERRABLE,
}
# Values that change nothing although they differ from the signature's default; they count as not set.
NEUTRAL = {
    "pool": "default_pool",
    "random_name_suffix": False,
    "do_xcom_push": None,
    "log_pod_spec_on_failure": False,
    "container_name_log_prefix_enabled": False,
    "deferrable": False,
}


@cache
def list_arguments() -> Mapping[str, Any]:
    """Return all arguments of the two base classes with their defaults."""
    signatures = (inspect.signature(base.__init__) for base in (BaseOperator, KubernetesPodOperator))
    parameters = [parameter for signature in signatures for parameter in signature.parameters.values()]
    arguments = {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.name != "self"
    }
    return MappingProxyType(arguments)


def find_worker_arguments(task_id: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return those of a task's `arguments` that need a worker. One that this module does not know does.

    Raises ConfigurationError if one of them cannot apply to a step.
    """
    names = [name for name, default in list_arguments().items() if _is_set(name, arguments.get(name), default)]
    for name in names:
        if name in REJECTED:
            raise ConfigurationError(
                f"task {task_id}: {name} does not apply to a StepOperator: {REJECTED[name]}. Remove it; if it comes from "
                f"default_args, pass {name}={NEUTRAL.get(name)!r}"
            )
    return [name for name in names if name not in FROM_TRIGGERER]


def select_runner(task_id: str, runner: str | None, default: str, arguments: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the runner of a step and those of its `arguments` for which a worker runs it although the triggerer should.

    Args:
        task_id: for the error's message.
        runner: the task's own runner.
        default: the deployment's.
        arguments: those that the task or its `default_args` name.
    Raises ConfigurationError if an argument cannot apply to a step, or contradicts the task's own runner.
    """
    names = find_worker_arguments(task_id, arguments)
    if runner == "triggerer" and names:
        raise ConfigurationError(
            f"task {task_id}: the triggerer cannot apply {', '.join(names)}: remove that, or runner='triggerer'"
        )
    selected = runner or default
    return ("worker", names) if selected == "triggerer" and names else (selected, [])


def _is_set(name: str, value: Any, default: Any) -> bool:
    is_empty = value is None or (isinstance(value, str | list | tuple | dict | set) and not value)
    return not is_empty and value != NEUTRAL.get(name, default)
