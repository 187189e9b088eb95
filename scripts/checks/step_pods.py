"""Short-lived pods like a step's, one for each program, that run its command `check`; always deleted afterwards."""

from __future__ import annotations

import copy
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from devtools.commands import ToolError
from devtools.deployment import Deployment
from step_contract.checks.findings import Finding, error, ok, warning

from checks.cluster import READ_TIMEOUT_SECONDS, REQUEST_TIMEOUT, Cluster, Object

# Finds the pods of this and of earlier runs.
LABEL = "market-daily/doctor"
WAIT_SECONDS = 75  # below the pod's own deadline, which ends it if this process dies
POLL_SECONDS = 1.0
# A pod of an interrupted run is this old before it is called a leftover: another person may be running this.
LEFTOVER_SECONDS = 300
TERMINATIONS = {137: "killed, out of memory perhaps", 139: "a segmentation fault: an image for another architecture perhaps"}


def delete_leftovers(deployment: Deployment, now: float) -> Iterator[Finding]:
    """Delete the pods that an earlier, interrupted run left behind; `now` is Unix time."""
    from datetime import datetime

    for pod in Cluster(deployment).get("pods", f"--selector={LABEL}"):
        created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
        if now - created > LEFTOVER_SECONDS:
            delete(deployment, pod["metadata"]["name"])
            yield ok("step-pod", f"deleted {pod['metadata']['name']}, left behind by an interrupted run")


def delete(deployment: Deployment, name: str) -> None:
    """Delete the pod, without waiting until it is gone."""
    options = ("--ignore-not-found", "--wait=false", "--grace-period=1", REQUEST_TIMEOUT)
    deployment.kubectl("delete", "pod", name, *options, timeout=READ_TIMEOUT_SECONDS)


def name_pod(template: Object, program: str) -> Object:
    """Return the pod of a program with a name of its own, and the label by which it is found again."""
    pod = copy.deepcopy(template)
    pod["metadata"]["name"] = f"doctor-{program}-{secrets.token_hex(4)}"
    pod["metadata"]["labels"] = dict(pod["metadata"].get("labels") or {}) | {LABEL: "true"}
    return pod


def check_program(cluster: Cluster, template: Object, program: str) -> Iterator[Finding]:
    """Run the program's command check in a pod, yield what it finds, or why it could not; delete the pod.

    Each finding names the program.
    """
    pod = name_pod(template, program)
    deployment = replace(cluster.deployment, namespace=pod["metadata"]["namespace"])
    name = pod["metadata"]["name"]
    expected = cluster.settings.get(f"{program}_image")
    image = pod["spec"]["containers"][0]["image"]
    if expected != image:
        advice = "restart the DAG processor, which has older settings: kubectl rollout restart deployment airflow-dag-processor"
        yield warning("images", f"steps use the image {image}, the values say {expected}", advice, program)
    try:
        try:
            deployment.kubectl(
                "create", "--filename", "-", REQUEST_TIMEOUT, input=json.dumps(pod), timeout=READ_TIMEOUT_SECONDS
            )
        except ToolError as problem:
            yield explain_refusal(problem, program)
            return
        finished = wait_until_finished(deployment, name)
        yield from read_findings(deployment, finished, program)
    finally:
        with suppress(ToolError):
            delete(deployment, name)


def explain_refusal(problem: ToolError, program: str) -> Finding:
    """Return why the cluster did not accept the pod."""
    reason = str(problem).splitlines()[-1].removeprefix("Error from server ")
    if "exceeded quota" in reason:
        advice = "steps wait as well: look for pods that hang, or raise step_max_pods"
        return warning("step-pod", f"not created, the quota is used up: {reason}", advice, program)
    if "cannot create resource" in reason:
        advice = "ask for the permission to create pods there, or let someone who has it run this: these checks are left out"
        return warning("step-pod", f"you may not create pods: {reason}", advice, program)
    return error("step-pod", f"the cluster rejects the pod of a step: {reason}", "correct what the message names", program)


