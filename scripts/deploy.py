"""Puts an environment's Airflow into a namespace by the official chart."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import diagnosis
import make_secrets
from commands import ROOT, Failed, progress, run

import images

RELEASE = "airflow"
CHART = ("airflow", "--repo", "https://airflow.apache.org", "--version", os.environ.get("CHART_VERSION", ""))
JOBS = (f"{RELEASE}-run-airflow-migrations", f"{RELEASE}-create-user")
WAIT_SECONDS = 300


def chart() -> list[str]:
    """The chart as helm is told of it: the official one in its pinned version, or what AIRFLOW_CHART names."""
    given = os.environ.get("AIRFLOW_CHART")
    return [given] if given else list(CHART)


def image_values(names: Mapping[str, str], ids: Mapping[str, str]) -> list[str]:
    """helm's options that name the images."""
    kind, mark = ("digest", "@") if "@" in names["airflow"] else ("tag", ":")
    repository, _, version = names["airflow"].rpartition(mark)
    values = {"images.airflow.repository": repository, f"images.airflow.{kind}": version}
    values |= {f"config.market_daily.{image}_image": names[image] for image in ("collector", "trainer")}
    # A tag with -dirty stands for another image each time: what it stands for now must restart the pods.
    values["airflowPodAnnotations.image"] = ids.get("airflow") or names["airflow"]
    return [word for key, value in values.items() for word in ("--set-string", f"{key}={value}")]


@dataclass(frozen=True)
class Target:
    """Where an environment is put: a kubeconfig context, a namespace, and the environment's name."""

    context: str
    namespace: str
    environment: str

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
        files = ["helm/values.yaml", f"helm/values-{self.environment}.yaml"]
        names = {image: images.name_of(image) for image in images.IMAGES}
        ids = {"airflow": images.id_of(names["airflow"])}
        return [*(word for file in files for word in ("--values", str(ROOT / file))), *image_values(names, ids), *more]

    def prepare(self, manifests: Sequence[str]) -> None:
        """Makes the namespace, the secrets that are missing, and what the manifests say; waits until it is ready."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        self.kubectl("apply", "--filename", "-", input=json.dumps(namespace))
        make_secrets.make(self.context, self.namespace)
        applied = [self.kubectl("apply", "--filename", str(ROOT / "manifests" / manifest)) for manifest in manifests]
        for line in "".join(applied).splitlines():
            if (what := line.split()[0]).startswith(("statefulset", "deployment")):
                self.kubectl("rollout", "status", what, "--timeout=180s", seconds=200)

    def bound_steps(self, values: Sequence[str]) -> None:
        """Lets no more pods with a deadline, which steps' pods alone have, into the namespace than `step_pods` says."""
        rendered = self.helm("template", RELEASE, *chart(), *values, "--show-only", "templates/configmaps/configmap.yaml")
        pods = next(line.partition("=")[2].strip() for line in rendered.splitlines() if line.strip().startswith("step_pods ="))
        quota = ["create", "quota", "steps", f"--hard=pods={pods}", "--scopes=Terminating", "--dry-run=client", "--output=yaml"]
        self.kubectl("apply", "--filename", "-", input=self.kubectl(*quota))

    def upgrade(self, more: Sequence[str] = ()) -> None:
        """Installs or upgrades Airflow; waits until it is ready. Raises Failed with what is wrong with which pod."""
        values = self.values(more)
        self.bound_steps(values)
        # Without helm's hooks these jobs are not made anew, and a job that is there cannot be changed.
        self.kubectl("delete", "job", *JOBS, "--ignore-not-found", seconds=90)
        command = ["upgrade", "--install", RELEASE, *chart(), *values, "--wait", f"--timeout={WAIT_SECONDS}s"]
        try:
            with progress(f"Airflow, by helm, into {self.context}/{self.namespace}"):
                self.helm(*command, seconds=WAIT_SECONDS + 30)
        except Failed as error:
            raise Failed(f"{error}\n\n{self.unhealthy()}") from error

    def unhealthy(self) -> str:
        """Of every pod that is not well: its events and its last log lines."""
        return diagnosis.unhealthy(self.kubectl)
