"""Least privilege in every environment: the steps' namespace, roles, network policies, and who has Slack's token."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from devtools import helm_charts
from devtools.commands import ROOT
from devtools.deployment import Deployment

from .access_checks import list_egress, list_egress_ports, list_grants, namespace_of
from .conftest import parse_manifests
from .container_checks import Object, iterate_containers

SEPARATE = {"kind": False, "staging": True, "prod": True}
POD_VERBS = {"create", "get", "list", "watch", "patch", "delete"}
STEP = {"app.kubernetes.io/component": "step", "app.kubernetes.io/name": "trainer"}
COLLECTOR = STEP | {"app.kubernetes.io/name": "collector"}
# The policies with egress that apply to each component, without `dns` and `statsd-clients`, which apply to all of them.
EGRESS = {
    "scheduler": {"airflow-kubernetes", "airflow-bucket", "airflow-database", "airflow-api"},
    "triggerer": {"airflow-kubernetes", "airflow-bucket", "airflow-database"},
    "worker": {"airflow-kubernetes", "airflow-bucket", "airflow-api"},
    "dag-processor": {"airflow-bucket", "airflow-database", "airflow-slack"},
    "api-server": {"airflow-kubernetes", "airflow-bucket", "airflow-database", "api-server"},
    "run-airflow-migrations": {"airflow-database"},
    "create-user-job": {"airflow-database"},
    "pgbouncer": {"airflow-database"},
    "statsd": set(),
    "chosen-by-an-attacker": set(),
}


@pytest.fixture(scope="session")
def release(environment: str) -> str:
    """The namespace of Airflow."""
    return f"market-daily-{environment}"


@pytest.fixture(scope="session")
def steps(environment: str, release: str) -> str:
    """The namespace of the steps' pods."""
    return f"{release}-steps" if SEPARATE[environment] else release


def render_policies(environment: str, *options: str) -> list[Object]:
    """Return the objects of an environment, rendered with further settings."""
    return parse_manifests(Deployment("", f"market-daily-{environment}", environment).render(options))


def test_steps_run_in_a_namespace_of_their_own_except_in_kind(rendered: dict[str, str], environment: str, steps: str) -> None:
    [configured] = re.findall(r"^ *step_namespace = (.*)$", rendered[environment], re.MULTILINE) or [""]
    assert (configured or steps) == steps
    assert helm_charts.read_step_settings(rendered[environment], f"market-daily-{environment}").namespace == steps


def test_the_steps_namespace_has_account_quota_and_policies(objects: list[Object], release: str, steps: str) -> None:
    names = {
        (item["kind"], item["metadata"]["name"])
        for item in objects
        if item["kind"] != "Pod" and namespace_of(item, release) == steps
    }
    policies = {("NetworkPolicy", name) for name in ("default-deny", "dns", "steps", "collector")}
    assert {("ServiceAccount", "step"), ("ResourceQuota", "steps"), *policies} <= names
    [account] = [item for item in objects if item["kind"] == "ServiceAccount" and item["metadata"]["name"] == "step"]
    assert account["automountServiceAccountToken"] is False


def test_only_the_triggerer_runs_pods_in_the_steps_namespace(objects: list[Object], release: str, steps: str) -> None:
    grants = {
        name: {grant[1:] for grant in list_grants(objects, f"airflow-{name}", release) if grant[0] == steps}
        for name in ("triggerer", "worker", "scheduler", "api-server", "dag-processor")
    }
    read = {("get", "pods/log"), ("list", "events"), ("watch", "events")}
    assert grants["triggerer"] == {(verb, "pods") for verb in POD_VERBS - {"patch"}} | read
    assert grants["dag-processor"] == set()
    if steps != release:
        assert grants["worker"] == {("delete", "pods")}
        assert grants["scheduler"] == grants["api-server"] == set()


def test_only_the_scheduler_creates_pods_in_airflows_namespace(objects: list[Object], release: str, steps: str) -> None:
    creators = {
        name
        for name in ("triggerer", "worker", "scheduler", "api-server", "dag-processor", "create-user-job")
        if (release, "create", "pods") in list_grants(objects, f"airflow-{name}", release)
    }
    assert creators == ({"scheduler"} if steps != release else {"scheduler", "triggerer", "worker"})


@pytest.mark.parametrize(
    "options",
    [
        ("--set", "permissions.workersRunSteps=true"),
        ("--set", "config.market_daily.step_runner=worker"),
    ],
    ids=["setting", "runner"],
)
def test_workers_create_pods_of_steps_only_if_they_run_them(official_chart: str, options: tuple[str, str]) -> None:
    grants = list_grants(render_policies("staging", *options), "airflow-worker", "market-daily-staging")
    assert {verb for _, verb, resource in grants if resource == "pods"} == POD_VERBS
    assert {namespace for namespace, _, _ in grants} == {"market-daily-staging-steps"}


def test_steps_connect_to_the_bucket_and_the_collector_to_its_sources(objects: list[Object], release: str, steps: str) -> None:
    assert list_egress(objects, STEP, steps, release).keys() == {"dns", "steps"}
    assert list_egress(objects, COLLECTOR, steps, release).keys() == {"dns", "steps", "collector"}


def test_a_pod_in_the_steps_namespace_gains_nothing_by_airflows_labels(objects: list[Object], release: str, steps: str) -> None:
    if steps == release:
        pytest.skip("Airflow and the steps share a namespace")
    for component in EGRESS:
        assert list_egress(objects, {"tier": "airflow", "component": component}, steps, release).keys() == {"dns"}


