"""What the status of a step's pod says. Pure functions of the objects that the Kubernetes API returns."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from airflow_steps.termination import ExitStatus

POD_DELETED = "its pod was deleted"
# Why an image cannot be pulled, if waiting does not help. Registries and container runtimes word it differently.
PULL_FAILURES = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
PERMANENT_PULL_FAILURE = re.compile(
    "not found|manifest unknown|unauthorized|denied|insufficient_scope|no match for platform|InvalidImageName|NeverPull",
    re.IGNORECASE,
)
# These reasons only repeat the exit code; any other means that something outside the step terminated it.
OWN_REASONS = (None, "Completed", "Error")


def has_terminated(pod: Any) -> bool:
    """Return whether all containers of the pod have terminated."""
    return pod.status.phase in ("Succeeded", "Failed")


def get_step_phase(pod: Any) -> str | None:
    """Return "Succeeded" or "Failed" once the step's container, which is the first, has terminated; None before.

    Unlike the pod's own phase, it does not wait for sidecars.
    """
    if has_terminated(pod):
        phase: str = pod.status.phase
        return phase
    state = _get_state(pod, pod.spec.containers[0].name)
    if not state or not state.terminated:
        return None
    return "Failed" if state.terminated.exit_code else "Succeeded"


def get_pull_failure(pod: Any, container: str) -> str | None:
    """Return why the container's image cannot be pulled if waiting does not help: it does not exist, or access is denied."""
    state = _get_state(pod, container)
    reason = get_waiting_reason(pod, container)
    if not state or not state.waiting or state.waiting.reason not in PULL_FAILURES:
        return None
    return reason if PERMANENT_PULL_FAILURE.search(reason) else None


def has_started(pod: Any, container: str) -> bool:
    """Return whether the container runs or has run, so that it has a log."""
    state = _get_state(pod, container)
    return bool(state and (state.running or state.terminated))


def get_exit_status(pod: Any, container: str) -> ExitStatus | None:
    """Return how the container terminated, without its log; None if it has not."""
    state = _get_state(pod, container)
    terminated = state.terminated if state else None
    if terminated is None and not has_terminated(pod):
        return None
    pod_reason = f"{pod.status.reason or pod.status.phase}: {pod.status.message or 'its container has no exit code'}"
    if terminated is None:
        return ExitStatus(None, b"", (), pod_reason)
    reason = terminated.reason if terminated.reason not in OWN_REASONS else None
    if terminated.exit_code and pod.status.reason:
        reason = pod_reason
    elif terminated.exit_code and pod.metadata.deletion_timestamp:
        reason = reason or f"{POD_DELETED}{_get_disruption(pod)}"
    return ExitStatus(terminated.exit_code, (terminated.message or "").encode(), (), reason)


def get_durations(pod: Any, container: str) -> tuple[timedelta, timedelta] | None:
    """Return the times from the pod's creation to the container's start, and from there to its end, in whole seconds.

    None if the status does not have them.
    """
    state = _get_state(pod, container)
    terminated = state.terminated if state else None
    if terminated is None or terminated.started_at is None or terminated.finished_at is None:
        return None
    return terminated.started_at - pod.metadata.creation_timestamp, terminated.finished_at - terminated.started_at


def get_waiting_reason(pod: Any, container: str) -> str:
    """Return why the container has not started: its waiting reason, or the pod's conditions that are not met."""
    state = _get_state(pod, container)
    if state and state.waiting and state.waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
        return f"{state.waiting.reason}: {state.waiting.message or ''}".rstrip(": ")
    conditions = (pod.status.conditions if pod.status else None) or ()
    unmet = [condition for condition in conditions if condition.status == "False" and condition.message]
    return "; ".join(f"{condition.type}: {condition.message}" for condition in unmet)


def _get_state(pod: Any, container: str) -> Any:
    statuses = (pod.status.container_statuses if pod.status else None) or ()
    return next((status.state for status in statuses if status.name == container), None)


def _get_disruption(pod: Any) -> str:
    """Return the cluster's reason for deleting the pod (preemption, eviction, lost node) in parentheses, or ""."""
    for condition in pod.status.conditions or ():
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return f" ({condition.reason}: {condition.message})"
    return ""
