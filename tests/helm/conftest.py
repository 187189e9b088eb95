"""Every environment, rendered with the official chart, which is fetched once unless AIRFLOW_CHART is set.

Without helm or the chart, the tests that need them are skipped, with one line in the summary. If CI or REQUIRE_CHART is set,
they fail.
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
from devtools.commands import INSTALL_URLS, ROOT, ToolError
from devtools.deployment import Deployment

from .container_checks import Object, parse_objects

__all__ = ["ENVIRONMENTS", "IMAGES", "ROOT"]

SKIP_PREFIX = "cannot test the rendered charts: "
ENVIRONMENTS = ("kind", "staging", "prod")
IMAGES = {
    name: f"registry.example.com/market-daily/{name}@sha256:{str(number) * 64}"
    for number, name in enumerate(container_images.IMAGES, start=1)
}


def parse_manifests(manifests: str) -> list[Object]:
    """Return the objects of a rendered environment, and the pod template of KubernetesExecutor."""
    objects = parse_objects(manifests)
    configs = [manifest.get("data", {}) for manifest in objects]
    [template] = [data["pod_template_file.yaml"] for data in configs if "pod_template_file.yaml" in data]
    return [*objects, *parse_objects(template)]


def skip(reason: str) -> NoReturn:
    """Skip the test, or fail it if CI or REQUIRE_CHART is set."""
    message = f"{SKIP_PREFIX}{reason}, then run make test"
    required = os.environ.get("CI", ""), os.environ.get("REQUIRE_CHART", "")
    if any(value.lower() not in ("", "0", "false") for value in required):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report such tests as skipped at one place: pytest's summary (-rs) then folds them into one line."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and SKIP_PREFIX in report.longrepr[2]:
        report.longrepr = (__file__, skip.__code__.co_firstlineno, report.longrepr[2])
    return report


@pytest.fixture(scope="session")
def helm() -> str:
    """The path of helm."""
    return shutil.which("helm") or skip(f"helm is not on the PATH; install it ({INSTALL_URLS['helm']})")


@pytest.fixture(scope="session")
def official_chart(helm: str) -> str:
    """The official Airflow chart, as an argument for helm."""
    try:
        return helm_charts.official_chart()
    except ToolError as error:
        reason = str(error)
    skip(reason)


@pytest.fixture(scope="session", params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="session", autouse=True)
def images() -> Iterator[None]:
    """The images' names, by digest, as after a push."""
    with pytest.MonkeyPatch.context() as patch:
        for name, image in IMAGES.items():
            patch.setenv(f"{name.upper()}_IMAGE", image)
        yield


@pytest.fixture(scope="session")
def rendered(official_chart: str, images: None) -> dict[str, str]:
    """The manifests of each environment, by its name."""
    with ThreadPoolExecutor() as pool:
        manifests = pool.map(lambda name: Deployment("", f"market-daily-{name}", name).render(), ENVIRONMENTS)
        return dict(zip(ENVIRONMENTS, manifests, strict=True))


@pytest.fixture(scope="session")
def rendered_with_pgbouncer(official_chart: str, images: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The manifests of production with connection pooling."""
    text = (ROOT / "helm" / "values-prod.yaml").read_text()
    values = tmp_path_factory.mktemp("pgbouncer") / "values.yaml"
    values.write_text(re.sub(r"^# (?=pgbouncer:|data:)", "", text, flags=re.MULTILINE))
    return Deployment("", "market-daily-prod", "prod").render(["--values", str(values)])


@pytest.fixture(scope="session")
def objects(rendered: dict[str, str], environment: str) -> list[Object]:
    """The objects of the environment."""
    return parse_manifests(rendered[environment])
