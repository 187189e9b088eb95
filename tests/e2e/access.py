"""What service accounts and pods can do, by trying it: requests in their name, and pods that try to connect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devtools import container_images
from devtools.commands import ToolError
from devtools.deployment import Deployment

from . import kubernetes_api

PROBE = Path(__file__).with_name("network_probe.py").read_text()
# Requests, as VERB and RESOURCE[.GROUP][/SUBRESOURCE], that read secrets or lead to them.
PRIVILEGED = (
    ("get", "secrets"),
    ("list", "secrets"),
    ("watch", "secrets"),
    ("create", "pods/exec"),
    ("get", "pods/exec"),
    ("create", "pods/attach"),
    ("create", "pods/portforward"),
    ("update", "pods/ephemeralcontainers"),
    ("patch", "pods/ephemeralcontainers"),
    ("create", "serviceaccounts/token"),
    ("create", "rolebindings.rbac.authorization.k8s.io"),
    ("create", "deployments.apps"),
    ("create", "jobs.batch"),
)


@dataclass(frozen=True)
class Account:
    """A service account of the deployment's namespace."""

    name: str
    deployment: Deployment

    @property
    def user(self) -> str:
        """The user name that the API server knows the account by."""
        return f"system:serviceaccount:{self.deployment.namespace}:{self.name}"

    @property
    def option(self) -> str:
        """kubectl's option that makes a request in the account's name."""
        return f"--as={self.user}"


def is_permitted(account: Account, namespace: str, verb: str, resource: str) -> bool:
    """Return whether the API server, asked in the account's name, permits the request; see PRIVILEGED for `resource`."""
    name, _, subresource = resource.partition("/")
    name, _, group = name.partition(".")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": name, "subresource": subresource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = kubernetes_api.request(account.deployment.context, path, review, account.user)
    permitted: bool = answer["status"]["allowed"]
    return permitted


def list_privileges(account: Account, namespace: str) -> list[tuple[str, str]]:
    """Return those of PRIVILEGED that the account has in the namespace."""
    return [request for request in PRIVILEGED if is_permitted(account, namespace, *request)]


def make_pod(
    name: str, labels: Mapping[str, str], command: Sequence[str] = ("true",), env: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return a pod that the namespace's pod security standard admits."""
    container = {
        "name": "probe",
        "image": container_images.name_of("collector"),
        "command": list(command),
        "env": list(env),
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": dict(labels)}, "spec": spec}


def try_create(deployment: Deployment, pod: Mapping[str, Any], *options: str) -> str:
    """Send the pod to the API server, by default with its own rights. Return why it was refused; empty if it was admitted."""
    try:
        deployment.kubectl("create", "--filename", "-", *options, input=json.dumps(pod))
    except ToolError as error:
        return str(error)
    return ""


def find_reachable(
    deployment: Deployment, pods: Mapping[str, Mapping[str, str]], addresses: Sequence[str]
) -> dict[str, set[str]]:
    """Return those of the addresses HOST:PORT that pods in the deployment's namespace can connect to.

    Args:
        deployment: where to create the pods.
        pods: their labels by name.
        addresses: what each pod tries.

    Returns:
        The addresses that were reached, by the pod's name.
    """
    names = {name: f"probe-{name}" for name in pods}
    for name, labels in pods.items():
        refusal = try_create(deployment, make_pod(names[name], labels, ["python3", "-c", PROBE, *addresses]))
        assert not refusal, refusal
    succeeded = ("--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
    deployment.kubectl("wait", *(f"pod/{pod}" for pod in names.values()), *succeeded, timeout=100)
    lines = {name: deployment.kubectl("logs", pod).splitlines() for name, pod in names.items()}
    deployment.kubectl("delete", "pod", *names.values(), "--wait=false")
    assert {len(printed) for printed in lines.values()} == {len(addresses)}
    return {name: {line.split()[0] for line in printed if line.endswith(" reached")} for name, printed in lines.items()}
