"""The Helm charts: where the official one comes from, and helm's options for an environment's values and images."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools import container_images
from devtools.commands import ROOT, ToolError, run

POLICIES = "namespace-policies"
# In the order of their installation: Airflow needs the service accounts, roles and network policies.
RELEASES = (POLICIES, "airflow")
REPOSITORY = "https://airflow.apache.org"
CACHE = ROOT / ".run" / "charts"
FETCH_TIMEOUT_SECONDS = 60


def chart_of(release: str) -> str:
    """Return the chart of `release`, as an argument for helm. Raises ToolError if the official one cannot be fetched."""
    return official_chart() if release == "airflow" else str(ROOT / "helm" / release)


def chart_version() -> str:
    """Return the official chart's version: CHART_VERSION, or the one that the Makefile pins."""
    pinned = re.search(r"^export CHART_VERSION := (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if version := os.environ.get("CHART_VERSION") or (pinned and pinned[1]):
        return version
    raise ToolError("the Makefile does not pin the chart: add the line `export CHART_VERSION := 1.2.3`, or set CHART_VERSION")


def official_chart() -> str:
    """Return the official Airflow chart: AIRFLOW_CHART, or a file in the cache that is fetched if it is missing.

    Raises ToolError, with one sentence, if it cannot be fetched.
    """
    if chart := os.environ.get("AIRFLOW_CHART"):
        return chart
    cached = CACHE / f"airflow-{chart_version()}.tgz"
    if not cached.exists():
        _fetch(cached)
    return str(cached)


def _fetch(cached: Path) -> None:
    repository = os.environ.get("AIRFLOW_CHART_REPOSITORY") or REPOSITORY
    options = ["--repo", repository, "--version", chart_version()]
    cached.parent.mkdir(parents=True, exist_ok=True)
    # Downloaded beside the cached file, so that the rename is atomic if several processes fetch it at once.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cached.parent) as folder:
        try:
            run(["helm", "pull", "airflow", *options, "--destination", folder], timeout=FETCH_TIMEOUT_SECONDS)
            [download] = Path(folder).iterdir()
            run(["helm", "show", "chart", str(download)], timeout=FETCH_TIMEOUT_SECONDS)
        except ToolError as error:
            reason = str(error).splitlines()[-1].rpartition("cannot be reached: ")[2].removeprefix("Error: ")
            raise ToolError(
                f"cannot fetch the Airflow chart {chart_version()} from {repository} ({reason}); set AIRFLOW_CHART to a copy "
                "of it, or AIRFLOW_CHART_REPOSITORY to a mirror"
            ) from error
        download.replace(cached)


def image_options(names: Mapping[str, str], ids: Mapping[str, str]) -> list[str]:
    """Return helm's options that set the images, by their names; `ids` are the ids of local images."""
    kind, separator = ("digest", "@") if "@" in names["airflow"] else ("tag", ":")
    repository, _, version = names["airflow"].rpartition(separator)
    values = {"images.airflow.repository": repository, f"images.airflow.{kind}": version}
    programs = {image: name for image, name in names.items() if image != "airflow"}
    values |= {f"config.market_daily.{program.replace('-', '_')}_image": name for program, name in programs.items()}
    # A tag with -dirty does not change when the image does: the annotation restarts the pods.
    values["airflowPodAnnotations.image"] = ids.get("airflow") or names["airflow"]
    return [word for key, value in values.items() for word in ("--set-string", f"{key}={value}")]


def environment_options(environment: str, extra: Sequence[str] = ()) -> list[str]:
    """Return helm's options for an environment.

    Its values are, in this order: helm/values.yaml, helm/values-ENVIRONMENT.yaml, the file that VALUES names, the images and
    Airflow's version, and the options `extra`.

    Raises:
        ToolError: a values file is missing.
    """
    user_values = [Path(os.environ["VALUES"])] if os.environ.get("VALUES") else []
    files = [ROOT / "helm/values.yaml", ROOT / f"helm/values-{environment}.yaml", *user_values]
    for file in files:
        if not file.is_file():
            raise ToolError(f"values file {file} not found: an environment ENV has a file helm/values-ENV.yaml")
    names = {image: container_images.name_of(image) for image in container_images.IMAGES}
    ids = {"airflow": container_images.find_id(names["airflow"])}
    version = ["--set-string", f"airflowVersion={container_images.read_airflow_version()}"]
    return [*(word for file in files for word in ("--values", str(file))), *version, *image_options(names, ids), *extra]


@dataclass(frozen=True)
class StepSettings:
    """Where steps run.

    Attributes:
        namespace: the namespace of their pods.
        credentials: the secret with the bucket's key in that namespace; empty if they need none.
    """

    namespace: str
    credentials: str


def read_setting(manifests: str, name: str) -> str:
    """Return a setting of Airflow's configuration from the rendered manifests; empty if it is not set."""
    line = re.search(rf"^ *{name} = *(\S*)$", manifests, re.MULTILINE)
    return line[1] if line else ""


def read_step_settings(manifests: str, release_namespace: str) -> StepSettings:
    """Return where steps run, from the rendered manifests: by default in the release's namespace."""
    namespace = read_setting(manifests, "step_namespace") or release_namespace
    return StepSettings(namespace, read_setting(manifests, "step_credentials"))


def list_environments() -> list[str]:
    """Return the environments that have a values file."""
    return [file.stem.removeprefix("values-") for file in sorted((ROOT / "helm").glob("values-*.yaml"))]


def lint(environment: str) -> None:
    """Lint helm/namespace-policies with the environment's values. Raises ToolError with helm's findings."""
    try:
        run(["helm", "lint", "--strict", chart_of(POLICIES), *environment_options(environment)], timeout=60)
    except ToolError as error:
        raise ToolError(f"environment {environment}: {error}") from error
