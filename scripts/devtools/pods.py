"""Watch the pods of a namespace, and describe those that are not healthy."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any

from devtools.commands import ToolError

Pod = dict[str, Any]
LOG_LINES = 15
MAX_EVENTS = 6


def is_healthy(pod: Pod) -> bool:
    """Return whether the pod has succeeded, or runs with all containers ready."""
    status = pod["status"]
    containers = status.get("containerStatuses", [])
    return status["phase"] == "Succeeded" or (
        status["phase"] == "Running" and bool(containers) and all(container["ready"] for container in containers)
    )


def list_unready_containers(pod: Pod) -> list[str]:
    """Return the names of the init containers that are not ready; if there are none, of the other containers."""
    status = pod["status"]
    init = [container["name"] for container in status.get("initContainerStatuses", []) if not container["ready"]]
    return init or [container["name"] for container in status.get("containerStatuses", []) if not container["ready"]]


def describe_unhealthy_pods(kubectl: Callable[..., str]) -> str:
    """Return the phase, the last events and the last log lines of each pod that is not healthy."""
    lines = []
    for pod in json.loads(kubectl("get", "pods", "--output=json"))["items"]:
        if is_healthy(pod):
            continue
        name = pod["metadata"]["name"]
        events = json.loads(kubectl("get", "events", f"--field-selector=involvedObject.name={name}", "--output=json"))["items"]
        lines.append(f"pod {name}: {pod['status']['phase']}")
        lines += [f"  event {event['reason']}: {event['message']}" for event in events[-MAX_EVENTS:]]
        for container in list_unready_containers(pod):
            for options in ((), ("--previous",)):
                try:
                    log = kubectl("logs", name, "--container", container, f"--tail={LOG_LINES}", *options)
                except ToolError:
                    continue
                lines.append(f"  log of {' '.join((container, *options))}:")
                lines += [f"    {line}" for line in log.splitlines()]
    return "\n".join(lines) or "all pods are healthy"


class PodWatch:
    """Record the pods that `command`, a `kubectl get pods --watch --output=json`, prints while the block runs.

    Attributes:
        first: each pod as it was first seen, by name, in the order in which they appeared.
        last: each pod as it was last seen, by name; deleted pods are kept.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self.first: dict[str, Pod] = {}
        self.last: dict[str, Pod] = {}

    def __enter__(self) -> PodWatch:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._reader.join(timeout=10)

    def _read(self) -> None:
        text = ""
        for line in self._process.stdout or ():
            text += line
            if line == "}\n":  # the end of an object; inner braces are indented
                pod: Pod = json.loads(text)
                self.first.setdefault(pod["metadata"]["name"], pod)
                self.last[pod["metadata"]["name"]] = pod
                text = ""

    def select(self, labels: dict[str, str]) -> list[Pod]:
        """Return the pods, as last seen, that have all these labels."""
        return [pod for pod in list(self.last.values()) if labels.items() <= pod["metadata"]["labels"].items()]
