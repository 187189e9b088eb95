"""The charts and their options for helm: an environment's values and the images' names.

python scripts/lint_charts.py        # checks helm/namespace-policies, with the values of each environment
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from devtools import container_images
from devtools.commands import ROOT, WHERE, ToolError, fail, run

# What Airflow's release stands on goes first.
RELEASES = ("namespace-policies", "airflow")
REPOSITORY = "https://airflow.apache.org"
CACHE = ROOT / ".run" / "charts"
FETCH_SECONDS = 60


def chart(release: str) -> str:
    """The chart of `release`, as an argument for helm. Raises ToolError where Airflow's is not here and cannot be fetched."""
    return official_chart() if release == "airflow" else str(ROOT / "helm" / release)


def chart_version() -> str:
    """The official chart's version: CHART_VERSION, or what the Makefile pins."""
    pinned = re.search(r"^export CHART_VERSION := (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if found := os.environ.get("CHART_VERSION") or (pinned and pinned[1]):
        return found
    raise ToolError("the Makefile must pin the chart: export CHART_VERSION := VERSION")


def official_chart() -> str:
    """The official Airflow chart: AIRFLOW_CHART, or a file in the cache, fetched from the chart's repository the first time.

    Raises ToolError with one sentence where it is in neither place and cannot be fetched.
    """
    if given := os.environ.get("AIRFLOW_CHART"):
        return given
    cached = CACHE / f"airflow-{chart_version()}.tgz"
    if not cached.exists():
        _fetch(cached)
    return str(cached)


def _fetch(cached: Path) -> None:
    repository = os.environ.get("AIRFLOW_CHART_REPOSITORY") or REPOSITORY
    options = ["--repo", repository, "--version", chart_version()]
    cached.parent.mkdir(parents=True, exist_ok=True)
    # In the cache's file system, so that the file appears at once and whole, whoever else fetches it meanwhile.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cached.parent) as folder:
        try:
            run(["helm", "pull", "airflow", *options, "--destination", folder], seconds=FETCH_SECONDS)
            [fetched] = Path(folder).iterdir()
            run(["helm", "show", "chart", str(fetched)], seconds=FETCH_SECONDS)
        except ToolError as error:
            reason = str(error).splitlines()[-1].rpartition("cannot be reached: ")[2].removeprefix("Error: ")
            raise ToolError(
                f"the Airflow chart {chart_version()} cannot be fetched from {repository} ({reason}); set AIRFLOW_CHART to a "
                "copy of it, or AIRFLOW_CHART_REPOSITORY to a mirror"
            ) from error
        fetched.replace(cached)


def image_values(names: Mapping[str, str], ids: Mapping[str, str]) -> list[str]:
    """helm's options that name the images."""
    kind, mark = ("digest", "@") if "@" in names["airflow"] else ("tag", ":")
    repository, _, version = names["airflow"].rpartition(mark)
    values = {"images.airflow.repository": repository, f"images.airflow.{kind}": version}
    programs = {image: name for image, name in names.items() if image != "airflow"}
    values |= {f"config.market_daily.{program.replace('-', '_')}_image": name for program, name in programs.items()}
    # A tag with -dirty stands for another image each time: what it stands for now must restart the pods.
    values["airflowPodAnnotations.image"] = ids.get("airflow") or names["airflow"]
    return [word for key, value in values.items() for word in ("--set-string", f"{key}={value}")]


def values(environment: str, more: Sequence[str] = ()) -> list[str]:
    """helm's options for an environment: the values of all, its differences, a file of one's own (VALUES), the images, `more`.

    Raises ToolError where a file is missing.
    """
    own = [Path(os.environ["VALUES"])] if os.environ.get("VALUES") else []
    files = [ROOT / "helm/values.yaml", ROOT / f"helm/values-{environment}.yaml", *own]
    for file in files:
        if not file.is_file():
            raise ToolError(f"there is no file {file}: environments are named as in helm/values-ENV.yaml")
    names = {image: container_images.name_of(image) for image in container_images.IMAGES}
    ids = {"airflow": container_images.id_of(names["airflow"])}
    version = ["--set-string", f"airflowVersion={container_images.airflow_version()}"]
    return [*(word for file in files for word in ("--values", str(file))), *version, *image_values(names, ids), *more]


def lint(environment: str) -> None:
    """Checks helm/namespace-policies with the environment's values. Raises ToolError with what helm finds."""
    try:
        run(["helm", "lint", "--strict", chart("namespace-policies"), *values(environment)], seconds=60)
    except ToolError as error:
        raise ToolError(f"environment {environment}: {error}") from error


def main() -> int:
    """Checks every environment; returns the exit code."""
    if not shutil.which("helm"):
        print(f"helm lint was not run: helm is not on the PATH; install it ({WHERE['helm']}), then make lint")
        return 0
    try:
        for file in sorted((ROOT / "helm").glob("values-*.yaml")):
            lint(file.stem.removeprefix("values-"))
    except ToolError as error:
        return fail(error)
    return 0
