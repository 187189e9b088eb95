"""The deployment that is checked, and what several checks read from its cluster: pods, nodes, values, secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from devtools import database_migrations, helm_charts
from devtools.commands import ToolError, run
from devtools.deployment import ROLLBACK_TIMEOUT_SECONDS, UPGRADE_TIMEOUT_SECONDS, Deployment
from step_contract.checks.findings import Finding, error, ok, warning

READ_TIMEOUT_SECONDS = 25
REQUEST_TIMEOUT = "--request-timeout=10s"
MAX_SKEW = 1  # minor versions between kubectl and the API server
Object = dict[str, Any]


@dataclass
class Cluster:
    """A deployment, read once. Every property raises ToolError if the cluster does not return it."""

    deployment: Deployment

    def get(self, *arguments: str) -> list[Object]:
        """Return the objects that `kubectl get` lists; a resource is named first."""
        output = self.deployment.kubectl("get", *arguments, "--output=json", REQUEST_TIMEOUT, timeout=READ_TIMEOUT_SECONDS)
        items: list[Object] = json.loads(output)["items"]
        return items

    @cached_property
    def values(self) -> Object:
        """The values of the deployed release `airflow`."""
        output = self.deployment.helm("get", "values", "airflow", "--all", "--output=json", timeout=READ_TIMEOUT_SECONDS)
        values: Object = json.loads(output)
        return values

    @cached_property
    def settings(self) -> Mapping[str, str]:
        """The pipeline's settings in those values."""
        return {name: str(value) for name, value in self.values["config"]["market_daily"].items()}

    def get_placement(self, program: str) -> tuple[str, str]:
        """Return the node selector and the tolerations of a program's pods, as the settings write them; empty for Airflow's."""
        return self.settings.get(f"{program}_node_selector", ""), self.settings.get(f"{program}_tolerations", "")

    @cached_property
    def steps(self) -> helm_charts.StepSettings:
        """Where steps run, from the deployed manifests."""
        return helm_charts.read_step_settings(self.manifests, self.deployment.namespace)

    @cached_property
    def manifests(self) -> str:
        """The deployed manifests of all releases."""
        return self.deployment.read_manifests()

    @property
    def in_steps_namespace(self) -> Deployment:
        """The deployment for commands in the steps' namespace."""
        return replace(self.deployment, namespace=self.steps.namespace)

    @cached_property
    def pods(self) -> list[Object]:
        """The pods in Airflow's namespace."""
        return self.get("pods")

    @cached_property
    def step_pods(self) -> list[Object]:
        """The pods in the steps' namespace, which may be Airflow's."""
        if self.steps.namespace == self.deployment.namespace:
            return self.pods
        return Cluster(self.in_steps_namespace).get("pods")

    @cached_property
    def nodes(self) -> list[Object]:
        """The nodes of the cluster."""
        return self.get("nodes")

    @property
    def airflow_pods(self) -> dict[str, tuple[str, Object]]:
        """The running pods of Airflow and the monitor: their container, which is also the component's name, and the pod."""
        running = {}
        for pod in self.pods:
            labels = pod["metadata"].get("labels", {})
            name = labels.get("component", "") if labels.get("tier") == "airflow" else labels.get("app.kubernetes.io/name", "")
            if name in (*database_migrations.COMPONENTS, "monitor") and is_running(pod, name):
                running[pod["metadata"]["name"]] = (name, pod)
        return running


def select_nodes(nodes: Sequence[Object], selector: str, tolerations: str = "") -> list[Object]:
    """Return the nodes that take pods with a node selector and tolerations, written as the settings of a program."""
    labels = dict(pair.split("=", 1) for pair in selector.replace(" ", "").split(",") if "=" in pair)
    tolerated = {entry.strip().partition(":")[0].partition("=")[0] for entry in tolerations.split(",")}
    return [
        node
        for node in nodes
        if labels.items() <= node["metadata"].get("labels", {}).items()
        and not node["spec"].get("unschedulable")
        and not any(
            taint["effect"] != "PreferNoSchedule" and taint["key"] not in tolerated for taint in node["spec"].get("taints", [])
        )
    ]


