"""Security on the cluster: network policies, pod security, RBAC, and where secrets must not appear."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace

import pytest
from devtools import container_images
from devtools.airflow_client import AirflowClient
from devtools.commands import ToolError
from devtools.pods import PodWatch
from step_contract.store import Store

from ..access import Account, find_reachable, list_privileges, make_pod, try_create
from ..conftest import DEPLOYMENT, kubectl, start_run, step_pods, wait_for_run

RUN_ID = "session__2026-01-16"
DATABASE, BUCKET = f"postgres.{DEPLOYMENT.namespace}.svc:5432", f"bucket.{DEPLOYMENT.namespace}.svc:7070"
API, KUBERNETES = f"airflow-api-server.{DEPLOYMENT.namespace}.svc:8080", "kubernetes.default.svc:443"
SLACK = f"slack.{DEPLOYMENT.namespace}.svc:8081"
ADDRESSES = (DATABASE, BUCKET, API, KUBERNETES, SLACK)
STEP = {"app.kubernetes.io/component": "step", "app.kubernetes.io/name": "trainer"}
# The labels of a pod, and the addresses that it can connect to.
REACHABLE: dict[str, tuple[dict[str, str], set[str]]] = {
    "step": (STEP, {BUCKET}),
    "unrelated": ({"app": "unrelated"}, set()),
    "worker": ({"tier": "airflow", "component": "worker"}, {BUCKET, API, KUBERNETES}),
    "scheduler": ({"tier": "airflow", "component": "scheduler"}, {DATABASE, BUCKET, API, KUBERNETES}),
    "dag-processor": ({"tier": "airflow", "component": "dag-processor"}, {DATABASE, BUCKET, SLACK}),
    "migrations": ({"tier": "airflow", "component": "run-airflow-migrations"}, {DATABASE}),
    "invented": ({"tier": "airflow", "component": "invented"}, set()),
}
ACCOUNTS = ("step", "monitor", *(f"airflow-{name}" for name in ("triggerer", "worker", "scheduler", "api-server")))


def test_each_pod_connects_only_to_what_it_needs() -> None:
    reached = find_reachable(DEPLOYMENT, {name: labels for name, (labels, _) in REACHABLE.items()}, ADDRESSES)
    assert reached == {name: addresses for name, (_, addresses) in REACHABLE.items()}


def test_the_namespace_rejects_a_pod_that_is_not_restricted() -> None:
    privileged = {"name": "privileged", "image": container_images.name_of("collector"), "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "privileged"}, "spec": {"containers": [privileged]}}
    with pytest.raises(ToolError, match='violates PodSecurity "restricted'):
        kubectl("create", "--filename", "-", input=json.dumps(pod))


@pytest.mark.parametrize("account", ACCOUNTS)
def test_no_service_account_can_read_secrets_or_exec_in_pods(account: str) -> None:
    assert list_privileges(Account(account, DEPLOYMENT), DEPLOYMENT.namespace) == []


def test_access_reviews_find_the_privileges_of_an_account() -> None:
    # The garbage collector lists every kind of object. Reviews that deny everything would pass the other tests.
    controller = Account("generic-garbage-collector", replace(DEPLOYMENT, namespace="kube-system"))
    assert ("list", "secrets") in list_privileges(controller, DEPLOYMENT.namespace)


@pytest.mark.parametrize("account", ["step", "monitor", "airflow-api-server"])
def test_accounts_that_run_no_pods_cannot_create_any(account: str) -> None:
    option = Account(account, DEPLOYMENT).option
    assert "forbidden" in try_create(DEPLOYMENT, make_pod("created", {}), option, "--dry-run=server")


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
        sources = [variable["valueFrom"] for variable in container["env"] if "valueFrom" in variable]
        assert {source["secretKeyRef"]["name"] for source in sources if "secretKeyRef" in source} == {"bucket"}
        # The pod's own CPU request.
        assert {kind for source in sources for kind in source} == {"secretKeyRef", "resourceFieldRef"}
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
