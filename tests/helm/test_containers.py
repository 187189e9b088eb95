"""Requirements that every container meets, of this project's chart and of the official one, in every environment."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from .conftest import ENVIRONMENTS, IMAGES, ROOT
from .container_checks import (
    Object,
    find_plaintext_secrets,
    find_unbounded,
    find_unrestricted,
    iterate_containers,
    iterate_pods,
)

EXPORTER_IMAGE = "quay.io/prometheus/statsd-exporter:"
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
# Kinds whose pods do not terminate by themselves.
SERVICES = ("Deployment", "StatefulSet")


def test_all_components_are_rendered(objects: list[Object]) -> None:
    names = {name for name, _, _ in iterate_containers(objects)}
    for component in ("api-server", "scheduler", "triggerer", "dag-processor"):
        assert f"airflow-{component}/{component}" in names
    assert "worker/base" in names and "airflow-create-user/create-user" in names


def test_every_container_has_requests_and_a_memory_limit(objects: list[Object]) -> None:
    assert find_unbounded(objects) == []


def test_every_container_meets_the_restricted_standard(objects: list[Object]) -> None:
    assert find_unrestricted(objects) == []


def test_every_image_is_the_configured_one(objects: list[Object]) -> None:
    images = {name: container["image"] for name, _, container in iterate_containers(objects)}
    # The chart pins the exporter's image.
    assert images.pop("airflow-statsd/statsd", EXPORTER_IMAGE).startswith(EXPORTER_IMAGE)
    assert set(images.values()) == {IMAGES["airflow"]}
    [configuration] = [manifest["data"]["airflow.cfg"] for manifest in objects if "airflow.cfg" in manifest.get("data", {})]
    assert f"collector_image = {IMAGES['collector']}" in configuration
    assert f"trainer_image = {IMAGES['trainer']}" in configuration
    for image in re.findall(r"^\w*(?:image|container_repository|container_tag) *=(.*)$", configuration, re.MULTILINE):
        assert image.strip() in ("", *IMAGES.values())


def test_every_component_has_probes(objects: list[Object]) -> None:
    for kind, name, pod in iterate_pods(objects):
        if kind in SERVICES:
            for container in pod["containers"]:
                assert "livenessProbe" in container, f"{name}/{container['name']}"
    [server] = [pod for _, name, pod in iterate_pods(objects) if name == "airflow-api-server"]
    assert "readinessProbe" in server["containers"][0]


def test_liveness_probes_do_not_import_airflow(objects: list[Object]) -> None:
    jobs = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag-processor": "DagProcessorJob"}
    probed = {name.removeprefix("airflow-"): pod["containers"][0] for _, name, pod in iterate_pods(objects)}
    for component, job in jobs.items():
        commands = [probed[component][probe]["exec"]["command"] for probe in PROBES if probe in probed[component]]
        assert commands and all(command == ["python", "-m", "airflow_steps.liveness", job] for command in commands)


def test_only_clients_of_the_kubernetes_api_have_a_token(objects: list[Object]) -> None:
    accounts = {manifest["metadata"]["name"]: manifest for manifest in objects if manifest["kind"] == "ServiceAccount"}
    with_token = {name for name, account in accounts.items() if account.get("automountServiceAccountToken", True)}
    assert with_token == {"airflow-api-server", "airflow-scheduler", "airflow-triggerer", "airflow-worker"}
    for _, name, pod in iterate_pods(objects):
        assert pod.get("serviceAccountName") in accounts, name


def test_no_role_grants_exec_or_secrets(objects: list[Object]) -> None:
    rules = [rule for role in objects if role["kind"] in ("Role", "ClusterRole") for rule in role["rules"]]
    granted = {resource for rule in rules for resource in rule["resources"]}
    assert granted == {"pods", "pods/log", "events"}
    assert "*" not in {verb for rule in rules for verb in rule["verbs"]}
    assert not [manifest for manifest in objects if manifest["kind"] in ("ClusterRole", "ClusterRoleBinding")]


def test_no_manifest_contains_a_plaintext_secret(rendered: dict[str, str], objects: list[Object], environment: str) -> None:
    assert find_plaintext_secrets(objects) == []
    assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", rendered[environment])


def test_a_worker_gets_neither_database_nor_keys(objects: list[Object]) -> None:
    [worker] = [pod for kind, _, pod in iterate_pods(objects) if kind == "Pod"]
    assert {variable["name"] for variable in worker["containers"][0]["env"]} <= {
        "AIRFLOW__CORE__EXECUTOR",
        "AIRFLOW_HOME",
        "CONNECTION_CHECK_MAX_COUNT",
        "AIRFLOW_CONN_AWS_DEFAULT",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
    }


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environments_file_contains_only_differences(name: str) -> None:
    base = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
    values = yaml.safe_load((ROOT / "helm" / f"values-{name}.yaml").read_text())
    assert list(find_repeated(base, values)) == []


def find_repeated(base: Object, values: Object, prefix: str = "") -> Iterator[str]:
    """Yield the keys of `values` that have the same value in `base`."""
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            yield from find_repeated(base[key], value, f"{prefix}{key}.")
        elif key in base and base[key] == value:
            yield f"{prefix}{key}"
