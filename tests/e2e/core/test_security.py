"""What a pod may do and reach on the cluster, and where secrets are not to be found."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from devtools import container_images, kind_cluster
from devtools.airflow_client import AirflowClient
from devtools.commands import ToolError
from step_contract.store import Store

from ..conftest import Watched, kubectl, start, wait_for_end

RUN = "session__2026-01-16"
PROBE = Path(__file__).with_name("network_probe.py").read_text()
DATABASE, BUCKET = f"postgres.{kind_cluster.NAMESPACE}.svc:5432", f"bucket.{kind_cluster.NAMESPACE}.svc:7070"
API, KUBERNETES = f"airflow-api-server.{kind_cluster.NAMESPACE}.svc:8080", "kubernetes.default.svc:443"
ADDRESSES = (DATABASE, BUCKET, API, KUBERNETES)
STEP = {"app.kubernetes.io/component": "step", "app.kubernetes.io/name": "trainer"}
REACHED: dict[str, tuple[dict[str, str], set[str]]] = {
    "step": (STEP, {BUCKET}),
    "stranger": ({"app": "stranger"}, set()),
    "worker": ({"tier": "airflow", "component": "worker"}, {BUCKET, API, KUBERNETES}),
    "scheduler": ({"tier": "airflow", "component": "probe"}, set(ADDRESSES)),
}


def probe(name: str, labels: dict[str, str]) -> set[str]:
    """Which of the addresses a pod with these labels reaches."""
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


def test_each_pod_reaches_what_it_needs_and_nothing_else() -> None:
    with ThreadPoolExecutor() as pool:
        found = dict(zip(REACHED, pool.map(probe, REACHED, (labels for labels, _ in REACHED.values())), strict=True))
    assert found == {name: addresses for name, (_, addresses) in REACHED.items()}


def test_a_pod_that_is_not_restricted_is_not_let_in() -> None:
    loose = {"name": "loose", "image": container_images.name_of("collector"), "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose"}, "spec": {"containers": [loose]}}
    with pytest.raises(ToolError, match='violates PodSecurity "restricted'):
        kubectl("create", "--filename", "-", input=json.dumps(pod))


@pytest.mark.parametrize("account", ["step", "airflow-triggerer", "airflow-worker", "airflow-scheduler", "airflow-api-server"])
def test_no_account_may_read_secrets_or_run_commands_in_pods(account: str) -> None:
    granted = kubectl(
        "auth", "can-i", "--list", "--no-headers", f"--as=system:serviceaccount:{kind_cluster.NAMESPACE}:{account}"
    )
    resources = {line.split()[0] for line in granted.splitlines() if not line.startswith(("[", "selfsubject", " "))}
    own = {"selfsubjectreviews.authentication.k8s.io", "selfsubjectaccessreviews.authorization.k8s.io"}
    own |= {"selfsubjectrulesreviews.authorization.k8s.io"}
    allowed: set[str] = set() if account == "step" else {"pods", "pods/log", "events"}
    assert resources - own <= allowed


def test_a_steps_pod_has_no_token_a_root_that_cannot_be_written_and_the_buckets_keys_alone(
    airflow: AirflowClient, watched: Watched
) -> None:
    if not (pods := watched.steps("market_daily", RUN)):  # as when this test runs alone
        start(airflow, "market_daily", RUN, "2026-01-16T09:00:00Z")
        assert wait_for_end(airflow, "market_daily", RUN, 240) == "success"
        pods = watched.steps("market_daily", RUN)
    assert pods
    for pod in pods:
        [container] = pod["spec"]["containers"]
        assert pod["spec"]["serviceAccountName"] == "step"
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert [volume for volume in pod["spec"]["volumes"] if "emptyDir" not in volume] == []
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        named = {v["valueFrom"]["secretKeyRef"]["name"] for v in container["env"] if "valueFrom" in v}
        assert named == {"bucket"} and not container.get("envFrom")


def test_no_secret_is_in_a_pod_a_rendered_template_a_log_or_an_xcom(
    airflow: AirflowClient, bucket: Store, watched: Watched
) -> None:
    secrets = json.loads(kubectl("get", "secrets", "--output=json"))["items"]
    ours = [one["metadata"]["name"] for one in secrets if one["type"] == "Opaque"]
    values = {value for name in ours for value in kind_cluster.DEPLOYMENT.secret(name).values() if len(value) > 8}
    assert len(values) >= 7
    logs = Store("s3://market/logs")
    places = {
        "pods": json.dumps(watched.pods) + kubectl("get", "pods,configmaps,jobs,deployments", "--output=yaml"),
        "templates": kind_cluster.DEPLOYMENT.running(),
        "events": kubectl("get", "events", "--output=yaml"),
        "task logs": "".join((data or b"").decode() for data in logs.read_many(logs.list("")).values()),
        "xcoms": json.dumps(airflow.call("GET", "/dags/market_daily/dagRuns/~/taskInstances/~/xcomEntries?limit=1000")),
    }
    for component in ("scheduler", "triggerer", "dag-processor", "api-server"):
        places[f"log of {component}"] = kubectl("logs", f"--selector=component={component}", "--tail=-1", "--all-containers")
    assert all(places.values())
    assert [place for place, text in places.items() if any(value in text for value in values)] == []


def test_a_steps_links_show_what_it_made_to_who_is_logged_in(airflow: AirflowClient) -> None:
    link = airflow.call("GET", "/dags/market_daily/dagRuns/session__2026-01-15/taskInstances/plot/links")["extra_links"]
    assert set(link) == {"Artifact", "Manifest", "Picture"}
    for address in link.values():
        content, kind_of = airflow.page(address)
        assert content and kind_of.split(";")[0] in ("text/html", "application/json", "image/png")
        with urllib.request.urlopen(f"{airflow.url}{address}", timeout=30) as answer:  # noqa: S310
            assert "/login" in answer.url and b"PNG" not in answer.read()
    assert airflow.page(link["Picture"])[0].startswith(b"\x89PNG")
