"""The pod (pod template) that runs an attempt of a step: its name, labels, environment, resource requests and limits, and
security context.

`operator` adds the task's own arguments, such as `labels`.
"""

from __future__ import annotations

import copy
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from airflow.sdk.configuration import conf
from kubernetes.client import models as k8s
from kubernetes.utils.quantity import parse_quantity
from step_contract.errors import ConfigurationError, Termination
from step_contract.result import RESULT_VARIABLE

from airflow_steps.airflow_internals.operators import OPERATOR_LABEL, convert_variables, make_task_labels
from airflow_steps.settings import get_int, get_list, get_pairs, get_setting, get_variables

MAX_NAME_LENGTH = 63  # the name is also the pod's host name
STEP_LABELS = {"app.kubernetes.io/component": "step", "app.kubernetes.io/part-of": "market-daily"}
TASK_INSTANCE_ID = "market-daily/task-instance-id"  # an annotation
CPU_VARIABLE = "STEP_CPU_MILLICORES"
MAX_CLOCK_DIFFERENCE_MS = 30_000
TERMINATION_LOG = "/dev/termination-log"
SECRET_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
TAINT = re.compile(r"(?P<key>[\w./-]+)(=(?P<value>[\w.-]*))?:(?P<effect>NoSchedule|PreferNoSchedule|NoExecute)", re.ASCII)
INHERITED_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_REGION")


class TaskInstanceKey(Protocol):
    """What identifies an attempt: the fields that Airflow's task instances share in a worker and in the triggerer."""

    id: Any
    dag_id: str
    task_id: str
    run_id: str
    map_index: int | None
    try_number: int


def make_pod_name(ti: TaskInstanceKey) -> str:
    """Return the name of the attempt's pod. It is unique: the API server rejects a second pod of the attempt.

    The readable part may be truncated. The digest differs by run, map index, attempt, and the run's incarnation if a run is
    deleted and created again.
    """
    map_index = -1 if ti.map_index is None else ti.map_index
    identity = "\0".join(map(str, (ti.dag_id, ti.task_id, ti.run_id, map_index, ti.try_number, ti.id)))
    suffix = f"-{hashlib.sha256(identity.encode()).hexdigest()[:10]}-{ti.try_number}"
    prefix = re.sub(r"[^a-z0-9]+", "-", f"{ti.dag_id}-{ti.task_id}".lower()).strip("-")
    return prefix[: MAX_NAME_LENGTH - len(suffix)].rstrip("-") + suffix


def make_pod_labels(ti: TaskInstanceKey) -> dict[str, str]:
    """Return the labels of the attempt's pod, by which the stock operator finds it too."""
    values = {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "try_number": str(ti.try_number)}
    if ti.map_index is not None and ti.map_index >= 0:
        values["map_index"] = str(ti.map_index)
    return STEP_LABELS | make_task_labels(values) | {OPERATOR_LABEL: "True"}


def make_pod_annotations(ti: TaskInstanceKey) -> dict[str, str]:
    """Return the annotation of the attempt's pod by which `is_later_attempt` orders attempts."""
    return {TASK_INSTANCE_ID: str(ti.id)}


def select_task_labels(pod_labels: Mapping[str, str]) -> dict[str, str]:
    """Return those of an attempt's labels that all attempts of the task in that run share."""
    names = ("dag_id", "task_id", "run_id", "map_index", *STEP_LABELS)
    return {name: pod_labels[name] for name in names if name in pod_labels}


def make_pod(template: Mapping[str, Any], ti: TaskInstanceKey) -> dict[str, Any]:
    """Return the attempt's pod, made from the rendered `template`."""
    pod = copy.deepcopy(dict(template))
    metadata = pod.setdefault("metadata", {})
    metadata["name"] = make_pod_name(ti)
    metadata["labels"] = dict(metadata.get("labels") or {}) | make_pod_labels(ti)
    metadata["annotations"] = dict(metadata.get("annotations") or {}) | make_pod_annotations(ti)
    return pod


def is_later_attempt(pod: Any, ti: TaskInstanceKey) -> bool:
    """Return whether `pod`, one of the same task and run, belongs to a later attempt than `ti`.

    The number of the attempt decides between two attempts of one run. A run that is deleted and created again starts these
    numbers anew: then the times of the ids decide, which are of UUID version 7. Ids that are close belong to one run: the
    clocks of the processes that create them differ, and an attempt that failed before it ran leaves its id to the next.
    """
    other_id = (pod.metadata.annotations or {}).get(TASK_INSTANCE_ID)
    number = (pod.metadata.labels or {}).get("try_number", "")
    is_later_number = number.isdecimal() and int(number) > ti.try_number
    other_time, time = _get_milliseconds(other_id), _get_milliseconds(ti.id)
    if other_time is None or time is None:
        return is_later_number
    if number != str(ti.try_number) and abs(other_time - time) < MAX_CLOCK_DIFFERENCE_MS:
        return is_later_number
    return bool(str(other_id) > str(ti.id))


