"""Every environment, rendered with the official chart, which is fetched once; AIRFLOW_CHART names a copy of it.

Without helm or the chart, the tests that need them are skipped, and one line of the summary says why. Where the variable CI or
REQUIRE_CHART is set, they fail.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import pytest
from devtools import container_images, helm_charts
from devtools.commands import ROOT, WHERE, ToolError
from devtools.deployment import Deployment

from .container_checks import Object, parsed

__all__ = ["ENVIRONMENTS", "IMAGES", "ROOT"]

NOT_RUN = "tests of the rendered charts were not run: "
ENVIRONMENTS = ("kind", "staging", "prod")
IMAGES = {
    name: f"registry.example.com/market-daily/{name}@sha256:{str(number) * 64}"
    for number, name in enumerate(container_images.IMAGES, start=1)
}


def objects_of(text: str) -> list[Object]:
    """The objects that are rendered, and the pod that KubernetesExecutor makes workers from."""
    found = parsed(text)
    [template] = [one["data"]["pod_template_file.yaml"] for one in found if "pod_template_file.yaml" in one.get("data", {})]
    return [*found, *parsed(template)]


def skip(why: str) -> NoReturn:
    """Skips a test that cannot run, or fails it where it must run."""
    reason = f"{NOT_RUN}{why}, then run make test"
    required = os.environ.get("CI", ""), os.environ.get("REQUIRE_CHART", "")
    if any(value.lower() not in ("", "0", "false") for value in required):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Reports a test that did not run as skipped by `skip`: pytest's summary (-rs) folds what was skipped in one place."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and NOT_RUN in report.longrepr[2]:
        report.longrepr = (__file__, skip.__code__.co_firstlineno, report.longrepr[2])
    return report


@pytest.fixture(scope="session")
def helm() -> str:
    """The program helm."""
    return shutil.which("helm") or skip(f"helm is not on the PATH; install it ({WHERE['helm']})")


@pytest.fixture(scope="session")
def official_chart(helm: str) -> str:
    """The official Airflow chart, as an argument for helm."""
    try:
        return helm_charts.official_chart()
    except ToolError as error:
        why = str(error)
    skip(why)


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
def rendered(official_chart: str, images: None) -> dict[str, str]:
    """What each environment is rendered to, as text."""
    with ThreadPoolExecutor() as pool:
        texts = pool.map(lambda name: Deployment("", f"market-daily-{name}", name).render(), ENVIRONMENTS)
        return dict(zip(ENVIRONMENTS, texts, strict=True))


@pytest.fixture(scope="session")
def pooled(official_chart: str, images: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What production is rendered to with connection pooling switched on, as text."""
    text = (ROOT / "helm" / "values-prod.yaml").read_text()
    switch = tmp_path_factory.mktemp("pooled") / "values.yaml"
    switch.write_text(re.sub(r"^# (?=pgbouncer:|data:)", "", text, flags=re.MULTILINE))
    return Deployment("", "market-daily-prod", "prod").render(["--values", str(switch)])


@pytest.fixture(scope="session")
def objects(rendered: dict[str, str], environment: str) -> list[Object]:
    """The environment's objects."""
    return objects_of(rendered[environment])
