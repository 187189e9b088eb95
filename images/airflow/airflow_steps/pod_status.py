"""A step's pod: its name, what tells whose it is, and what its status says. Pure functions on the API's objects."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol

from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value

from airflow_steps.termination import Ended

NAME_LENGTH = 63  # the name is the pod's host name too
COMPONENT = {"app.kubernetes.io/component": "step", "app.kubernetes.io/part-of": "market-daily"}
# These reasons only repeat the exit code; any other one says that the end came from outside.
OWN_END = (None, "Completed", "Error")


class Try(Protocol):
    """One try of a task: what Airflow's task instances have in common in a worker and in the triggerer."""

    id: Any
    dag_id: str
    task_id: str
    run_id: str
    map_index: int | None
    try_number: int


def pod_name(this: Try) -> str:
    """The one name of the pod of this try: the API server itself refuses a second.

    Its readable part may be cut; the digest tells apart runs, mapped tasks, tries, and a run that was deleted and made again.
    """
    index = -1 if this.map_index is None else this.map_index
    identity = "\0".join(map(str, (this.dag_id, this.task_id, this.run_id, index, this.try_number, this.id)))
    tail = f"-{hashlib.sha256(identity.encode()).hexdigest()[:10]}-{this.try_number}"
    readable = re.sub(r"[^a-z0-9]+", "-", f"{this.dag_id}-{this.task_id}".lower()).strip("-")
    return readable[: NAME_LENGTH - len(tail)].rstrip("-") + tail


def labels(this: Try) -> dict[str, str]:
    """The labels by which people and the stock operator find the pod of a try."""
    told = {"dag_id": this.dag_id, "task_id": this.task_id, "run_id": this.run_id, "try_number": str(this.try_number)}
    if this.map_index is not None and this.map_index >= 0:
        told["map_index"] = str(this.map_index)
    safe = {name: make_safe_label_value(value) for name, value in told.items()}
    return COMPONENT | safe | {"kubernetes_pod_operator": "True"}


def task_labels(of_try: Mapping[str, str]) -> dict[str, str]:
    """Of the labels of a try those that all tries of the task in that run have."""
    names = ("dag_id", "task_id", "run_id", "map_index", *COMPONENT)
    return {name: of_try[name] for name in names if name in of_try}


def pod_of(template: Mapping[str, Any], this: Try) -> dict[str, Any]:
    """The pod to create for this try, made from the rendered `template`."""
    pod = copy.deepcopy(dict(template))
    metadata = pod.setdefault("metadata", {})
    metadata["name"] = pod_name(this)
    metadata["labels"] = dict(metadata.get("labels") or {}) | labels(this)
    return pod


def command_of(pod: Mapping[str, Any], container: str) -> str:
    """The image and the arguments of the pod's `container`, in one line."""
    [found] = [one for one in pod["spec"]["containers"] if one["name"] == container]
    return " ".join([found["image"], *(found.get("command") or ()), *(found.get("args") or ())])


def _state(pod: Any, container: str) -> Any:
    statuses = (pod.status.container_statuses if pod.status else None) or ()
    return next((status.state for status in statuses if status.name == container), None)


def has_started(pod: Any, container: str) -> bool:
    """Whether the pod's `container` runs or has run, so that there is a log."""
    state = _state(pod, container)
    return bool(state and (state.running or state.terminated))


def end_of(pod: Any, container: str) -> Ended | None:
    """How the pod's `container` ended; None while it may still run."""
    state = _state(pod, container)
    terminated = state.terminated if state else None
    if terminated is None and pod.status.phase not in ("Succeeded", "Failed"):
        return None
    said = f"{pod.status.reason or pod.status.phase}: {pod.status.message or 'its container has no exit code'}"
    if terminated is None:
        return Ended(None, b"", (), said)
    reason = terminated.reason if terminated.reason not in OWN_END else None
    if terminated.exit_code and pod.status.reason:
        reason = said
    elif terminated.exit_code and pod.metadata.deletion_timestamp:
        reason = reason or f"its pod was deleted{_taken_by(pod)}"
    return Ended(terminated.exit_code, (terminated.message or "").encode(), (), reason)


def _taken_by(pod: Any) -> str:
    """Who took the pod away, and why, where the cluster says so: a preemption, an eviction, a node that is lost."""
    for condition in pod.status.conditions or ():
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return f" ({condition.reason}: {condition.message})"
    return ""


def times_of(pod: Any, container: str) -> tuple[timedelta, timedelta] | None:
    """How long the pod's ended `container` took to start, from the pod's creation on, and then to end, in whole seconds; None
    where the pod does not tell.
    """
    state = _state(pod, container)
    ended = state.terminated if state else None
    if ended is None or ended.started_at is None or ended.finished_at is None:
        return None
    return ended.started_at - pod.metadata.creation_timestamp, ended.finished_at - ended.started_at


def waits_for(pod: Any, container: str) -> str:
    """Why the pod's `container` has not started, as far as the pod itself says."""
    state = _state(pod, container)
    if state and state.waiting and state.waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
        return f"{state.waiting.reason}: {state.waiting.message or ''}".rstrip(": ")
    conditions = (pod.status.conditions if pod.status else None) or ()
    unmet = [condition for condition in conditions if condition.status == "False" and condition.message]
    return "; ".join(f"{condition.type}: {condition.message}" for condition in unmet)