def _get_milliseconds(uuid: object) -> int | None:
    """Return the time in a UUID of version 7; None if it is not one."""
    try:
        parsed = UUID(str(uuid))
    except ValueError:
        return None
    return parsed.int >> 80 if parsed.version == 7 else None


def describe_command(pod: Mapping[str, Any], container_name: str) -> str:
    """Return the container's image and arguments in one line."""
    container = _get_container(pod, container_name)
    return " ".join([container["image"], *(container.get("command") or ()), *(container.get("args") or ())])


def _get_container(pod: Mapping[str, Any], name: str) -> dict[str, Any]:
    containers: list[dict[str, Any]] = pod["spec"]["containers"]
    [container] = [container for container in containers if container["name"] == name]
    return container


def merge_resources(
    deployment: k8s.V1ResourceRequirements, task: k8s.V1ResourceRequirements | None
) -> k8s.V1ResourceRequirements:
    """Return the deployment's requests and limits with the task's own, resource by resource.

    A resource that the task mentions is the task's alone: its limit may be below the deployment's request, which the API server
    rejects. Kubernetes uses a limit without a request as both.
    """
    if task is None:
        return deployment
    requests, limits = dict(task.requests or {}), dict(task.limits or {})
    own = requests.keys() | limits.keys()
    return k8s.V1ResourceRequirements(
        requests={name: value for name, value in deployment.requests.items() if name not in own} | requests,
        limits={name: value for name, value in deployment.limits.items() if name not in own} | limits,
        claims=task.claims,
    )


def make_pod_arguments(
    program: str,
    environment: Mapping[str, str] = os.environ,
    *,
    env_vars: Sequence[k8s.V1EnvVar] | Mapping[str, str] = (),
    env_from: Sequence[k8s.V1EnvFromSource] = (),
    node_selector: Mapping[str, str] | None = None,
    tolerations: Sequence[k8s.V1Toleration] = (),
    container_resources: k8s.V1ResourceRequirements | None = None,
    volumes: Sequence[k8s.V1Volume] = (),
    volume_mounts: Sequence[k8s.V1VolumeMount] = (),
) -> dict[str, Any]:
    """Return KubernetesPodOperator's arguments for a pod of `program`: the deployment's, merged with a task's own.

    Of two variables, selectors or mounts with the same name (or path), the task's takes precedence.
    Raises ConfigurationError if the program's image is not set or a setting is invalid.
    """
    prefix = f"{program.upper().replace('-', '_')}_"
    image = get_setting(environment, f"{prefix}IMAGE")
    if not image:
        raise ConfigurationError(f"{prefix}IMAGE is not set: it must name the image of the program {program}")
    memory = get_setting(environment, f"{prefix}MEMORY") or "512Mi"
    gpus = get_int(environment, f"{prefix}GPUS", 0)
    secrets = [k8s.V1SecretEnvSource(name=name) for name in get_list(environment, f"{prefix}SECRETS")]
    tmp_volume = k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="1Gi"))
    tmp_mount = k8s.V1VolumeMount(name="tmp", mount_path="/tmp")  # noqa: S108 the container's own
    return {
        "image": image,
        "namespace": get_setting(environment, "STEP_NAMESPACE") or conf.get("kubernetes_executor", "namespace"),
        "service_account_name": get_setting(environment, "STEP_SERVICE_ACCOUNT") or None,
        # A step needs the object store, never the Kubernetes API.
        "automount_service_account_token": False,
        "env_vars": merge_env_vars(_make_env_vars(image, environment), get_variables(environment, f"{prefix}ENV"), env_vars),
        "env_from": [*(k8s.V1EnvFromSource(secret_ref=secret) for secret in secrets), *(env_from or ())],
        "node_selector": get_pairs(environment, f"{prefix}NODE_SELECTOR") | dict(node_selector or {}),
        "tolerations": [*get_tolerations(environment, f"{prefix}TOLERATIONS"), *(tolerations or ())],
        # No CPU limit: a step may use whatever the node has to spare.
        "container_resources": merge_resources(
            k8s.V1ResourceRequirements(
                requests={"cpu": get_setting(environment, f"{prefix}CPU") or "100m", "memory": memory},
                limits={"memory": memory} | ({"nvidia.com/gpu": str(gpus)} if gpus else {}),
            ),
            container_resources,
        ),
        # A step that crashes writes no result: the end of its log becomes the termination message.
        "termination_message_policy": "FallbackToLogsOnError",
        "termination_grace_period": 15,
        "startup_timeout_seconds": get_int(environment, "STEP_START_TIMEOUT_SECONDS", 180),
        "startup_check_interval_seconds": 1,
        "on_finish_action": get_setting(environment, "STEP_ON_FINISH_ACTION") or "delete_pod",
        "container_name_log_prefix_enabled": False,
        "log_pod_spec_on_failure": False,
        "security_context": k8s.V1PodSecurityContext(
            run_as_non_root=True, seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault")
        ),
        "container_security_context": k8s.V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=k8s.V1Capabilities(drop=["ALL"]),
        ),
        "volumes": list({volume.name: volume for volume in [tmp_volume, *volumes]}.values()),
        "volume_mounts": list({mount.mount_path: mount for mount in [tmp_mount, *volume_mounts]}.values()),
    }


