"""Runs a program's step in a pod like a step's, for commands that need the environment's bucket but not Airflow."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from devtools.commands import ToolError
from devtools.deployment import Deployment
from step_contract.checks.findings import Finding

from checks import step_pods
from checks.cluster import READ_TIMEOUT_SECONDS, REQUEST_TIMEOUT, Cluster, Object

DEADLINE_SECONDS = 3600
START_SECONDS = 180
BUILD_TIMEOUT_SECONDS = 120  # imports Airflow
# Options of the command check, whose pod is the template, that other steps have too.
INHERITED_OPTIONS = {"verify": ("--artifacts",), "decide": ("--artifacts", "--prices-url")}
# The deployment's settings that a step gets from its DAG: without them, another artifact would be made.
SETTINGS_OF_STEPS = {"train": {"history_years": "--history-years"}, "plot": {"plot_language": "--plot-language"}}
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
        self.deployment, self.settings = deployment, Cluster(deployment).settings

    def run(self, program: str, arguments: Sequence[str]) -> tuple[int, list[str]]:
        """Return the exit code and the lines of the output. Raises ToolError if the pod does not start."""
        pod = make_pod(self.templates[program], program, arguments, self.settings)
        name = pod["metadata"]["name"]
        deployment = replace(self.deployment, namespace=pod["metadata"]["namespace"])
        deployment.kubectl("create", "--filename", "-", REQUEST_TIMEOUT, input=json.dumps(pod), timeout=READ_TIMEOUT_SECONDS)
        try:
            pod = step_pods.wait_until_finished(deployment, name, START_SECONDS)
            if pod["status"].get("phase") == "Running":
                pod = step_pods.wait_until_finished(deployment, name, DEADLINE_SECONDS)
            statuses = pod["status"].get("containerStatuses", [])
            terminated = next((status["state"].get("terminated") for status in statuses), None)
            if not terminated:
                reason = ": ".join(filter(None, step_pods.get_waiting(pod))) or pod["status"].get("message", "")
                raise ToolError(f"the pod {name} has not run: {reason or 'no node or quota has room, perhaps'}")
            log = deployment.kubectl("logs", name, REQUEST_TIMEOUT, timeout=READ_TIMEOUT_SECONDS)
            return int(terminated["exitCode"]), log.splitlines()
        finally:
            with suppress(ToolError):
                step_pods.delete(deployment, name)


def make_pod(template: Object, program: str, arguments: Sequence[str], settings: Mapping[str, str]) -> Object:
    """Return the pod of a step with these arguments, from that of the program's command check.

    `settings` are those of the deployment, in lower case.
    """
    pod = step_pods.name_pod(template, program)
    pod["metadata"]["name"] = f"{arguments[0]}-{secrets.token_hex(4)}"
    pod["spec"]["activeDeadlineSeconds"] = DEADLINE_SECONDS
    container = pod["spec"]["containers"][0]
    given = dict(zip(container["args"][1::2], container["args"][2::2], strict=False))
    inherited = INHERITED_OPTIONS.get(arguments[0], ("--artifacts",))
    options = {name: given[name] for name in inherited if name in given}
    for setting, option in SETTINGS_OF_STEPS.get(arguments[0], {}).items():
        options |= {option: str(settings[setting])} if settings.get(setting) else {}
    container["args"] = [*arguments, *(word for pair in options.items() for word in pair)]
    return pod
