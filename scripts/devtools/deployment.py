"""One deployment of the pipeline, in a namespace of a cluster: its secrets and Helm releases."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from devtools import api_server, helm_charts, helm_revisions, kubernetes_secrets, pgbouncer, pods
from devtools.commands import ToolError, progress, run

JOBS = ("airflow-run-airflow-migrations", "airflow-create-user")
UPGRADE_TIMEOUT_SECONDS = 300
# Longer: the cluster may be slow, which may be why the upgrade failed.
ROLLBACK_TIMEOUT_SECONDS = 600
NAMESPACE_LABELS = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
    # Network policies select namespaces by this label.
    "app.kubernetes.io/part-of": "market-daily",
}


@dataclass(frozen=True)
class Deployment:
    """A deployment of the pipeline.

    Attributes:
        context: the kubeconfig context.
        namespace: the Kubernetes namespace.
        environment: the environment, ENV in helm/values-ENV.yaml.
        timeout_seconds: how long an upgrade of one release may take.
    """

    context: str
    namespace: str
    environment: str
    timeout_seconds: int = UPGRADE_TIMEOUT_SECONDS

    def __str__(self) -> str:
        return f"{self.context}/{self.namespace}"

    def kubectl_command(self, *arguments: str) -> list[str]:
        """Return the command that runs kubectl in the namespace."""
        return ["kubectl", "--context", self.context, "--namespace", self.namespace, *arguments]

    def kubectl(self, *arguments: str, timeout: float = 60, input: str | None = None) -> str:
        """Run kubectl in the namespace; return its output."""
        return run(self.kubectl_command(*arguments), timeout=timeout, input=input)

    def helm(self, *arguments: str, timeout: float = 60) -> str:
        """Run helm in the namespace; return its output."""
        return run(["helm", "--kube-context", self.context, "--namespace", self.namespace, *arguments], timeout=timeout)

    def prepare_namespaces(self, rendered: str, manifests: Sequence[str] = (), slack_connection: str = "") -> bool:
        """Create the namespaces and the missing secrets, apply the manifests, and wait until their pods are ready.

        Args:
            rendered: what `render` returns: it says where steps run, and whether PgBouncer is enabled.
            manifests: YAML of further objects.
            slack_connection: the Airflow connection to Slack; if it is set, the secret `slack` is created or replaced.

        Returns:
            Whether the secret `slack` was replaced by another connection.

        Raises:
            ToolError: secrets are missing that must be created by hand (the message has the commands), or the network policies
                exclude the Kubernetes API.
        """
        api_server.check_network_policy(self.kubectl, rendered, self.environment)
        steps = helm_charts.read_step_settings(rendered, self.namespace)
        in_steps_namespace = replace(self, namespace=steps.namespace)
        self.create_namespace()
        if steps.namespace != self.namespace:
            in_steps_namespace.create_namespace({"app.kubernetes.io/component": "steps"})
        missing = kubernetes_secrets.create_missing_secrets(self.kubectl, self.namespace, self.environment)
        if steps.namespace != self.namespace and steps.credentials:
            missing += kubernetes_secrets.find_missing_step_credentials(
                in_steps_namespace.kubectl, steps, self.environment, self.kubectl
            )
        if missing:
            raise ToolError("secrets are missing; create them:\n" + "\n".join(missing))
        replaced = bool(slack_connection) and kubernetes_secrets.apply_secret(
            self.kubectl, "slack", {"AIRFLOW_CONN_SLACK_CONN": slack_connection}
        )
        if pgbouncer.POOLED_SECRET in rendered:
            kubernetes_secrets.apply_pgbouncer_secrets(self.kubectl)
        self.apply_manifests(manifests)
        return replaced

    def create_namespace(self, labels: Mapping[str, str] | None = None) -> None:
        """Create the namespace unless it exists, and set its labels."""
        metadata = {"name": self.namespace, "labels": NAMESPACE_LABELS | dict(labels or {})}
        self.kubectl(
            "apply", "--filename", "-", input=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        )

    def apply_manifests(self, manifests: Sequence[str]) -> None:
        """Apply the manifests, and wait until their pods are ready."""
        applied = [self.kubectl("apply", "--filename", "-", input=manifest) for manifest in manifests]
        for line in "".join(applied).splitlines():
            if (resource := line.split()[0]).startswith(("statefulset", "deployment")):
                self.kubectl("rollout", "status", resource, "--timeout=180s", timeout=200)

    def helm_options(self, extra: Sequence[str] = ()) -> list[str]:
        """Return helm's options for the environment's values and images, then the options `extra`."""
        return helm_charts.environment_options(self.environment, extra)

    def render(self, extra: Sequence[str] = ()) -> str:
        """Return the manifests of all releases as YAML; needs no cluster."""
        options = ("--namespace", self.namespace, "--is-upgrade", *self.helm_options(extra))
        return "".join(
            run(["helm", "template", release, helm_charts.chart_of(release), *options], timeout=120)
            for release in helm_charts.RELEASES
        )

    def read_manifests(self) -> str:
        """Return the deployed manifests of all releases as YAML; empty if nothing is deployed."""
        return "".join(
            self.helm("get", "manifest", release, f"--revision={revision}")
            for release, revision in self.current_revisions().items()
        )

    def read_history(self, release: str) -> list[dict[str, Any]]:
        """Return the revisions of `release`, the oldest first; none if it is not installed."""
        if release not in self.helm("list", "--all", "--short").split():
            return []
        history: list[dict[str, Any]] = json.loads(self.helm("history", release, "--output=json", "--max=50"))
        return history

    def read_airflow_version(self, revision: int) -> str:
        """Return the version of Airflow in a revision of its release."""
        values = self.helm("get", "values", "airflow", "--all", f"--revision={revision}", "--output=json")
        version: str = json.loads(values)["airflowVersion"]
        return version

    def current_revisions(self) -> dict[str, int]:
        """Return the deployed revision of each release; a release that is not deployed is left out."""
        deployed = {release: helm_revisions.find_deployed(self.read_history(release)) for release in helm_charts.RELEASES}
        return {release: int(revision["revision"]) for release, revision in deployed.items() if revision}

    def is_upgrade_pending(self) -> bool:
        """Return whether an upgrade was interrupted; helm refuses another until it is rolled back."""
        histories = [self.read_history(release) for release in helm_charts.RELEASES]
        return any(history[-1]["status"].startswith("pending-") for history in histories if history)

    def upgrade(self, extra: Sequence[str] = (), description: str = "") -> None:
        """Install or upgrade all releases, and wait until they are ready.

        Args:
            extra: further options of helm.
            description: the revision's description in helm's history.

        Raises:
            ToolError: an upgrade failed; the message describes the pods that are not healthy.
        """
        options = [*self.helm_options(extra), *(["--description", description] if description else [])]
        options += ["--wait", f"--timeout={self.timeout_seconds}s"]
        charts = {release: helm_charts.chart_of(release) for release in helm_charts.RELEASES}
        try:
            with progress(f"Upgrading the Helm releases in {self}"):
                for release, chart in charts.items():
                    self._delete_jobs(release)
                    self.helm("upgrade", "--install", release, chart, *options, timeout=self.timeout_seconds + 30)
        except ToolError as error:
            raise ToolError(f"{error}\n\n{self.describe_unhealthy_pods()}") from error

    def _delete_jobs(self, release: str) -> None:
        # They are no Helm hooks, so helm would change them, and a job's pod template is immutable.
        if release == "airflow":
            self.kubectl("delete", "job", *JOBS, "--ignore-not-found", timeout=90)

    def roll_back(self, revisions: Mapping[str, int]) -> None:
        """Roll each release back to its revision, and wait; a release without one is uninstalled."""
        for release in reversed(helm_charts.RELEASES):
            self._delete_jobs(release)
            if release in revisions:
                command = ["rollback", release, str(revisions[release])]
            else:
                command = ["uninstall", release, "--ignore-not-found"]
            timeout = f"--timeout={ROLLBACK_TIMEOUT_SECONDS}s"
            self.helm(*command, "--wait", timeout, timeout=ROLLBACK_TIMEOUT_SECONDS + 30)

    @contextmanager
    def port_forward(self, service: str, port: int, local_port: int | str = "") -> Iterator[str]:
        """Forward a local port to the service's port while the block runs; yield the URL.

        Raises ToolError if kubectl cannot forward the port.
        """
        command = self.kubectl_command("port-forward", f"service/{service}", f"{local_port}:{port}")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline() if process.stdout else ""
            if "127.0.0.1:" not in line:
                raise ToolError(f"cannot forward a port to service/{service}: {process.communicate(timeout=10)[1].strip()}")
            yield f"http://127.0.0.1:{line.split('127.0.0.1:')[1].split()[0]}"
        finally:
            process.terminate()

    def read_secret(self, name: str) -> dict[str, str]:
        """Return the values of a secret by key."""
        return kubernetes_secrets.read_secret(self.kubectl, name)

    def describe_unhealthy_pods(self) -> str:
        """Return the events and the last log lines of each pod that is not healthy."""
        return pods.describe_unhealthy_pods(self.kubectl)

    def watch_pods(self, selector: str = "") -> pods.PodWatch:
        """Return a context manager that records the namespace's pods with the labels that `selector` names."""
        return pods.PodWatch(self.kubectl_command("get", "pods", "--watch", "--output=json", f"--selector={selector}"))
