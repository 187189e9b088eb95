"""What the deployment sets for the pods of a program's steps, and what holds for all of them, as the operator's arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from airflow.sdk.configuration import conf
from kubernetes.client import models as k8s
from step_contract.errors import ConfigurationError

from airflow_steps.settings import count, setting

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PASSED_ON = ("AWS_ENDPOINT_URL", "AWS_REGION")
RESULT = "/dev/termination-log"


def pod_arguments(program: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """KubernetesPodOperator's arguments for a pod of `program`.

    Raises ConfigurationError where no setting names the program's image, or where one is none of what it can be.
    """
    own = f"{program.upper().replace('-', '_')}_"
    image = setting(environment, f"{own}IMAGE")
    if not image:
        raise ConfigurationError(f"{own}IMAGE is not set: it must name the image whose program is {program}")
    memory = setting(environment, f"{own}MEMORY") or "512Mi"
    return {
        "image": image,
        "namespace": setting(environment, "STEP_NAMESPACE") or conf.get("kubernetes_executor", "namespace"),
        "service_account_name": setting(environment, "STEP_SERVICE_ACCOUNT") or None,
        # A step speaks to the bucket, never to Kubernetes.
        "automount_service_account_token": False,
        "env_vars": _variables(image, environment),
        "node_selector": _pairs(f"{own}NODE_SELECTOR", environment),
        # No limit of CPU: what the node has to spare a step may use.
        "container_resources": k8s.V1ResourceRequirements(
            requests={"cpu": setting(environment, f"{own}CPU") or "100m", "memory": memory}, limits={"memory": memory}
        ),
        # The end of the log is the message of a step that dies without a word.
        "termination_message_policy": "FallbackToLogsOnError",
        "termination_grace_period": 15,
        "startup_timeout_seconds": count(environment, "STEP_START_SECONDS", 180),
        "startup_check_interval_seconds": 1,
        "on_finish_action": setting(environment, "STEP_ON_FINISH") or "delete_pod",
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
        "volumes": [k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="1Gi"))],
        "volume_mounts": [k8s.V1VolumeMount(name="tmp", mount_path="/tmp")],  # noqa: S108 the container's own
    }


def _variables(image: str, environment: Mapping[str, str]) -> list[k8s.V1EnvVar]:
    plain = {"STEP_RESULT": RESULT, "STEP_IMAGE": image} | {
        name: environment[name] for name in PASSED_ON if environment.get(name)
    }
    found = [k8s.V1EnvVar(name=name, value=value) for name, value in plain.items()]
    if secret := setting(environment, "STEP_CREDENTIALS"):
        for name in CREDENTIALS:
            source = k8s.V1EnvVarSource(secret_key_ref=k8s.V1SecretKeySelector(name=secret, key=name))
            found.append(k8s.V1EnvVar(name=name, value_from=source))
    return found


def _pairs(name: str, environment: Mapping[str, str]) -> dict[str, str]:
    text = setting(environment, name)
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(key and value for key, _, value in pairs):
        raise ConfigurationError(f"{name} is {text!r} and must be key=value, or several with commas between")
    return {key.strip(): value.strip() for key, _, value in pairs}
