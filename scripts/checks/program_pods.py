"""Runs a program's step in a pod like a step's, for commands that need the environment's bucket but not Airflow."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from devtools.commands import ToolError
from devtools.deployment import Deployment
from step_contract.checks.findings import Finding

from checks import step_pods
from checks.cluster import READ_TIMEOUT_SECONDS, REQUEST_TIMEOUT, Object

DEADLINE_SECONDS = 3600
BUILD_TIMEOUT_SECONDS = 120  # imports Airflow
# Options of the command check, whose pod is the template, that other steps have too.
INHERITED_OPTIONS = {"verify": ("--artifacts",), "decide": ("--artifacts", "--prices-url")}
INHERITED_OPTIONS |= {"fetch-prices": ("--artifacts", "--prices-url"), "fetch-headlines": ("--artifacts", "--feeds")}


class Runner(Protocol):
    """Runs a program's step."""

    def run(self, program: str, arguments: Sequence[str]) -> tuple[int, list[str]]:
        """Return the exit code and the lines of the program's output."""


class PodRunner:
    """Runs steps in pods with a step's namespace, service account, credentials, network policies and limits.

    The DAG processor's pod builds the pod with the operator's own code, as for `make doctor`.
    """

    def __init__(self, deployment: Deployment) -> None:
        command = ["python", "-m", "airflow_steps.doctor", "--salt", "none", "pods"]
        container = ("deployment/airflow-dag-processor", "--container", "dag-processor")
        output = deployment.kubectl("exec", *container, "--", *command, timeout=BUILD_TIMEOUT_SECONDS)
        content = json.loads(output.splitlines()[-1])
        self.templates: dict[str, Object] = content["pods"]
        if not self.templates:
            found = [Finding(**finding).message for finding in content["findings"]]
            raise ToolError("; ".join(found) or "the DAG processor builds no pod: deploy this version")
        self.deployment = deployment

    def run(self, program: str, arguments: Sequence[str]) -> tuple[int, list[str]]:
        """Return the exit code and the lines of the output. Raises ToolError if the pod does not start."""
        pod = make_pod(self.templates[program], program, arguments)
        name = pod["metadata"]["name"]
        deployment = replace(self.deployment, namespace=pod["metadata"]["namespace"])
        deployment.kubectl("create", "--filename", "-", REQUEST_TIMEOUT, input=json.dumps(pod), timeout=READ_TIMEOUT_SECONDS)
        try:
            ready = ("--for=jsonpath={.status.containerStatuses[0].state}", f"pod/{name}", "--timeout=180s")
            deployment.kubectl("wait", *ready, timeout=200)
            command = deployment.kubectl_command("logs", "--follow", "--pod-running-timeout=180s", name)
            log = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_SECONDS + 60).stdout
            finished = step_pods.wait_until_finished(deployment, name)
            states = [status["state"].get("terminated") for status in finished["status"].get("containerStatuses", [])]
            if not states or not states[0]:
                raise ToolError(f"the pod {name} has not finished: {step_pods.get_waiting(finished)[1] or 'see its events'}")
            return int(states[0]["exitCode"]), log.splitlines()
        finally:
            with suppress(ToolError):
                step_pods.delete(deployment, name)


def make_pod(template: Object, program: str, arguments: Sequence[str]) -> Object:
    """Return the pod of a step with these arguments, from that of the program's command check."""
    pod = step_pods.name_pod(template, program)
    pod["metadata"]["name"] = f"{arguments[0]}-{secrets.token_hex(4)}"
    pod["spec"]["activeDeadlineSeconds"] = DEADLINE_SECONDS
    container = pod["spec"]["containers"][0]
    given = dict(zip(container["args"][1::2], container["args"][2::2], strict=False))
    inherited = INHERITED_OPTIONS.get(arguments[0], ("--artifacts",))
    container["args"] = [*arguments, *(word for name in inherited if name in given for word in (name, given[name]))]
    return pod
