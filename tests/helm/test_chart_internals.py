"""What helm/ relies on in the official chart beyond its documented values: helper templates, names of objects, labels.

A failure says what of this project depends on it; docs/upgrade.md has the procedure.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
import yaml
from devtools.deployment import JOBS
from devtools.pgbouncer import PORT, SERVICE

from .conftest import ROOT, parse_manifests
from .container_checks import Object

# What scripts/, dev/ and helm/namespace-policies call objects of the chart.
NAMES = {
    "Deployment": {"airflow-api-server", "airflow-scheduler", "airflow-triggerer", "airflow-dag-processor"},
    "Service": {"airflow-api-server", "airflow-statsd", SERVICE},
    "Job": set(JOBS),
    "ServiceAccount": {"airflow-scheduler", "airflow-triggerer", "airflow-worker"},
}


@pytest.fixture(scope="session")
def chart_text(official_chart: str, helm: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of the chart's templates."""
    path = Path(official_chart)
    if path.is_file():
        with tarfile.open(path) as archive:
            members = [member for member in archive if "/templates/" in member.name and member.isfile()]
            files = [archive.extractfile(member) for member in members]
            return "\n".join(file.read().decode() for file in files if file)
    return "\n".join(file.read_text() for file in path.glob("templates/**/*") if file.is_file())


def list_included() -> set[str]:
    """Return the helper templates that helm/values.yaml uses in the pod template."""
    template = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())["podTemplate"]
    return set(re.findall(r"(?:include|template) \"([^\"]+)\"", template))


def test_the_chart_defines_the_helpers_of_the_pod_template(chart_text: str) -> None:
    names = list_included()
    assert names
    missing = {name for name in names if f'define "{name}"' not in chart_text}
    assert not missing, "podTemplate in helm/values.yaml uses them: worker pods would not be created"


@pytest.fixture(scope="session")
def complete(rendered_with_pgbouncer: str) -> list[Object]:
    """The objects of production with all components that helm/ knows."""
    return parse_manifests(rendered_with_pgbouncer)


def list_pod_labels(objects: list[Object]) -> list[dict[str, str]]:
    pods = [manifest if manifest["kind"] == "Pod" else manifest.get("spec", {}).get("template", {}) for manifest in objects]
    return [pod["metadata"]["labels"] for pod in pods if pod.get("metadata", {}).get("labels")]


def list_selectors(value: object) -> list[Object]:
    """Return all pod selectors in a network policy."""
    if isinstance(value, list):
        return [selector for entry in value for selector in list_selectors(entry)]
    if not isinstance(value, dict):
        return []
    own = [value["podSelector"]] if "podSelector" in value else []
    return own + list_selectors(list(value.values()))


@pytest.mark.parametrize("kind", NAMES)
def test_the_charts_objects_have_the_names_that_we_use(complete: list[Object], kind: str) -> None:
    names = {manifest["metadata"]["name"] for manifest in complete if manifest["kind"] == kind}
    missing = NAMES[kind] - names
    assert not missing, f"scripts/ and helm/namespace-policies refer to these objects of kind {kind}"


def test_the_charts_pods_have_the_labels_that_policies_select(complete: list[Object]) -> None:
    pods = list_pod_labels(complete)
    policies = [manifest for manifest in complete if manifest["kind"] == "NetworkPolicy"]
    selectors = [(policy["metadata"]["name"], selector) for policy in policies for selector in list_selectors(policy["spec"])]
    selected = [(name, selector) for name, selector in selectors if selector.get("matchLabels", {}).get("tier") == "airflow"]
    assert len(selected) > 10
    for name, selector in selected:
        components = {selector["matchLabels"].get("component")} - {None}
        for expression in selector.get("matchExpressions", ()):
            components |= set(expression["values"]) if expression["key"] == "component" else set()
        components -= {"database-cleanup"}  # a CronJob of the chart that no environment enables
        known = {labels["component"] for labels in pods if labels.get("tier") == "airflow"}
        assert components <= known, f"the network policy {name} selects no pod of {sorted(components - known)}"


def test_the_charts_services_have_the_ports_that_clients_use(complete: list[Object]) -> None:
    ports = {
        (manifest["metadata"]["name"], port["port"])
        for manifest in complete
        if manifest["kind"] == "Service"
        for port in manifest["spec"]["ports"]
    }
    expected = {("airflow-api-server", 8080), ("airflow-statsd", 9125), ("airflow-statsd", 9102), (SERVICE, PORT)}
    assert expected <= ports, "the monitor, make ui, the database URL and the network policies use these ports"
