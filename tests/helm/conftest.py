"""Every environment, rendered with the real chart. Without one (AIRFLOW_CHART) these tests do not run, and say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
import yaml
from commands import ROOT
from target import Target

from .containers import Object

__all__ = ["ENVIRONMENTS", "IMAGES", "ROOT"]

ENVIRONMENTS = ("kind", "staging", "prod")
IMAGES = {
    name: f"registry.example.com/market-daily/{name}@sha256:{number * 64}"
    for name, number in (("airflow", "1"), ("collector", "2"), ("trainer", "3"))
}


def objects_of(text: str) -> list[Object]:
    """The objects that are rendered, and the pod that KubernetesExecutor makes workers from."""
    found = [one for one in yaml.safe_load_all(text) if one]
    [template] = [one["data"]["pod_template_file.yaml"] for one in found if "pod_template_file.yaml" in one.get("data", {})]
    return [*found, yaml.safe_load(template)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("AIRFLOW_CHART"):
        return
    why = "AIRFLOW_CHART names no chart: set it to the official chart's file to run the tests of what is rendered"
    for item in items:
        item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session", params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session", autouse=True)
def images() -> Iterator[None]:
    """The images' names, as a registry would give them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, image in IMAGES.items():
            patch.setenv(f"{name.upper()}_IMAGE", image)
        yield


@pytest.fixture(scope="session")
def rendered(images: None) -> dict[str, str]:
    """What each environment is rendered to, as text."""
    assert shutil.which("helm"), "AIRFLOW_CHART is set and helm is not installed"
    return {name: Target("", f"market-daily-{name}", name).render() for name in ENVIRONMENTS}


@pytest.fixture(scope="session")
def objects(rendered: dict[str, str], environment: str) -> list[Object]:
    """The environment's objects."""
    return objects_of(rendered[environment])
