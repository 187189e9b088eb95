"""Security on the cluster: network policies, pod security, RBAC, and where secrets must not appear."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from devtools import container_images
from devtools.airflow_client import AirflowClient
from devtools.commands import ToolError
from devtools.pods import PodWatch
from step_contract.store import Store

from ..conftest import DEPLOYMENT, kubectl, start_run, step_pods, wait_for_run

RUN_ID = "session__2026-01-16"
PROBE = Path(__file__).with_name("network_probe.py").read_text()
DATABASE, BUCKET = f"postgres.{DEPLOYMENT.namespace}.svc:5432", f"bucket.{DEPLOYMENT.namespace}.svc:7070"
API, KUBERNETES = f"airflow-api-server.{DEPLOYMENT.namespace}.svc:8080", "kubernetes.default.svc:443"
ADDRESSES = (DATABASE, BUCKET, API, KUBERNETES)
STEP = {"app.kubernetes.io/component": "step", "app.kubernetes.io/name": "trainer"}
# The labels of a pod, and the addresses that it can connect to.
REACHABLE: dict[str, tuple[dict[str, str], set[str]]] = {
    "step": (STEP, {BUCKET}),
    "unrelated": ({"app": "unrelated"}, set()),
    "worker": ({"tier": "airflow", "component": "worker"}, {BUCKET, API, KUBERNETES}),
    "scheduler": ({"tier": "airflow", "component": "probe"}, set(ADDRESSES)),
}


def probe(name: str, labels: dict[str, str]) -> set[str]:
    """Return the addresses that a pod with these labels can connect to."""
    container: dict[str, Any] = {
        "name": "probe",
        "image": container_images.name_of("collector"),
        "command": ["python3", "-c", PROBE, *ADDRESSES],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    metadata = {"name": f"probe-{name}", "labels": labels}
    kubectl(
        "create", "--filename", "-", input=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    )
    kubectl("wait", "pod", f"probe-{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=90s")
    lines = kubectl("logs", f"probe-{name}").splitlines()
    kubectl("delete", "pod", f"probe-{name}", "--wait=false")
    assert len(lines) == len(ADDRESSES)
    return {line.split()[0] for line in lines if line.endswith(" reached")}


def test_each_pod_connects_only_to_what_it_needs() -> None:
    with ThreadPoolExecutor() as pool:
        reached = dict(zip(REACHABLE, pool.map(probe, REACHABLE, (labels for labels, _ in REACHABLE.values())), strict=True))
    assert reached == {name: addresses for name, (_, addresses) in REACHABLE.items()}


def test_the_namespace_rejects_a_pod_that_is_not_restricted() -> None:
    privileged = {"name": "privileged", "image": container_images.name_of("collector"), "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "privileged"}, "spec": {"containers": [privileged]}}
    with pytest.raises(ToolError, match='violates PodSecurity "restricted'):
        kubectl("create", "--filename", "-", input=json.dumps(pod))


@pytest.mark.parametrize("account", ["step", "airflow-triggerer", "airflow-worker", "airflow-scheduler", "airflow-api-server"])
def test_no_service_account_can_read_secrets_or_exec_in_pods(account: str) -> None:
    granted = kubectl("auth", "can-i", "--list", "--no-headers", f"--as=system:serviceaccount:{DEPLOYMENT.namespace}:{account}")
    resources = {line.split()[0] for line in granted.splitlines() if not line.startswith(("[", "selfsubject", " "))}
    self_reviews = {"selfsubjectreviews.authentication.k8s.io", "selfsubjectaccessreviews.authorization.k8s.io"}
    self_reviews |= {"selfsubjectrulesreviews.authorization.k8s.io"}
    allowed: set[str] = set() if account == "step" else {"pods", "pods/log", "events"}
    assert resources - self_reviews <= allowed


def test_a_steps_pod_has_no_token_and_one_secret(airflow: AirflowClient, pod_watch: PodWatch) -> None:
    if not (pods := step_pods(pod_watch, "market_daily", RUN_ID)):  # if this test runs alone
        start_run(airflow, "market_daily", RUN_ID, "2026-01-16T09:00:00Z")
        assert wait_for_run(airflow, "market_daily", RUN_ID, 240) == "success"
        pods = step_pods(pod_watch, "market_daily", RUN_ID)
    assert pods
    for pod in pods:
        [container] = pod["spec"]["containers"]
        assert pod["spec"]["serviceAccountName"] == "step"
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert [volume for volume in pod["spec"]["volumes"] if "emptyDir" not in volume] == []
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        variables = [variable for variable in container["env"] if "valueFrom" in variable]
        assert {variable["valueFrom"]["secretKeyRef"]["name"] for variable in variables} == {"bucket"}
        assert not container.get("envFrom")


def test_no_secret_is_in_pods_manifests_logs_or_xcoms(airflow: AirflowClient, bucket: Store, pod_watch: PodWatch) -> None:
    secrets = json.loads(kubectl("get", "secrets", "--output=json"))["items"]
    names = [secret["metadata"]["name"] for secret in secrets if secret["type"] == "Opaque"]
    values = {value for name in names for value in DEPLOYMENT.read_secret(name).values() if len(value) > 8}
    assert len(values) >= 7
    logs = Store("s3://market/logs")
    places = {
        "pods": json.dumps(pod_watch.last) + kubectl("get", "pods,configmaps,jobs,deployments", "--output=yaml"),
        "manifests": DEPLOYMENT.read_manifests(),
        "events": kubectl("get", "events", "--output=yaml"),
        "task logs": "".join((data or b"").decode() for data in logs.read_many(logs.list("")).values()),
        "xcoms": json.dumps(airflow.request("GET", "/dags/market_daily/dagRuns/~/taskInstances/~/xcomEntries?limit=1000")),
    }
    for component in ("scheduler", "triggerer", "dag-processor", "api-server"):
        places[f"log of {component}"] = kubectl("logs", f"--selector=component={component}", "--tail=-1", "--all-containers")
    assert all(places.values())
    assert [place for place, text in places.items() if any(value in text for value in values)] == []


def test_a_steps_links_require_a_login(airflow: AirflowClient) -> None:
    links = airflow.request("GET", "/dags/market_daily/dagRuns/session__2026-01-15/taskInstances/plot/links")["extra_links"]
    assert set(links) == {"Artifact", "Manifest", "Picture"}
    for address in links.values():
        content, media_type = airflow.get_page(address)
        assert content and media_type.split(";")[0] in ("text/html", "application/json", "image/png")
        with urllib.request.urlopen(f"{airflow.url}{address}", timeout=30) as response:  # noqa: S310
            assert "/login" in response.url and b"PNG" not in response.read()
    assert airflow.get_page(links["Picture"])[0].startswith(b"\x89PNG")
