"""Where an environment is put, and what is done there: rendered, compared, upgraded, rolled back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from devtools import helm_charts, helm_revisions, kubernetes_secrets, pods
from devtools.commands import ToolError, progress, run

JOBS = ("airflow-run-airflow-migrations", "airflow-create-user")
WAIT_SECONDS = 300
BACK_SECONDS = 600  # a way back is not given up because the cluster is slow, which may be why it is taken
# Every container must be as the pod security standard "restricted" says; network policies know our namespaces by the other.
NAMESPACE_LABELS = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/warn": "restricted",
    "app.kubernetes.io/part-of": "market-daily",
}


@dataclass(frozen=True)
class Deployment:
    """Where an environment is put: a kubeconfig context, a namespace, and the environment's name."""

    context: str
    namespace: str
    environment: str
    wait_seconds: int = WAIT_SECONDS

    def kubectl(self, *arguments: str, seconds: float = 60, input: str | None = None) -> str:
        """What kubectl prints, in the namespace."""
        return run(
            ["kubectl", "--context", self.context, "--namespace", self.namespace, *arguments], seconds=seconds, input=input
        )

    def helm(self, *arguments: str, seconds: float = 60) -> str:
        """What helm prints, in the namespace."""
        return run(["helm", "--kube-context", self.context, "--namespace", self.namespace, *arguments], seconds=seconds)

    def values(self, more: Sequence[str] = ()) -> list[str]:
        """helm's options for the environment's values and images."""
        return helm_charts.values(self.environment, more)

    def prepare(self, manifests: Sequence[str] = (), pooled: bool = False, slack: str = "") -> bool:
        """Makes the namespace, the secrets that are missing, and what the texts `manifests` say; waits until it is ready.

        `pooled`: with the secrets of connection pooling. `slack`: a connection to Slack, for the secret `slack` in place of
        what is there; returns whether that was another one.
        """
        metadata = {"name": self.namespace, "labels": NAMESPACE_LABELS}
        self.kubectl(
            "apply", "--filename", "-", input=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        )
        kubernetes_secrets.make(self.kubectl, self.namespace, self.environment)
        changed = bool(slack) and kubernetes_secrets.put(self.kubectl, "slack", {"AIRFLOW_CONN_SLACK_CONN": slack})
        if pooled:
            kubernetes_secrets.follow_database(self.kubectl)
        applied = [self.kubectl("apply", "--filename", "-", input=manifest) for manifest in manifests]
        for line in "".join(applied).splitlines():
            if (what := line.split()[0]).startswith(("statefulset", "deployment")):
                self.kubectl("rollout", "status", what, "--timeout=180s", seconds=200)
        return changed

    def render(self, more: Sequence[str] = ()) -> str:
        """What would be put there, as YAML; no cluster is asked."""
        options = ("--namespace", self.namespace, "--is-upgrade", *self.values(more))
        return "".join(
            run(["helm", "template", one, helm_charts.chart(one), *options], seconds=120) for one in helm_charts.RELEASES
        )

    def running(self) -> str:
        """What helm has put there and is in force, as YAML; empty where nothing is."""
        found = self.current()
        return "".join(self.helm("get", "manifest", one, f"--revision={number}") for one, number in found.items())

    def history(self, release: str) -> list[dict[str, Any]]:
        """The revisions of `release`, the oldest first; none where it is not there."""
        if release not in self.helm("list", "--all", "--short").split():
            return []
        found: list[dict[str, Any]] = json.loads(self.helm("history", release, "--output=json", "--max=50"))
        return found

    def current(self) -> dict[str, int]:
        """The revision of each release that is in force; a release that is not there is left out."""
        found = {release: helm_revisions.deployed(self.history(release)) for release in helm_charts.RELEASES}
        return {release: int(one["revision"]) for release, one in found.items() if one}

    def is_cut_off(self) -> bool:
        """Whether a deployment was killed in the middle: helm refuses every other then."""
        last = [self.history(release)[-1:] for release in helm_charts.RELEASES]
        return any(one["status"].startswith("pending-") for found in last for one in found)

    def upgrade(self, more: Sequence[str] = (), description: str = "") -> None:
        """Installs or upgrades both releases; waits until they are ready. Raises ToolError with what is wrong with which pod."""
        values, told = self.values(more), ["--description", description] if description else []
        bound = f"--timeout={self.wait_seconds}s"
        charts = {release: helm_charts.chart(release) for release in helm_charts.RELEASES}
        try:
            with progress(f"Airflow, by helm, into {self.context}/{self.namespace}"):
                for release, source in charts.items():
                    self._clear_jobs(release)
                    command = ["upgrade", "--install", release, source, *values, *told, "--wait", bound]
                    self.helm(*command, seconds=self.wait_seconds + 30)
        except ToolError as error:
            raise ToolError(f"{error}\n\n{self.unhealthy()}") from error

    def _clear_jobs(self, release: str) -> None:
        # Without helm's hooks these jobs are not made anew, and a job that is there cannot be changed.
        if release == "airflow":
            self.kubectl("delete", "job", *JOBS, "--ignore-not-found", seconds=90)

    def roll_back(self, revisions: dict[str, int]) -> None:
        """Puts the releases back to these revisions, and waits; a release that is not named is removed."""
        for release in reversed(helm_charts.RELEASES):
            self._clear_jobs(release)
            bound = ["--wait", f"--timeout={BACK_SECONDS}s"]
            if release in revisions:
                self.helm("rollback", release, str(revisions[release]), *bound, seconds=BACK_SECONDS + 30)
            else:
                self.helm("uninstall", release, "--ignore-not-found", *bound, seconds=BACK_SECONDS + 30)

    @contextmanager
    def forward(self, service: str, port: int, local: int | str = "") -> Iterator[str]:
        """The address on this machine at which the service's port answers for the while. Raises ToolError where it does not."""
        command = ["kubectl", "--context", self.context, "--namespace", self.namespace]
        command += ["port-forward", f"service/{service}", f"{local}:{port}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            line = process.stdout.readline() if process.stdout else ""
            if "127.0.0.1:" not in line:
                raise ToolError(f"service/{service}: {process.communicate(timeout=10)[1].strip()}")
            yield f"http://127.0.0.1:{line.split('127.0.0.1:')[1].split()[0]}"
        finally:
            process.terminate()

    def secret(self, name: str) -> dict[str, str]:
        """The secret's values by key."""
        return kubernetes_secrets.read(self.kubectl, name)

    def unhealthy(self) -> str:
        """Of every pod that is not well: its events and its last log lines."""
        return pods.unhealthy(self.kubectl)