def wait_until_finished(deployment: Deployment, name: str, seconds: float | None = None) -> Object:
    """Return the pod once it has finished or cannot start; after `seconds`, by default WAIT_SECONDS, as it is then."""
    deadline = time.monotonic() + (WAIT_SECONDS if seconds is None else seconds)
    while True:
        output = deployment.kubectl("get", "pod", name, "--output=json", REQUEST_TIMEOUT, timeout=READ_TIMEOUT_SECONDS)
        pod: Object = json.loads(output)
        finished = pod["status"].get("phase") in ("Succeeded", "Failed")
        if finished or cannot_start(pod) or time.monotonic() > deadline:
            return pod
        time.sleep(POLL_SECONDS)


def get_waiting(pod: Object) -> tuple[str, str]:
    """Return why the container waits: reason and message; empty if it does not."""
    for status in pod["status"].get("containerStatuses", []):
        if waiting := status["state"].get("waiting"):
            return waiting.get("reason") or "", waiting.get("message") or ""
    return "", ""


def cannot_start(pod: Object) -> bool:
    """Return whether waiting is pointless: the image cannot be pulled, or the container cannot be made."""
    return get_waiting(pod)[0] in ("ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError")


def read_findings(deployment: Deployment, pod: Object, program: str) -> Iterator[Finding]:
    """Yield what the program printed, or why it did not run."""
    name, phase = pod["metadata"]["name"], pod["status"].get("phase")
    reason, message = get_waiting(pod)
    if phase not in ("Succeeded", "Failed"):
        unmet = [
            f"{condition['type']}: {condition['message']}"
            for condition in pod["status"].get("conditions", [])
            if condition.get("status") == "False" and condition.get("message")
        ]
        detail = f"{reason}: {message}".strip(": ") or "; ".join(unmet) or f"it is {phase} after {WAIT_SECONDS} s"
        yield error("step-pod", f"a pod like a step's does not run: {detail}", advise_start(reason, detail, program), program)
        return
    log = deployment.kubectl("logs", name, REQUEST_TIMEOUT, timeout=READ_TIMEOUT_SECONDS)
    findings = [replace(finding, where=program) for line in log.splitlines() if (finding := Finding.parse(line))]
    if findings:
        node, image = pod["spec"].get("nodeName"), pod["spec"]["containers"][0]["image"]
        yield ok("step-pod", f"{image} runs on {node} as a step does", program)
        yield from findings
    terminated = next((status["state"].get("terminated") for status in pod["status"].get("containerStatuses", [])), None) or {}
    code = terminated.get("exitCode")
    if findings and code in (0, 78):
        return
    last = next((line for line in reversed(log.splitlines()) if line.strip() and not Finding.parse(line)), "")
    cause = pod["status"].get("message") or terminated.get("reason") or pod["status"].get("reason") or "no exit code"
    detail = f"exit code {code} ({TERMINATIONS.get(code, cause)})" if code is not None else str(cause)
    advice = (
        "an image from before this version has no command check: deploy it again"
        if "invalid choice" in last
        else ("compare the architectures of image and node, and the program's memory in the values")
    )
    yield error("step-pod", f"the command check ended with {detail}. {last}".strip(), advice, program)


def advise_start(reason: str, detail: str, program: str) -> str:
    """Return what to do about a pod that does not start."""
    if "Image" in reason:
        return (
            f"push the image (make push), check its name in {program}_image and the pull secret; make kind-up loads it in kind"
        )
    if "Config" in reason:
        return "create the secret or key that the message names, in the steps' namespace"
    if "Unschedulable" in detail or "PodScheduled" in detail or "didn't match" in detail:
        return f"add a node that fits, or change {program}_node_selector, {program}_cpu or {program}_memory"
    return "kubectl describe pod has the events; run this again"