def is_running(pod: Object, container: str) -> bool:
    """Return whether the container runs and the pod is not being deleted."""
    statuses = pod["status"].get("containerStatuses", [])
    running = any(status["name"] == container and "running" in status["state"] for status in statuses)
    return running and not pod["metadata"].get("deletionTimestamp")


def check_reachable(deployment: Deployment) -> Iterator[Finding]:
    """Yield whether the API server responds, and whether kubectl fits its version."""
    command = ["kubectl", "--context", deployment.context, "version", "--output=json", REQUEST_TIMEOUT]
    advice = (
        f"check kubectl config get-contexts and the network; kubectl --context {deployment.context} cluster-info has details"
    )
    if deployment.environment == "kind":
        advice = "make kind-up creates the cluster, or starts what is missing; docker ps shows whether its node runs"
    try:
        versions = json.loads(run(command, timeout=READ_TIMEOUT_SECONDS))
    except ToolError as problem:
        yield error("cluster", f"{deployment.context} does not respond: {str(problem).splitlines()[-1]}", advice)
        return
    if "serverVersion" not in versions:
        yield error("cluster", f"{deployment.context} does not respond", advice)
        return
    client, server = (parse_minor(versions[name]) for name in ("clientVersion", "serverVersion"))
    state = f"{deployment.context} responds; kubectl {client[0]}.{client[1]}, server {server[0]}.{server[1]}"
    if client[0] != server[0] or abs(client[1] - server[1]) > MAX_SKEW:
        yield warning("cluster", state, "install a kubectl within one minor version of the server's")
    else:
        yield ok("cluster", state)


def parse_minor(version: Mapping[str, str]) -> tuple[int, int]:
    """Return the major and the minor version; providers add a suffix such as 29+."""
    return int(version["major"]), int("".join(character for character in version["minor"] if character.isdigit()) or 0)


def is_in_progress(revision: Object, now: datetime) -> bool:
    """Return whether a revision is being deployed, by someone else perhaps, rather than interrupted long ago."""
    if not revision["status"].startswith("pending-"):
        return False
    updated = datetime.fromisoformat(re.sub(r"\.\d+", "", revision["updated"]))
    return now - updated < timedelta(seconds=UPGRADE_TIMEOUT_SECONDS + ROLLBACK_TIMEOUT_SECONDS)


def check_deployed(cluster: Cluster) -> Iterator[Finding]:
    """Yield whether the releases are deployed, and whether their versions are those of the working tree."""
    deployment = cluster.deployment
    histories = {release: deployment.read_history(release) for release in helm_charts.RELEASES}
    environment = deployment.environment
    command = "make kind-up" if environment == "kind" else f"make deploy ENV={environment}"
    for release, history in histories.items():
        if not history:
            message = f"the release {release} is not installed in {deployment}"
            yield error("releases", message, f"{command} installs it; CONTEXT and NAMESPACE select another place", release)
        elif is_in_progress(history[-1], datetime.now(UTC)):
            message = f"revision {history[-1]['revision']} of {release} is being deployed since {history[-1]['updated'][:19]}"
            yield warning("releases", message, "wait until it has finished, then run this again", release)
        elif (status := history[-1]["status"]) != "deployed":
            advice = f"an upgrade was interrupted or failed: {command} rolls it back and tries again"
            yield error("releases", f"revision {history[-1]['revision']} of {release} is {status}", advice, release)
    if not all(histories.values()):
        return
    chart, pinned = histories["airflow"][-1]["chart"], f"airflow-{helm_charts.chart_version()}"
    if chart != pinned:
        yield warning("versions", f"the deployed chart is {chart}, this working tree pins {pinned}", f"{command} upgrades it")
    else:
        described = histories["airflow"][-1].get("description", "")
        yield ok("releases", f"chart {chart}, revision {histories['airflow'][-1]['revision']} ({described})")
