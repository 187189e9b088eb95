"""Properties of each environment's manifests."""

from __future__ import annotations

from .conftest import parse_manifests
from .container_checks import Object, find_plaintext_secrets, find_unbounded, find_unrestricted, parse_objects


def select(rendered: dict[str, str], environment: str, kind: str) -> dict[str, Object]:
    """Return the environment's objects of a kind by name."""
    objects = parse_objects(rendered[environment])
    return {manifest["metadata"]["name"]: manifest for manifest in objects if manifest["kind"] == kind}


def test_production_spreads_two_replicas_with_a_disruption_budget(rendered: dict[str, str]) -> None:
    deployments, budgets = select(rendered, "prod", "Deployment"), select(rendered, "prod", "PodDisruptionBudget")
    for component in ("api-server", "scheduler", "triggerer"):
        spec = deployments[f"airflow-{component}"]["spec"]
        assert spec["replicas"] == 2
        [spread] = spec["template"]["spec"]["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert spread["labelSelector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        budget = budgets[f"airflow-{component}-pdb"]["spec"]
        assert budget["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        assert budget["maxUnavailable"] == 1


def test_credentials_are_references_to_secrets(objects: list[Object]) -> None:
    names = set()
    for manifest in objects:
        spec = manifest.get("spec", {}).get("template", {}).get("spec", {})
        for container in spec.get("containers", ()):
            variables = [variable for variable in container.get("env") or () if "valueFrom" in variable]
            names |= {variable["valueFrom"]["secretKeyRef"]["name"] for variable in variables}
            names |= {source["secretRef"]["name"] for source in container.get("envFrom") or ()}
    keys = {"airflow-fernet-key", "airflow-jwt-secret", "airflow-api-secret-key", "airflow-admin", "airflow-monitor"}
    assert names == keys | {"airflow-metadata", "bucket", "slack"}


def test_no_object_uses_helm_hooks_or_bitnami_images(rendered: dict[str, str], environment: str) -> None:
    assert "helm.sh/hook" not in rendered[environment]
    assert "bitnami" not in rendered[environment]


def test_network_traffic_is_denied_by_default(rendered: dict[str, str], environment: str) -> None:
    policies = {name: policy["spec"] for name, policy in select(rendered, environment, "NetworkPolicy").items()}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_metrics_go_to_a_statsd_exporter_except_in_kind(rendered: dict[str, str], environment: str) -> None:
    policies = {name: policy["spec"] for name, policy in select(rendered, environment, "NetworkPolicy").items()}
    exporter = select(rendered, environment, "Deployment").get("airflow-statsd")
    configuration = select(rendered, environment, "ConfigMap")["airflow-config"]["data"]["airflow.cfg"]
    assert (exporter is not None) == ("statsd_on = True" in configuration) == (environment != "kind")
    if exporter is None:
        return
    service = select(rendered, environment, "Service")["airflow-statsd"]
    assert service["metadata"]["annotations"] == {"prometheus.io/scrape": "true", "prometheus.io/port": "9102"}
    assert {("UDP", 9125), ("TCP", 9102)} == {(port["protocol"], port["port"]) for port in service["spec"]["ports"]}
    labels = exporter["spec"]["template"]["metadata"]["labels"]
    [egress] = policies["statsd-clients"]["egress"]
    [peer] = egress["to"]
    assert peer["podSelector"]["matchLabels"].items() <= labels.items() and egress["ports"] == [
        {"protocol": "UDP", "port": 9125}
    ]
    sent, scraped = policies["statsd"]["ingress"]
    assert sent["ports"] == egress["ports"] and scraped == {"ports": [{"protocol": "TCP", "port": 9102}]}
    assert "checksum/statsd-config" in exporter["spec"]["template"]["metadata"]["annotations"], (
        "the pod must restart for new names"
    )


def test_dags_are_unpaused_and_scheduled_except_in_kind(rendered: dict[str, str], environment: str) -> None:
    configs = [config["data"] for config in select(rendered, environment, "ConfigMap").values()]
    [text] = [data["airflow.cfg"] for data in configs if "airflow.cfg" in data]
    assert "dags_are_paused_at_creation = False" in text
    assert ("schedule_enabled = false" in text) == (environment == "kind")


def test_a_password_can_begin_with_a_dash(rendered: dict[str, str], environment: str) -> None:
    [arguments] = [
        job["spec"]["template"]["spec"]["containers"][0]["args"]
        for job in [select(rendered, environment, "Job")["airflow-create-user"]]
    ]
    assert ' --password="$PASSWORD"' in arguments[-1]


def test_pgbouncer_can_be_enabled_and_its_containers_pass_all_checks(rendered_with_pgbouncer: str) -> None:
    objects = parse_manifests(rendered_with_pgbouncer)
    kinds = {manifest["kind"] for manifest in objects if manifest["metadata"]["name"].startswith("airflow-pgbouncer")}
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= kinds
    assert rendered_with_pgbouncer.count("name: airflow-pooled") > 3
    assert "airflow-metadata" not in rendered_with_pgbouncer
    assert find_unrestricted(objects) == find_unbounded(objects) == find_plaintext_secrets(objects) == []
