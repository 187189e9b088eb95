"""Pods that the cluster removes: preempted, evicted by the kubelet, drained during a training."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from devtools.airflow_client import AirflowClient
from step_contract.store import Store

from ..conftest import STEP_SELECTOR, kubectl, list_running_pods, start_run, wait_for_log, wait_for_run, wait_until

RUN_ID = "session__2026-01-01"  # no session, and a training day
PREEMPTED = f"{STEP_SELECTOR},dag_id=drill_disruptions,task_id=preempted"


def parse_millicores(text: str) -> int:
    return int(text[:-1]) if text.endswith("m") else int(float(text) * 1000)


def get_free_millicores(node: str) -> int:
    """Return the CPU of `node`, in millicores, that no pod requests."""
    allocatable = parse_millicores(json.loads(kubectl("get", "node", node, "--output=json"))["status"]["allocatable"]["cpu"])
    pods = ("get", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={node}", "--output=json")
    requested = 0
    for pod in json.loads(kubectl(*pods))["items"]:
        if pod["status"]["phase"] in ("Pending", "Running"):
            requests = [
                container.get("resources", {}).get("requests", {}).get("cpu", "0") for container in pod["spec"]["containers"]
            ]
            requested += sum(map(parse_millicores, requests))
    return allocatable - requested


@pytest.fixture(scope="module")
def priorities() -> Iterator[None]:
    for name, value in (("drill-low", -1000), ("drill-high", 1000)):
        priority_class = {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
        }
        kubectl("apply", "--filename", "-", input=json.dumps(priority_class))
    yield
    kubectl("delete", "priorityclass", "drill-low", "drill-high")


@pytest.fixture(scope="module", autouse=True)
def run(airflow: AirflowClient, priorities: None) -> None:
    start_run(airflow, "drill_disruptions", "drill")


def test_a_preempted_step_is_retried(airflow: AirflowClient) -> None:
    [pod] = wait_until("the running pod", lambda: list_running_pods(PREEMPTED), 90)
    node, container = pod["spec"]["nodeName"], pod["spec"]["containers"][0]
    preemptor = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "preemptor"},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "priorityClassName": "drill-high",
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": pod["spec"]["securityContext"],
            "containers": [
                {
                    "name": "base",
                    "image": container["image"],
                    "command": ["sleep", "600"],
                    "securityContext": container["securityContext"],
                    "resources": {"requests": {"cpu": f"{get_free_millicores(node) + 50}m"}},
                }
            ],
        },
    }
    kubectl("create", "--filename", "-", input=json.dumps(preemptor))
    try:
        wait_until("its preemption", lambda: not list_running_pods(PREEMPTED), 90)
    finally:
        kubectl("delete", "pod", "preemptor", "--grace-period=0", "--force")
    wait_until(
        "its success", lambda: airflow.get_task_instances("drill_disruptions", "drill")["preempted"]["state"] == "success", 180
    )
    assert airflow.get_task_instances("drill_disruptions", "drill")["preempted"]["try_number"] == 2
    log = wait_for_log(airflow, "drill_disruptions", "drill", "preempted", "its pod was evicted", 1)
    assert "preempt" in log


def test_an_evicted_step_logs_the_kubelets_message(airflow: AirflowClient) -> None:
    wait_until(
        "its failure", lambda: airflow.get_task_instances("drill_disruptions", "drill")["evicted"]["state"] == "failed", 120
    )
    wait_for_log(airflow, "drill_disruptions", "drill", "evicted", "Evicted: ")
    assert airflow.get_task_instances("drill_disruptions", "drill")["evicted"]["try_number"] == 1


def test_a_drained_training_resumes_from_its_checkpoint(airflow: AirflowClient, bucket: Store) -> None:
    start_run(airflow, "market_daily", RUN_ID, "2026-01-01T09:00:00Z")
    [pod] = wait_until("the training", lambda: list_running_pods(f"{STEP_SELECTOR},dag_id=market_daily,task_id=train"), 120)
    wait_until("a checkpoint", lambda: [name for name in bucket.list("checkpoints") if "session=2026-01-01" in name], 60)
    # What `kubectl drain` does to each pod of a node.
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    metadata = {"name": name, "namespace": namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    kubectl(
        "create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", "--filename", "-", input=json.dumps(eviction)
    )
    assert wait_for_run(airflow, "market_daily", RUN_ID, 240) == "success"
    assert airflow.get_task_instances("market_daily", RUN_ID)["train"]["try_number"] == 2
    wait_for_log(airflow, "market_daily", RUN_ID, "train", "Resuming from the checkpoint at step", 2)