def merge_env_vars(*groups: Sequence[k8s.V1EnvVar] | Mapping[str, str]) -> list[k8s.V1EnvVar]:
    """Return the variables of all groups; of two with the same name, the last."""
    variables: dict[str, k8s.V1EnvVar] = {}
    for group in groups:
        variables |= {variable.name: variable for variable in convert_variables(group)}
    return list(variables.values())


def _make_env_vars(image: str, environment: Mapping[str, str]) -> list[k8s.V1EnvVar]:
    values = {RESULT_VARIABLE: TERMINATION_LOG, "STEP_IMAGE": image}
    values |= {name: environment[name] for name in INHERITED_VARIABLES if environment.get(name)}
    variables = [k8s.V1EnvVar(name=name, value=value) for name, value in values.items()]
    # Of the container, whichever of setting, task and pod template sets it.
    cpu_request = k8s.V1ResourceFieldSelector(resource="requests.cpu", divisor="1m")
    variables.append(k8s.V1EnvVar(name=CPU_VARIABLE, value_from=k8s.V1EnvVarSource(resource_field_ref=cpu_request)))
    if secret := get_setting(environment, "STEP_CREDENTIALS"):
        for name in SECRET_VARIABLES:
            source = k8s.V1EnvVarSource(secret_key_ref=k8s.V1SecretKeySelector(name=secret, key=name))
            variables.append(k8s.V1EnvVar(name=name, value_from=source))
    return variables


def get_tolerations(environment: Mapping[str, str], name: str) -> list[k8s.V1Toleration]:
    """Return the tolerations of the setting `name`, written as for `kubectl taint`: key=value:effect or key:effect.

    Raises ConfigurationError if an entry is written otherwise.
    """
    entries = get_list(environment, name)
    matches = [TAINT.fullmatch(entry) for entry in entries]
    if not all(matches):
        raise ConfigurationError(
            f"invalid {name} {', '.join(entries)!r}: must be key=value:effect or key:effect, separated by commas, such as "
            "nvidia.com/gpu=present:NoSchedule; an effect is NoSchedule, PreferNoSchedule or NoExecute"
        )
    return [
        k8s.V1Toleration(
            key=match["key"],
            operator="Exists" if match["value"] is None else "Equal",
            value=match["value"],
            effect=match["effect"],
        )
        for match in matches
        if match
    ]


def increase_memory(memory: str, oom_kills: int, environment: Mapping[str, str] = os.environ) -> str:
    """Return `memory`, a Kubernetes quantity, multiplied by STEP_MEMORY_FACTOR for each OOM kill.

    The result is at most STEP_MEMORY_LIMIT and never less than `memory`. Raises ConfigurationError if a setting is invalid.
    """
    factor_text = get_setting(environment, "STEP_MEMORY_FACTOR") or "2"
    limit_text = get_setting(environment, "STEP_MEMORY_LIMIT") or "8Gi"
    try:
        size, limit, factor = parse_quantity(memory), parse_quantity(limit_text), float(factor_text)
        if not 1 <= factor <= 16:
            raise ValueError
    except ValueError:
        raise ConfigurationError(
            f"invalid STEP_MEMORY_FACTOR {factor_text!r} or STEP_MEMORY_LIMIT {limit_text!r}: "
            "the factor must be a number from 1 to 16, the limit an amount of memory such as 8Gi"
        ) from None
    if not oom_kills:
        return memory
    return f"{max(int(size), min(int(limit), int(float(size) * factor**oom_kills))) // 2**20}Mi"


def increase_container_memory(pod: dict[str, Any], container_name: str, failures: Sequence[str]) -> str:
    """Raise the container's memory if earlier attempts were OOM-killed. Return a log line, or "" if nothing changed.

    Args:
        pod: the pod, which is changed.
        container_name: the step's container.
        failures: the terminations of the earlier attempts, by value.
    """
    oom_kills = list(failures).count(Termination.OOM_KILLED.value)
    resources = _get_container(pod, container_name).get("resources") or {}
    before = (resources.get("limits") or {}).get("memory")
    if not oom_kills or not before:
        return ""
    after = increase_memory(str(before), oom_kills)
    for kind in ("limits", "requests"):
        resources[kind] = dict(resources.get(kind) or {}) | {"memory": after}
    attempts = "1 earlier attempt was" if oom_kills == 1 else f"{oom_kills} earlier attempts were"
    return f"memory raised from {before} to {after}: {attempts} OOM-killed"
