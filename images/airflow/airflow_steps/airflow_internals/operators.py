"""The parts of KubernetesPodOperator and of XComArg that their packages do not document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.cncf.kubernetes.backcompat.backwards_compat_converters import convert_env_vars
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator, make_safe_label_value
from airflow.sdk import XComArg

if TYPE_CHECKING:
    from kubernetes.client import models as k8s

# The label by whose value "True" the stock operator finds the pods that it or another process created for a task instance,
# together with the labels of `make_task_labels`. Relies on KubernetesPodOperator's `_build_find_pod_label_selector`.
OPERATOR_LABEL = "kubernetes_pod_operator"


def make_task_labels(values: Mapping[str, str]) -> dict[str, str]:
    """Return the labels for fields of a task instance, by which the stock operator finds its pod too.

    Relies on `make_safe_label_value` of the provider's pod_generator: another spelling of a long or unusual value would be
    another label, and a worker would not find the pod that a triggerer created.
    """
    return {name: make_safe_label_value(value) for name, value in values.items()}


def convert_variables(variables: Sequence[k8s.V1EnvVar] | Mapping[str, str]) -> list[k8s.V1EnvVar]:
    """Return environment variables as Kubernetes' objects, from all forms that KubernetesPodOperator accepts.

    Relies on `convert_env_vars` of the provider's backcompat package, which the operator calls for its argument `env_vars`.
    """
    given = dict(variables) if isinstance(variables, Mapping) else list(variables)
    return convert_env_vars(given)


def serialize_pod(pod: k8s.V1Pod) -> dict[str, Any]:
    """Return the pod as JSON, with Kubernetes' names. Relies on the provider's PodGenerator."""
    return cast("dict[str, Any]", PodGenerator.serialize_pod(pod))


def parse_pod(content: Mapping[str, Any]) -> k8s.V1Pod:
    """Return the pod for JSON with Kubernetes' names. Relies on the provider's PodGenerator."""
    return PodGenerator.deserialize_model_dict(dict(content))


def set_upstream(operator: Any, value: Any) -> None:
    """Make the tasks that the XComArgs in `value` refer to upstream of `operator`.

    Relies on `XComArg.apply_upstream_relationship`, which Airflow calls for templated arguments only.
    """
    XComArg.apply_upstream_relationship(operator, value)
