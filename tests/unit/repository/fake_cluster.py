"""Programs kubectl, helm, docker and git on a PATH of their own, which answer from a file as those of a cluster would.

The kubectl answers `get` from the objects, `exec` from the reports, and refuses what `forbidden` lists; it keeps the pods that
are created. A test changes `state` and calls `save`.
"""

from __future__ import annotations

import base64
import copy
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from devtools import helm_charts

NAMESPACE = "market-daily-staging"
STEPS = f"{NAMESPACE}-steps"
IMAGE = "registry.example/airflow:1"
KEYS = {
    "airflow-fernet-key": {"fernet-key": base64.urlsafe_b64encode(b"f" * 32).decode()},
    "airflow-jwt-secret": {"jwt-secret": "j" * 64},
    "airflow-api-secret-key": {"api-secret-key": "a" * 64},
    "airflow-admin": {"password": "secret-of-admin"},
    "airflow-monitor": {"password": "secret-of-monitor"},
    "airflow-metadata": {"connection": "postgresql+psycopg2://airflow:s3cret@database:5432/airflow"},
    "bucket": {"AWS_ACCESS_KEY_ID": "key-of-airflow", "AWS_SECRET_ACCESS_KEY": "secret-of-airflow"},
    "slack": {"AIRFLOW_CONN_SLACK_CONN": json.dumps({"conn_type": "slack", "password": "xoxb-1-abc"})},
}
STEP_KEYS = {"bucket-steps": {"AWS_ACCESS_KEY_ID": "key-of-steps", "AWS_SECRET_ACCESS_KEY": "secret-of-steps"}}
HEADS = {"3.2.0": "1d6611b6ab7c", "3.3.0": "d2f4e1b3c5a7"}
COMPONENTS = ("api-server", "dag-processor", "scheduler", "triggerer", "monitor")
MANIFESTS = f"    step_namespace = {STEPS}\n    step_credentials = bucket-steps\n"
OK = {"status": "ok", "advice": "", "where": ""}
STEP_FINDINGS = [
    OK | {"check": "commit", "message": "0123"},
    OK | {"check": "bucket", "message": "written, refused a second time, read and removed"},
]


def make_pod(component: str) -> dict[str, Any]:
    """Return a running pod of a component, with the variables that the chart takes from secrets."""
    references = {
        "AIRFLOW__CORE__FERNET_KEY": ("airflow-fernet-key", "fernet-key"),
        "AIRFLOW__API__SECRET_KEY": ("airflow-api-secret-key", "api-secret-key"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": ("airflow-metadata", "connection"),
    }
    if component in ("scheduler", "api-server"):
        references["AIRFLOW__API_AUTH__JWT_SECRET"] = ("airflow-jwt-secret", "jwt-secret")
    if component == "monitor":
        references = {"AIRFLOW_CONN_SLACK_CONN": ("slack", "AIRFLOW_CONN_SLACK_CONN")}
    env = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for name, (secret, key) in references.items()
    ]
    container = {"name": component, "image": IMAGE, "env": env, "envFrom": [{"secretRef": {"name": "bucket"}}]}
    labels = {"app.kubernetes.io/name": "monitor"} if component == "monitor" else {"tier": "airflow", "component": component}
    status = {"name": component, "image": IMAGE, "ready": True, "restartCount": 0, "state": {"running": {}}}
    return {
        "metadata": {"name": f"airflow-{component}-1", "labels": labels},
        "spec": {"containers": [container]},
        "status": {"phase": "Running", "containerStatuses": [status], "conditions": []},
    }


def make_deployment(component: str) -> dict[str, Any]:
    """Return the deployment of a component, with one pod."""
    return {
        "kind": "Deployment",
        "metadata": {"name": f"airflow-{component}"},
        "spec": {"replicas": 1, "selector": {"matchLabels": make_pod(component)["metadata"]["labels"]}},
        "status": {"availableReplicas": 1},
    }


def make_step_pod(program: str) -> dict[str, Any]:
    """Return the pod that the DAG processor makes for a program."""
    metadata = {"name": "check", "namespace": STEPS, "labels": {"app.kubernetes.io/name": program}}
    return {
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "base", "image": f"registry.example/{program}:1"}]},
    }


def make_node(name: str, architecture: str = "amd64") -> dict[str, Any]:
    """Return a node that is ready."""
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/arch": architecture}},
        "spec": {},
        "status": {
            "nodeInfo": {"architecture": architecture},
            "conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
        },
    }


