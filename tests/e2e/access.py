"""What service accounts and pods can do, by trying it: requests in their name, and pods that try to connect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from devtools import container_images
from devtools.commands import ToolError
from devtools.deployment import Deployment

PROBE = Path(__file__).with_name("network_probe.py").read_text()
# Each reads secrets, or leads to them.
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
    ("create", "rolebindings"),
    ("create", "deployments"),
    ("create", "jobs"),
)


def as_account(account: str, deployment: Deployment) -> str:
    """Return kubectl's option that makes a request in the name of a service account of the deployment's namespace."""
    return f"--as=system:serviceaccount:{deployment.namespace}:{account}"


def is_permitted(deployment: Deployment, option: str, verb: str, resource: str) -> bool:
    """Return whether the API server permits the account that `option` names the request in the deployment's namespace."""
    resource, _, subresource = resource.partition("/")
    try:
        answer = deployment.kubectl("auth", "can-i", verb, resource, f"--subresource={subresource}", option)
    except ToolError as error:  # can-i exits with 1 for no
        answer = str(error).splitlines()[-1]
    assert answer.strip() in ("yes", "no"), answer
    return answer.strip() == "yes"


def list_privileges(deployment: Deployment, option: str) -> list[tuple[str, str]]:
    """Return those of PRIVILEGED that the account has in the deployment's namespace."""
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda request: is_permitted(deployment, option, *request), PRIVILEGED)
        return [request for request, permitted in zip(PRIVILEGED, answers, strict=True) if permitted]


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


def find_reachable(deployment: Deployment, name: str, labels: Mapping[str, str], addresses: Sequence[str]) -> set[str]:
    """Return those of the addresses HOST:PORT that a pod with these labels in the deployment's namespace can connect to."""
    pod = make_pod(f"probe-{name}", labels, ["python3", "-c", PROBE, *addresses])
    assert not (refusal := try_create(deployment, pod)), refusal
    deployment.kubectl("wait", "pod", f"probe-{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s", timeout=100)
    lines = deployment.kubectl("logs", f"probe-{name}").splitlines()
    deployment.kubectl("delete", "pod", f"probe-{name}", "--wait=false")
    assert len(lines) == len(addresses)
    return {line.split()[0] for line in lines if line.endswith(" reached")}
