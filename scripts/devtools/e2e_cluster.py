"""A kind cluster of their own for the cluster tests and the benchmark, which delete pods, stop nodes and remove deployments."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from devtools import container_images
from devtools.commands import ROOT, ToolError, progress, require_programs, run
from devtools.deployment import Deployment
from devtools.kind_cluster import DEVELOPMENT_CLUSTER, KindCluster

E2E_UI_PORT = "8091"


def keep_cluster() -> bool:
    """Return whether KEEP is set: the cluster is left running, and an existing one is reused."""
    return bool(os.environ.get("KEEP"))


def build_airflow_image() -> str:
    """Build the Airflow image with the tests' DAGs; return its name."""
    base = container_images.build_image("airflow")
    name = base.replace("/airflow:", "/airflow-e2e:")
    command = ["docker", "build", "--file", "tests/e2e/Dockerfile", "--build-arg", f"AIRFLOW_IMAGE={base}", "--tag", name, "."]
    run(command, timeout=300, env={"DOCKER_BUILDKIT": "1"})
    return name


def list_namespaces(cluster: KindCluster) -> list[str]:
    """Return the namespaces that a deployment or a test has created in the cluster."""
    command = ("get", "namespaces", "--selector=app.kubernetes.io/part-of=market-daily")
    return cluster.deployment.kubectl(*command, "--output=jsonpath={.items[*].metadata.name}").split()


def reset(cluster: KindCluster) -> None:
    """Delete the cluster, or with KEEP only its deployments, so that no DAG run exists."""
    if not keep_cluster():
        cluster.delete()
    elif cluster.exists():
        cluster.wait_for_nodes()
        if namespaces := list_namespaces(cluster):
            with progress(f"Deleting namespaces {', '.join(namespaces)}"):
                cluster.deployment.kubectl("delete", "namespaces", *namespaces, timeout=300)


def save_diagnostics(cluster: KindCluster) -> Path:
    """Write the pods, events and logs of every namespace into a folder below .run/; return the folder."""
    folder = ROOT / ".run" / f"e2e-{datetime.now():%Y%m%dT%H%M%S}"  # noqa: DTZ005 the user's time zone
    for namespace in list_namespaces(cluster):
        _save_diagnostics(Deployment(cluster.deployment.context, namespace, "kind"), folder / namespace)
    return folder


def _save_diagnostics(deployment: Deployment, folder: Path) -> None:
    folder.mkdir(parents=True)
    commands: dict[str, tuple[str, ...]] = {
        "pods.txt": ("get", "pods", "--output=wide"),
        "pods.yaml": ("get", "pods", "--output=yaml"),
        "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
        "describe.txt": ("describe", "pods"),
    }
    for name, command in commands.items():
        (folder / name).write_text(deployment.kubectl(*command))
    for pod in json.loads(deployment.kubectl("get", "pods", "--output=json"))["items"]:
        name = pod["metadata"]["name"]
        for options in ((), ("--previous",)):
            try:
                log = deployment.kubectl("logs", name, "--all-containers", *options)
                (folder / f"{name}{''.join(options)}.log").write_text(log)
            except ToolError:
                continue


@contextmanager
def run_cluster(cluster: KindCluster, helm_options: Sequence[str] = ()) -> Iterator[None]:
    """Deploy the pipeline with the tests' DAGs to a fresh cluster while the block runs.

    If the block fails, diagnostics are saved. The cluster is deleted afterwards, unless KEEP is set.

    Args:
        helm_options: further options of helm.

    Raises:
        ToolError: `cluster` is the one of make kind-up.
    """
    require_programs("docker", "kind", "helm", "kubectl", "git")
    if cluster.name == DEVELOPMENT_CLUSTER:
        raise ToolError(
            f"{DEVELOPMENT_CLUSTER} is the cluster of make kind-up, and this deletes all deployments: set E2E_CLUSTER or "
            "BENCH_CLUSTER to another name"
        )
    container_images.pin_commit()
    container_images.set_name("airflow", build_airflow_image())
    try:
        reset(cluster)
        # Without a connection to Slack: messages of the drills go to the simulator, even if SLACK_TOKEN is set.
        cluster.deploy(helm_options=helm_options)
        yield
    except BaseException:
        try:
            print(f"Diagnostics saved to {save_diagnostics(cluster)}", file=sys.stderr)
        except ToolError as error:
            print(f"Cannot save diagnostics: {error}", file=sys.stderr)
        raise
    finally:
        if not keep_cluster():
            with progress(f"Deleting cluster {cluster.name}"):
                cluster.delete()