def make_lease(name: str, age: float = 3.0) -> dict[str, Any]:
    """Return the lease that a kubelet renewed `age` seconds ago."""
    time = datetime.now(UTC) - timedelta(seconds=age)
    return {"metadata": {"name": name}, "spec": {"renewTime": f"{time:%Y-%m-%dT%H:%M:%S.%fZ}"}}


def make_state() -> dict[str, Any]:
    """Return the state of a healthy deployment."""
    chart = {"airflow": f"airflow-{helm_charts.chart_version()}", "namespace-policies": "namespace-policies-1"}
    history = {
        release: [
            {
                "revision": 3,
                "status": "deployed",
                "chart": chart[release],
                "description": "commit 0123",
                "updated": "2026-01-15T09:00:00.123456789Z",
            }
        ]
        for release in helm_charts.RELEASES
    }
    settings = {"trainer_node_selector": "kubernetes.io/arch=amd64"}
    settings |= {f"{program}_image": f"registry.example/{program}:1" for program in ("collector", "trainer")}
    quota = {"metadata": {"name": "steps"}, "status": {"hard": {"pods": "8"}, "used": {"pods": "1"}}}
    report = {"commit": "0123", "airflow_version": "3.3.2"}
    finished = {"phase": "Succeeded", "containerStatuses": [{"name": "base", "state": {"terminated": {"exitCode": 0}}}]}
    values_in_pods = {
        "AIRFLOW__CORE__FERNET_KEY": KEYS["airflow-fernet-key"]["fernet-key"],
        "AIRFLOW__API__SECRET_KEY": KEYS["airflow-api-secret-key"]["api-secret-key"],
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": KEYS["airflow-metadata"]["connection"],
        "AIRFLOW__API_AUTH__JWT_SECRET": KEYS["airflow-jwt-secret"]["jwt-secret"],
        **KEYS["slack"],
        **KEYS["bucket"],
    }
    pods = {"pods": {program: make_step_pod(program) for program in ("collector", "trainer")}}
    return {
        "hang": 0,
        "unreachable": False,
        "server_minor": "34",
        "forbidden": [],
        "quota_exceeded": False,
        "releases": history,
        "values": {
            "airflowVersion": "3.3.2",
            "images": {"airflow": {"repository": "registry.example/airflow", "tag": "1", "digest": None}},
            "config": {"market_daily": settings},
        },
        "manifests": MANIFESTS,
        "secrets": copy.deepcopy({NAMESPACE: KEYS, STEPS: STEP_KEYS}),
        "values_in_pods": values_in_pods,
        "values_by_pod": {},
        "clock_skew": {},
        "reports": {component: copy.deepcopy(report | pods) for component in COMPONENTS},
        "database": {"revision": HEADS["3.3.0"], "heads": HEADS},
        "slack": OK | {"check": "slack", "message": "connected"},
        "step_status": dict.fromkeys(("collector", "trainer"), finished),
        "step_log": {program: "\n".join(map(json.dumps, STEP_FINDINGS)) for program in ("collector", "trainer")},
        "objects": {
            NAMESPACE: {
                "pods": [make_pod(component) for component in COMPONENTS],
                "deployments.apps,statefulsets.apps": [make_deployment(component) for component in COMPONENTS],
                "nodes": [make_node("node-1"), make_node("node-2", "arm64")],
                "persistentvolumeclaims": [],
                "resourcequotas": [],
            },
            STEPS: {"pods": [], "resourcequotas": [quota]},
            "kube-node-lease": {"leases": [make_lease("node-1"), make_lease("node-2")]},
        },
    }


class FakeCluster:
    """The programs in `folder`, and their state."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, make_state()
        (folder / "pods").mkdir()
        (folder / "calls").touch()
        program = Path(__file__).with_name("fake_cluster_programs.py").read_text()
        for name in ("kubectl", "helm", "docker", "git"):
            (folder / name).write_text(f"#!{sys.executable} -IS\n{program}")
            (folder / name).chmod(0o755)
        self.save()

    @property
    def objects(self) -> dict[str, list[dict[str, Any]]]:
        """The objects of Airflow's namespace by resource."""
        objects: dict[str, list[dict[str, Any]]] = self.state["objects"][NAMESPACE]
        return objects

    def pod(self, component: str) -> dict[str, Any]:
        """Return the pod of a component, to change it."""
        return self.objects["pods"][COMPONENTS.index(component)]

    def save(self) -> None:
        """Let the programs answer from the state as it is now."""
        (self.folder / "state.json").write_text(json.dumps(self.state))

    def read_calls(self) -> str:
        """Return the commands that were run."""
        return (self.folder / "calls").read_text()

    def list_created_pods(self) -> list[str]:
        """Return the names of the created pods that still exist."""
        return sorted(file.stem for file in (self.folder / "pods").iterdir())
