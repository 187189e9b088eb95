"""The charts and what they are told: an environment's values and the images' names, as helm's options."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from commands import ROOT, Failed

import images

# What Airflow's release stands on goes first.
RELEASES = ("foundation", "airflow")


def chart(release: str) -> list[str]:
    """The chart of `release` as helm is told of it; Airflow's is the official one, pinned, or what AIRFLOW_CHART names."""
    if release != "airflow":
        return [str(ROOT / "helm" / release)]
    if given := os.environ.get("AIRFLOW_CHART"):
        return [given]
    return ["airflow", "--repo", "https://airflow.apache.org", "--version", os.environ["CHART_VERSION"]]


def image_values(names: Mapping[str, str], ids: Mapping[str, str]) -> list[str]:
    """helm's options that name the images."""
    kind, mark = ("digest", "@") if "@" in names["airflow"] else ("tag", ":")
    repository, _, version = names["airflow"].rpartition(mark)
    values = {"images.airflow.repository": repository, f"images.airflow.{kind}": version}
    values |= {f"config.market_daily.{image}_image": names[image] for image in ("collector", "trainer")}
    # A tag with -dirty stands for another image each time: what it stands for now must restart the pods.
    values["airflowPodAnnotations.image"] = ids.get("airflow") or names["airflow"]
    return [word for key, value in values.items() for word in ("--set-string", f"{key}={value}")]


def values(environment: str, more: Sequence[str] = ()) -> list[str]:
    """helm's options for an environment: the values of all, its differences, a file of one's own (VALUES), the images, `more`.

    Raises Failed where a file is missing.
    """
    own = [os.environ["VALUES"]] if os.environ.get("VALUES") else []
    files = [ROOT / "helm/values.yaml", ROOT / f"helm/values-{environment}.yaml", *own]
    for file in files:
        if not os.path.isfile(file):  # noqa: PTH113 a name from the environment
            raise Failed(f"there is no file {file}: environments are named as in helm/values-ENV.yaml")
    names = {image: images.name_of(image) for image in images.IMAGES}
    ids = {"airflow": images.id_of(names["airflow"])}
    version = ["--set-string", f"airflowVersion={images.airflow_version()}"]
    return [*(word for file in files for word in ("--values", str(file))), *version, *image_values(names, ids), *more]
