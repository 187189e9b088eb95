"""Pods that the cluster deletes: evicted by the kubelet, preempted, drained during a training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from airflow_api import Airflow
from step_contract.store import Store

from ..conftest import STEPS, kubectl, pods_now, start, wait_for_end, wait_for_log, wait_until

RUN = "session__2026-01-01"  # no session, and a training day


def millicores(text: str) -> int:
    return int(text[:-1]) if text.endswith("m") else int(float(text) * 1000)


def free_on(node: str) -> int:
    """Return the millicores of `node` that no pod requests."""
    allocatable = millicores(json.loads(kubectl("get", "node", node, "--output=json"))["status"]["allocatable"]["cpu"])
    on_it = ("get", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={node}", "--output=json")
    requested = 0
    for pod in json.loads(kubectl(*on_it))["items"]:
        if pod["status"]["phase"] in ("Pending", "Running"):
            requests = [
                container.get("resources", {}).get("requests", {}).get("cpu", "0") for container in pod["spec"]["containers"]
            ]
            requested += sum(map(millicores, requests))
    return allocatable - requested


def running(dag: str, task: str) -> list[dict[str, Any]]:
    return [pod for pod in pods_now(f"{STEPS},dag_id={dag},task_id={task}") if pod["status"]["phase"] == "Running"]


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
def disruptions(airflow: Airflow, priorities: None) -> None:
    start(airflow, "drill_disruptions", "drill")


def test_a_preempted_step_is_retried(airflow: Airflow) -> None:
    [pod] = wait_until("running", lambda: running("drill_disruptions", "preempted"), 90)
    node, container = pod["spec"]["nodeName"], pod["spec"]["containers"][0]
    important = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "important"},
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
                    "resources": {"requests": {"cpu": f"{free_on(node) + 50}m"}},
                }
            ],
        },
    }
    kubectl("create", "--filename", "-", input=json.dumps(important))
    try:
        wait_until("preempted", lambda: not running("drill_disruptions", "preempted"), 90)
    finally:
        kubectl("delete", "pod", "important", "--grace-period=0", "--force")
    wait_until("success", lambda: airflow.tasks("drill_disruptions", "drill")["preempted"]["state"] == "success", 180)
    assert airflow.tasks("drill_disruptions", "drill")["preempted"]["try_number"] == 2
    log = wait_for_log(airflow, "drill_disruptions", "drill", "preempted", "its pod was evicted", 1)
    assert "preempt" in log


def test_a_step_that_fills_the_disk_fails_with_the_kubelets_message(airflow: Airflow) -> None:
    wait_until("failed", lambda: airflow.tasks("drill_disruptions", "drill")["evicted"]["state"] == "failed", 120)
    wait_for_log(airflow, "drill_disruptions", "drill", "evicted", "Evicted: ")
    assert airflow.tasks("drill_disruptions", "drill")["evicted"]["try_number"] == 1


def test_a_training_whose_node_is_drained_resumes_from_its_checkpoint(airflow: Airflow, bucket: Store) -> None:
    start(airflow, "market_daily", RUN, "2026-01-01T09:00:00Z")
    [pod] = wait_until("training", lambda: running("market_daily", "train"), 120)
    wait_until("a checkpoint", lambda: [name for name in bucket.list("checkpoints") if "session=2026-01-01" in name], 60)
    # `kubectl drain` does the same to each pod of a node.
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    metadata = {"name": name, "namespace": namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    kubectl(
        "create", "--raw", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", "--filename", "-", input=json.dumps(eviction)
    )
    assert wait_for_end(airflow, "market_daily", RUN, 240) == "success"
    assert airflow.tasks("market_daily", RUN)["train"]["try_number"] == 2
    wait_for_log(airflow, "market_daily", RUN, "train", "going on from the checkpoint after", 2)
