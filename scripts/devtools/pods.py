"""What is wrong with the pods of a namespace, for a person who has just seen a target fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from devtools.commands import ToolError

LOG_LINES = 15


def is_well(pod: dict[str, Any]) -> bool:
    """Whether the pod has ended well, or runs with every container ready."""
    status = pod["status"]
    containers = status.get("containerStatuses", [])
    return status["phase"] == "Succeeded" or (
        status["phase"] == "Running" and bool(containers) and all(container["ready"] for container in containers)
    )


def waiting_containers(pod: dict[str, Any]) -> list[str]:
    """The containers, the initial ones too, that are not as they should be."""
    status = pod["status"]
    initial = [one["name"] for one in status.get("initContainerStatuses", []) if not one["ready"]]
    return initial or [one["name"] for one in status.get("containerStatuses", []) if not one["ready"]]


def unhealthy(kubectl: Callable[..., str]) -> str:
    """Of every pod that is not well: its events and its containers' last log lines."""
    told = []
    for pod in json.loads(kubectl("get", "pods", "--output=json"))["items"]:
        if is_well(pod):
            continue
        name = pod["metadata"]["name"]
        events = json.loads(kubectl("get", "events", f"--field-selector=involvedObject.name={name}", "--output=json"))["items"]
        told.append(f"pod {name}: {pod['status']['phase']}")
        told += [f"  event {event['reason']}: {event['message']}" for event in events[-6:]]
        for container in waiting_containers(pod):
            for before in ("", "--previous"):
                try:
                    log = kubectl("logs", name, "--container", container, f"--tail={LOG_LINES}", *filter(None, [before]))
                except ToolError:
                    continue
                told += [f"  log of {container} {before}".rstrip() + ":", *(f"    {line}" for line in log.splitlines())]
    return "\n".join(told) or "all pods are well"
