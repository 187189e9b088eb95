"""`make doctor` on the cluster: all lines ok, then several things broken at once, each with its line."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from devtools.commands import ROOT

from ..conftest import CLUSTER, kubectl, wait_until

PROGRAM = str(ROOT / "scripts" / "doctor.py")
# Lines about the machine that runs the tests.
OF_THIS_MACHINE = ("disk",)
CHECKS = {
    *("programs", "python", "cluster", "releases", "permissions", "components", "nodes", "trainer-node", "clock", "quota"),
    *(
        "volumes",
        "images",
        "image-architectures",
        "secrets",
        "secrets-in-pods",
        "bucket",
        "database",
        "heartbeats",
        "triggerer",
    ),
    *(
        "dags",
        "slack",
        "versions",
        "migrations",
        "image-commits",
        "step-pod",
        "platform",
        "calendar",
        "prices",
        "feeds",
        "torch",
    ),
}


def run_doctor() -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the findings."""
    environment = os.environ | {"CLUSTER": CLUSTER.name, "UI_PORT": CLUSTER.ui_port}
    command = [sys.executable, PROGRAM, "kind", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    report = json.loads(done.stdout)
    print(f"{report['seconds']} s\n{done.stdout}")
    return done.returncode, report["findings"]


def list_doctor_pods() -> list[str]:
    return kubectl("get", "pods", "--selector=market-daily/doctor", "--output=jsonpath={.items[*].metadata.name}").split()


def read_jwt_secret() -> str:
    return kubectl("get", "secret", "airflow-jwt-secret", "--output=jsonpath={.data.jwt-secret}")


def write_jwt_secret(value: str) -> None:
    kubectl("patch", "secret", "airflow-jwt-secret", "--patch", json.dumps({"data": {"jwt-secret": value}}))


def list_ready() -> list[str]:
    """Return the deployments and stateful sets that have all their pods."""
    items = json.loads(kubectl("get", "deployments,statefulsets", "--output=json"))["items"]
    return [
        item["metadata"]["name"]
        for item in items
        if item["status"].get("readyReplicas", 0) == item["spec"]["replicas"] == item["status"].get("updatedReplicas", 0)
    ]


def wait_until_ready() -> None:
    names = kubectl("get", "deployments,statefulsets", "--output=jsonpath={.items[*].metadata.name}").split()
    wait_until("all deployments", lambda: set(list_ready()) == set(names), 180)


@pytest.fixture
def broken() -> Iterator[None]:
    """No triggerer, no bucket, a monitor with an image that does not exist, a secret that changed after the pods started."""
    secret = read_jwt_secret()
    try:
        kubectl("scale", "deployment", "airflow-triggerer", "--replicas=0")
        bucket = kubectl("get", "deployments,statefulsets", "--output=name").split()
        [bucket_name] = [name for name in bucket if name.endswith("/bucket")]
        kubectl("scale", bucket_name, "--replicas=0")
        kubectl("set", "image", "deployment/monitor", "monitor=market-daily/airflow:no-such-tag")
        write_jwt_secret(base64.b64encode(b"changed-after-the-pods-have-started-0123456789").decode())
        selector = "--selector=component=triggerer"
        wait_until("the triggerer's end", lambda: not kubectl("get", "pods", selector, "--output=name"), 90)
        wait_until("the bucket's end", lambda: not kubectl("get", "pods", "-lapp.kubernetes.io/name=bucket", "-oname"), 90)
        wait_until(
            "the failed pull",
            lambda: "ImagePullBackOff" in kubectl("get", "pods") or "ErrImagePull" in kubectl("get", "pods"),
            60,
        )
        yield
    finally:
        write_jwt_secret(secret)
        kubectl("rollout", "undo", "deployment/monitor")
        kubectl("scale", bucket_name, "--replicas=1")
        kubectl("scale", "deployment", "airflow-triggerer", "--replicas=1")
        wait_until_ready()


def test_a_healthy_deployment_has_only_ok_lines_and_no_pod_is_left() -> None:
    wait_until_ready()
    code, findings = run_doctor()
    bad = [finding for finding in findings if finding["status"] != "ok" and finding["check"] not in OF_THIS_MACHINE]
    assert bad == []
    assert code == 0
    assert CHECKS - {finding["check"] for finding in findings} == set()
    places = {finding["where"] for finding in findings if finding["check"] == "bucket"}
    assert places >= {"scheduler", "monitor", "collector", "trainer"} or "scheduler" in "".join(places)
    wait_until("the deletion of its pods", lambda: not list_doctor_pods(), 30)


def test_each_broken_thing_has_its_line_and_hides_no_other(broken: None) -> None:
    code, findings = run_doctor()
    errors = {(finding["check"], finding["where"]): finding for finding in findings if finding["status"] == "error"}
    assert code == 1
    assert (
        ("components", "airflow-triggerer") in errors
        and ("heartbeats", "triggerer") in errors
        and ("triggerer", "scheduler") in errors
    )
    assert ("components", "bucket") in errors
    stale = [finding for (check, _), finding in errors.items() if check == "secrets-in-pods"]
    assert len(stale) == 1 and "airflow-jwt-secret" in stale[0]["message"]
    assert "airflow-scheduler" in stale[0]["message"] and "airflow-api-server" in stale[0]["message"]
    assert [where for check, where in errors if check == "bucket" and "scheduler" in where]
    assert ("bucket", "collector") in errors and ("bucket", "trainer") in errors
    assert [where for check, where in errors if check == "images" and where.startswith("monitor")]
    assert all(finding["advice"] for finding in errors.values())
    fine = {finding["check"] for finding in findings if finding["status"] == "ok"}
    assert fine >= {"cluster", "releases", "database", "migrations", "dags", "prices", "feeds", "calendar", "torch"}
    assert not any("changed-after-the-pods" in json.dumps(finding) for finding in findings)
    wait_until("the deletion of its pods", lambda: not list_doctor_pods(), 30)
