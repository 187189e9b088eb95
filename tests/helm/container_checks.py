"""What is asked of every container, as plain functions on rendered objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

Object = dict[str, Any]


class UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Refuses a key that a mapping has twice, as the API server does; of two, YAML's own loader silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Object:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        if repeated := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"repeated keys {repeated}", node.start_mark)
        made: Object = super().construct_mapping(node, deep)
        return made


@cache
def parsed(text: str) -> tuple[Object, ...]:
    """The objects in rendered text. They are shared: a test that changes one copies it first."""
    return tuple(one for one in yaml.load_all(text, UniqueKeys) if one)


def pods(objects: list[Object]) -> Iterator[tuple[str, str, Object]]:
    """Kind, name and specification of every pod."""
    for one in objects:
        spec = one if one["kind"] == "Pod" else one.get("spec", {}).get("jobTemplate", one).get("spec", {}).get("template", {})
        if spec.get("spec", {}).get("containers"):
            yield one["kind"], one["metadata"]["name"], spec["spec"]


def containers(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Name, pod and container of every container, the initial ones too."""
    for _, name, pod in pods(objects):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield f"{name}/{container['name']}", pod, container


def without_bounds(objects: list[Object]) -> list[str]:
    """Containers without requests and a limit of memory."""
    found = []
    for name, _, container in containers(objects):
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        if not ({"cpu", "memory"} <= requests.keys() and "memory" in limits):
            found.append(name)
    return found


def not_restricted(objects: list[Object]) -> list[str]:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    found = []
    for name, pod, container in containers(objects):
        outer, own = pod.get("securityContext") or {}, container.get("securityContext") or {}
        both = outer | own
        holds = (
            both.get("runAsNonRoot") is True
            and both.get("runAsUser") != 0
            and (both.get("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost")
            and own.get("allowPrivilegeEscalation") is False
            and (own.get("capabilities") or {}).get("drop") == ["ALL"]
            and not (own.get("capabilities") or {}).get("add")
            and not own.get("privileged")
            and not any(pod.get(shared) for shared in ("hostNetwork", "hostPID", "hostIPC"))
            and not any("hostPath" in volume for volume in pod.get("volumes", ()))
            and not any("hostPort" in port for port in container.get("ports", ()))
        )
        if not holds:
            found.append(name)
    return found


def secrets_in_clear(objects: list[Object]) -> list[str]:
    """Rendered secrets, and variables that are named as secrets and hold a value."""
    found = [one["metadata"]["name"] for one in objects if one["kind"] == "Secret"]
    for name, _, container in containers(objects):
        for variable in container.get("env") or ():
            telling = re.search(r"PASSWORD|SECRET|KEY|TOKEN|CONN(?!ECTION)", variable["name"])
            if telling and variable.get("value") not in (None, "aws://"):
                found.append(f"{name}: {variable['name']}")
    return found
