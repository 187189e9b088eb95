"""Checks of all containers, as functions of the rendered objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

Object = dict[str, Any]


class UniqueKeyLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A loader that rejects duplicate keys, as the API server does; PyYAML's own loaders keep the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Object:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if duplicates := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"duplicate keys {duplicates}", node.start_mark)
        mapping: Object = super().construct_mapping(node, deep)
        return mapping


@cache
def parse_objects(manifests: str) -> tuple[Object, ...]:
    """Return the objects of YAML manifests. The cache shares them: copy an object before you change it."""
    return tuple(document for document in yaml.load_all(manifests, UniqueKeyLoader) if document)


def iterate_pods(objects: list[Object]) -> Iterator[tuple[str, str, Object]]:
    """Yield the kind and name of each object with pods, and the pods' spec."""
    for manifest in objects:
        owner = manifest.get("spec", {}).get("jobTemplate", manifest)
        pod = manifest if manifest["kind"] == "Pod" else owner.get("spec", {}).get("template", {})
        if pod.get("spec", {}).get("containers"):
            yield manifest["kind"], manifest["metadata"]["name"], pod["spec"]


def iterate_containers(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Yield the name, the pod's spec and the container of each container and init container."""
    for _, name, pod in iterate_pods(objects):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield f"{name}/{container['name']}", pod, container


def find_unbounded(objects: list[Object]) -> list[str]:
    """Return the containers that lack a request of CPU or memory, or a limit of memory."""
    unbounded = []
    for name, _, container in iterate_containers(objects):
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        if not ({"cpu", "memory"} <= requests.keys() and "memory" in limits):
            unbounded.append(name)
    return unbounded


def find_unrestricted(objects: list[Object]) -> list[str]:
    """Return the containers that violate the pod security standard "restricted".

    See https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted.
    """
    unrestricted = []
    for name, pod, container in iterate_containers(objects):
        pod_context, context = pod.get("securityContext") or {}, container.get("securityContext") or {}
        effective = pod_context | context
        is_restricted = (
            effective.get("runAsNonRoot") is True
            and effective.get("runAsUser") != 0
            and (effective.get("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost")
            and context.get("allowPrivilegeEscalation") is False
            and (context.get("capabilities") or {}).get("drop") == ["ALL"]
            and not (context.get("capabilities") or {}).get("add")
            and not context.get("privileged")
            and not any(pod.get(shared) for shared in ("hostNetwork", "hostPID", "hostIPC"))
            and not any("hostPath" in volume for volume in pod.get("volumes", ()))
            and not any("hostPort" in port for port in container.get("ports", ()))
        )
        if not is_restricted:
            unrestricted.append(name)
    return unrestricted


def find_plaintext_secrets(objects: list[Object]) -> list[str]:
    """Return the rendered secrets, and the variables with a secret's name that have a literal value."""
    secrets = [manifest["metadata"]["name"] for manifest in objects if manifest["kind"] == "Secret"]
    for name, _, container in iterate_containers(objects):
        for variable in container.get("env") or ():
            is_secret = re.search(r"PASSWORD|SECRET|KEY|TOKEN|CONN(?!ECTION)", variable["name"])
            if is_secret and variable.get("value") not in (None, "aws://"):
                secrets.append(f"{name}: {variable['name']}")
    return secrets
