"""What holds of every container of ours and of the chart, in every environment."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml

from .conftest import ENVIRONMENTS, IMAGES, ROOT
from .container_checks import Object, containers, not_restricted, pods, secrets_in_clear, without_bounds

EXPORTER = "quay.io/prometheus/statsd-exporter:"
# Components that run as long as the deployment; the others end.
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
SERVICES = ("Deployment", "StatefulSet")


def test_there_are_the_containers_that_there_should_be(objects: list[Object]) -> None:
    names = {name for name, _, _ in containers(objects)}
    for component in ("api-server", "scheduler", "triggerer", "dag-processor"):
        assert f"airflow-{component}/{component}" in names
    assert "worker/base" in names and "airflow-create-user/create-user" in names


def test_every_container_has_requests_and_a_limit_of_memory(objects: list[Object]) -> None:
    assert without_bounds(objects) == []


def test_every_container_is_restricted(objects: list[Object]) -> None:
    assert not_restricted(objects) == []


def test_every_image_is_ours_and_named_from_one_place(objects: list[Object]) -> None:
    found = {name: container["image"] for name, _, container in containers(objects)}
    # The exporter's is the one that the chart pins.
    assert found.pop("airflow-statsd/statsd", EXPORTER).startswith(EXPORTER)
    assert set(found.values()) == {IMAGES["airflow"]}
    [configuration] = [one["data"]["airflow.cfg"] for one in objects if "airflow.cfg" in one.get("data", {})]
    assert f"collector_image = {IMAGES['collector']}" in configuration
    assert f"trainer_image = {IMAGES['trainer']}" in configuration
    for image in re.findall(r"^\w*(?:image|container_repository|container_tag) *=(.*)$", configuration, re.MULTILINE):
        assert image.strip() in ("", *IMAGES.values())


def test_every_service_has_probes(objects: list[Object]) -> None:
    for kind, name, pod in pods(objects):
        if kind in SERVICES:
            for container in pod["containers"]:
                assert "livenessProbe" in container, f"{name}/{container['name']}"
    [server] = [pod for _, name, pod in pods(objects) if name == "airflow-api-server"]
    assert "readinessProbe" in server["containers"][0]


def test_heartbeats_are_probed_without_importing_airflow(objects: list[Object]) -> None:
    jobs = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag-processor": "DagProcessorJob"}
    probed = {name.removeprefix("airflow-"): pod["containers"][0] for _, name, pod in pods(objects)}
    for component, job in jobs.items():
        commands = [probed[component][probe]["exec"]["command"] for probe in PROBES if probe in probed[component]]
        assert commands and all(command == ["python", "-m", "airflow_steps.liveness", job] for command in commands)


def test_only_who_speaks_to_kubernetes_has_a_token(objects: list[Object]) -> None:
    accounts = {one["metadata"]["name"]: one for one in objects if one["kind"] == "ServiceAccount"}
    with_token = {name for name, one in accounts.items() if one.get("automountServiceAccountToken", True)}
    assert with_token == {"airflow-api-server", "airflow-scheduler", "airflow-triggerer", "airflow-worker"}
    for _, name, pod in pods(objects):
        assert pod.get("serviceAccountName") in accounts, name


def test_nobody_may_run_commands_in_pods_or_read_secrets(objects: list[Object]) -> None:
    rules = [rule for one in objects if one["kind"] in ("Role", "ClusterRole") for rule in one["rules"]]
    granted = {resource for rule in rules for resource in rule["resources"]}
    assert granted == {"pods", "pods/log", "events"}
    assert "*" not in {verb for rule in rules for verb in rule["verbs"]}
    assert not [one for one in objects if one["kind"] in ("ClusterRole", "ClusterRoleBinding")]


def test_nothing_rendered_holds_a_secret_in_clear(rendered: dict[str, str], objects: list[Object], environment: str) -> None:
    assert secrets_in_clear(objects) == []
    assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", rendered[environment])


def test_a_worker_is_handed_neither_the_database_nor_the_keys(objects: list[Object]) -> None:
    [worker] = [pod for kind, _, pod in pods(objects) if kind == "Pod"]
    assert {variable["name"] for variable in worker["containers"][0]["env"]} <= {
        "AIRFLOW__CORE__EXECUTOR",
        "AIRFLOW_HOME",
        "CONNECTION_CHECK_MAX_COUNT",
        "AIRFLOW_CONN_AWS_DEFAULT",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
    }


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_environments_file_holds_differences_only(name: str) -> None:
    everywhere = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
    own = yaml.safe_load((ROOT / "helm" / f"values-{name}.yaml").read_text())
    assert list(repeated(everywhere, own)) == []


def repeated(everywhere: Object, own: Object, above: str = "") -> Iterator[str]:
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(everywhere.get(key), dict):
            yield from repeated(everywhere[key], value, f"{above}{key}.")
        elif key in everywhere and everywhere[key] == value:
            yield f"{above}{key}"