@pytest.mark.parametrize("component", EGRESS)
def test_each_component_connects_only_to_what_it_needs(objects: list[Object], release: str, component: str) -> None:
    rules = list_egress(objects, {"tier": "airflow", "component": component}, release, release)
    assert rules.keys() - {"dns", "statsd-clients"} == EGRESS[component]


def test_components_without_clients_of_https_have_no_port_443(rendered: dict[str, str]) -> None:
    objects = parse_manifests(rendered["staging"])
    for component in ("statsd", "pgbouncer", "run-airflow-migrations", "create-user-job"):
        rules = list_egress(
            objects, {"tier": "airflow", "component": component}, "market-daily-staging", "market-daily-staging"
        )
        assert 443 not in list_egress_ports(rules)


def test_no_egress_rule_allows_every_address(objects: list[Object]) -> None:
    policies = [item for item in objects if item["kind"] == "NetworkPolicy"]
    rules = [(policy["metadata"]["name"], rule) for policy in policies for rule in policy["spec"].get("egress") or ()]
    assert len(rules) > 8
    for name, rule in rules:
        assert rule.get("to"), name
        for peer in rule["to"]:
            block = peer.get("ipBlock", {})
            # Public addresses are open to the collector, Slack's clients and the dead man's switch only.
            assert block.get("cidr") != "0.0.0.0/0" or (
                name in ("collector", "airflow-slack", "monitor") and "169.254.0.0/16" in block["except"]
            ), name


def test_the_heartbeats_address_is_open_only_if_it_is_set(official_chart: str) -> None:
    monitor = {"component": "monitor", "app.kubernetes.io/name": "monitor"}
    options = ("--set", "network.slack.to[0].ipBlock.cidr=192.0.2.0/24", "--set", "network.heartbeat.ports={8443}")
    ports = []
    for url in ((), ("--set", "config.market_daily.heartbeat_url=https://alerts.example.com:8443/ping")):
        rules = list_egress(render_policies("prod", *options, *url), monitor, "market-daily-prod", "market-daily-prod")
        ports.append(list_egress_ports(rules))
    assert 8443 not in ports[0] and 8443 in ports[1]


def test_the_lineage_receiver_is_open_only_if_it_is_enabled(official_chart: str) -> None:
    triggerer, options = {"tier": "airflow", "component": "triggerer"}, ("--set", "network.openlineage.ports={8765}")
    ports = []
    for enabled in ((), ("--set-string", "config.openlineage.disabled=False")):
        rules = list_egress(render_policies("prod", *options, *enabled), triggerer, "market-daily-prod", "market-daily-prod")
        ports.append(list_egress_ports(rules))
    assert 8765 not in ports[0] and 8765 in ports[1]


def test_the_documented_proxy_is_allowed_and_passed_to_the_collector(official_chart: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    [example] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    values.write_text(example)
    objects = render_policies("staging", "--values", str(values))
    rules = list_egress(objects, COLLECTOR, "market-daily-staging-steps", "market-daily-staging")
    assert rules["collector"] == [{"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"protocol": "TCP", "port": 3128}]}]
    [config] = [item["data"]["airflow.cfg"] for item in objects if "airflow.cfg" in (item.get("data") or {})]
    assert "\ncollector_env = HTTPS_PROXY=http://10.1.2.3:3128,NO_PROXY=s3.ap-northeast-2.amazonaws.com\n" in config


def test_only_the_monitor_and_the_dag_processor_have_slacks_token(objects: list[Object]) -> None:
    references = {}
    for name, pod, container in iterate_containers(objects):
        sources = [source["secretRef"] for source in container.get("envFrom") or () if "secretRef" in source]
        sources += [item["valueFrom"].get("secretKeyRef", {}) for item in container.get("env") or () if "valueFrom" in item]
        mounts = {mount["name"] for mount in container.get("volumeMounts") or ()}
        volumes = [volume["secret"] for volume in pod.get("volumes") or () if "secret" in volume and volume["name"] in mounts]
        sources += [{"name": volume["secretName"], "optional": volume.get("optional")} for volume in volumes]
        for source in sources:
            if source.get("name") == "slack":
                references[name] = source["optional"]
    # The chart mounts a component's volumes in its init container too.
    processor = ("airflow-dag-processor/dag-processor", "airflow-dag-processor/wait-for-airflow-migrations")
    assert references == dict.fromkeys(("monitor/monitor", *processor), True)


def test_the_dag_processor_starts_with_and_without_slacks_token(objects: list[Object], tmp_path: Path) -> None:
    [arguments] = [item["args"] for name, _, item in iterate_containers(objects) if name.endswith("/dag-processor")]
    (tmp_path / "airflow").write_text('#!/bin/sh\necho "$1 ${AIRFLOW_CONN_SLACK_CONN-unset}"')
    (tmp_path / "airflow").chmod(0o755)
    file = tmp_path / "AIRFLOW_CONN_SLACK_CONN"
    command = [argument.replace("/secrets/slack", str(tmp_path)) for argument in arguments]
    outputs = []
    for token in (None, "xoxb-1"):
        if token:
            file.write_text(token)
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        outputs.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert outputs == ["dag-processor unset\n", "dag-processor xoxb-1\n"]


def test_a_peer_in_airflows_namespace_is_reached_from_the_steps_namespace(official_chart: str) -> None:
    objects = render_policies("kind", "--set-string", "config.market_daily.step_namespace=market-daily-kind-steps")
    [rule] = list_egress(objects, STEP, "market-daily-kind-steps", "market-daily-kind")["steps"]
    [peer] = rule["to"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "market-daily-kind"}
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "bucket"}
