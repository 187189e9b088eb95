"""What the environments promise, each as rendered."""

from __future__ import annotations

from .conftest import objects_of
from .containers import Object, not_restricted, parsed, secrets_in_clear, without_bounds


def of(rendered: dict[str, str], environment: str, kind: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in parsed(rendered[environment]) if one["kind"] == kind}


def test_in_production_two_of_each_that_the_days_depend_on_are_spread_and_one_always_stays(rendered: dict[str, str]) -> None:
    deployments, budgets = of(rendered, "prod", "Deployment"), of(rendered, "prod", "PodDisruptionBudget")
    for component in ("api-server", "scheduler", "triggerer"):
        spec = deployments[f"airflow-{component}"]["spec"]
        assert spec["replicas"] == 2
        [spread] = spec["template"]["spec"]["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert spread["labelSelector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        budget = budgets[f"airflow-{component}-pdb"]["spec"]
        assert budget["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
        assert budget["maxUnavailable"] == 1


def test_database_bucket_and_keys_are_secrets_by_name(objects: list[Object]) -> None:
    named = set()
    for one in objects:
        spec = one.get("spec", {}).get("template", {}).get("spec", {})
        for container in spec.get("containers", ()):
            named |= {v["valueFrom"]["secretKeyRef"]["name"] for v in container.get("env") or () if "valueFrom" in v}
            named |= {source["secretRef"]["name"] for source in container.get("envFrom") or ()}
    keys = {"airflow-fernet-key", "airflow-jwt-secret", "airflow-api-secret-key", "airflow-admin", "airflow-watcher"}
    assert named == keys | {"airflow-metadata", "bucket", "slack"}


def test_nothing_is_a_helm_hook_and_nothing_comes_from_bitnami(rendered: dict[str, str], environment: str) -> None:
    assert "helm.sh/hook" not in rendered[environment]
    assert "bitnami" not in rendered[environment]


def test_nothing_may_speak_until_a_policy_says_so(rendered: dict[str, str], environment: str) -> None:
    policies = {name: one["spec"] for name, one in of(rendered, environment, "NetworkPolicy").items()}
    assert policies["deny-by-default"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    outside = [name for name, spec in policies.items() for rule in spec.get("egress") or () if "to" not in rule]
    assert set(outside) == {"airflow", "watcher"}  # the Kubernetes API and Slack
    [collector] = policies["collector"]["egress"]
    assert "169.254.0.0/16" in collector["to"][0]["ipBlock"]["except"]


def test_numbers_go_to_the_exporter_and_can_be_fetched_there_but_on_a_laptop(
    rendered: dict[str, str], environment: str
) -> None:
    policies = {name: one["spec"] for name, one in of(rendered, environment, "NetworkPolicy").items()}
    exporter = of(rendered, environment, "Deployment").get("airflow-statsd")
    configuration = of(rendered, environment, "ConfigMap")["airflow-config"]["data"]["airflow.cfg"]
    assert (exporter is not None) == ("statsd_on = True" in configuration) == (environment != "kind")
    if exporter is None:
        return
    service = of(rendered, environment, "Service")["airflow-statsd"]
    assert service["metadata"]["annotations"] == {"prometheus.io/scrape": "true", "prometheus.io/port": "9102"}
    assert {("UDP", 9125), ("TCP", 9102)} == {(port["protocol"], port["port"]) for port in service["spec"]["ports"]}
    its = exporter["spec"]["template"]["metadata"]["labels"]
    [out] = policies["metrics"]["egress"]
    [to] = out["to"]
    assert to["podSelector"]["matchLabels"].items() <= its.items() and out["ports"] == [{"protocol": "UDP", "port": 9125}]
    told, fetched = policies["metrics-exporter"]["ingress"]
    assert told["ports"] == out["ports"] and fetched == {"ports": [{"protocol": "TCP", "port": 9102}]}
    assert "checksum/statsd-config" in exporter["spec"]["template"]["metadata"]["annotations"], "other names, another pod"


def test_the_exporter_speaks_to_nobody(rendered: dict[str, str], environment: str) -> None:
    policies = [one["spec"] for one in of(rendered, environment, "NetworkPolicy").values() if one["spec"].get("egress")]
    its = {"tier": "airflow", "component": "statsd"}
    open_to_it = [
        spec
        for spec in policies
        if spec["podSelector"].get("matchLabels", {}).items() <= its.items()
        and "statsd" not in [name for one in spec["podSelector"].get("matchExpressions", ()) for name in one["values"]]
    ]
    assert [port["port"] for spec in open_to_it for rule in spec["egress"] for port in rule["ports"]] == [53, 53]


def test_what_is_deployed_runs_without_a_hand(rendered: dict[str, str], environment: str) -> None:
    [text] = [
        one["data"]["airflow.cfg"] for one in of(rendered, environment, "ConfigMap").values() if "airflow.cfg" in one["data"]
    ]
    assert "dags_are_paused_at_creation = False" in text
    assert ("schedule_enabled = false" in text) == (environment == "kind")


def test_a_password_may_begin_with_a_dash(rendered: dict[str, str], environment: str) -> None:
    [arguments] = [
        job["spec"]["template"]["spec"]["containers"][0]["args"]
        for job in [of(rendered, environment, "Job")["airflow-create-user"]]
    ]
    assert ' --password="$PASSWORD"' in arguments[-1]


def test_pooling_is_a_switch_and_its_containers_are_as_all_others(pooled: str) -> None:
    found = objects_of(pooled)
    kinds = {one["kind"] for one in found if one["metadata"]["name"].startswith("airflow-pgbouncer")}
    assert {"Deployment", "Service", "PodDisruptionBudget"} <= kinds
    assert pooled.count("name: airflow-pooled") > 3 and "airflow-metadata" not in pooled
    assert not_restricted(found) == without_bounds(found) == secrets_in_clear(found) == []
