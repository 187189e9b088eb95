"""A cluster on this machine with all of it: up, down and status.

python scripts/kind.py up        # CLUSTER, UI_PORT, SESSION, HISTORY_FROM; see the README
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

from devtools import container_images, slack_connection
from devtools.airflow_client import AirflowClient
from devtools.commands import ROOT, ToolError, fail, need, progress, run
from devtools.dag_runs import follow, wait_for_dags
from devtools.deployment import Deployment

CLUSTER = os.environ.get("CLUSTER") or "market-daily"
UI_PORT = os.environ.get("UI_PORT") or "8080"
SESSION = os.environ.get("SESSION") or "2026-01-15"
HISTORY_YEARS = 5
NAMESPACE = "airflow"
DEPLOYMENT = Deployment(f"kind-{CLUSTER}", NAMESPACE, "kind")
MANIFESTS = ("postgres.yaml", "bucket.yaml", "slack.yaml")
SLACK_PORT = os.environ.get("SLACK_PORT") or str(int(UI_PORT) + 1)
OTHERS = ("postgres:17", "versity/versitygw:v1.8.0")


def create() -> None:
    """Makes the cluster unless it is there, and waits until it answers."""
    if CLUSTER not in run(["kind", "get", "clusters"], seconds=60).split():
        config = (ROOT / "kind-config.yaml").read_text().replace("hostPort: 8080", f"hostPort: {UI_PORT}")
        config = config.replace("hostPort: 8081", f"hostPort: {SLACK_PORT}")
        node = os.environ.get("KIND_NODE_IMAGE")
        command = ["kind", "create", "cluster", "--name", CLUSTER, "--config", "-", "--wait", "120s"]
        with progress(f"cluster {CLUSTER}"):
            run([*command, *(["--image", node] if node else [])], seconds=600, input=config)
    wait_for_nodes()


def wait_for_nodes() -> None:
    """Waits until every node is ready; raises ToolError with kubectl's words where that takes longer than two minutes.

    A cluster that is starting again, as after the machine or Docker did, refuses connections first and then, while it has not
    read its own roles, its administrator.
    """
    until = time.monotonic() + 120
    while True:
        try:
            DEPLOYMENT.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s", seconds=70)
            return
        except ToolError as error:
            if time.monotonic() > until:
                raise ToolError(f"cluster {CLUSTER} does not answer: make kind-down, then make kind-up\n{error}") from error
            time.sleep(1)


def workers() -> list[str]:
    """The nodes that run pods."""
    nodes = run(["kind", "get", "nodes", "--name", CLUSTER], seconds=60).split()
    return [node for node in nodes if "control-plane" not in node] or nodes


def load(names: list[str]) -> None:
    """Brings the images that this machine has to the nodes that lack them; the others are pulled."""
    if here := [name for name in names if container_images.id_of(name)]:
        with progress(f"images to the nodes: {', '.join(here)}"):  # kind passes over what a node has
            run(["kind", "load", "docker-image", *here, "--name", CLUSTER, "--nodes", ",".join(workers())], seconds=900)


def trainer_selector() -> list[str]:
    """helm's options that let the trainer's amd64 image run here; raises ToolError, saying what to do, where it cannot."""
    if os.environ.get("TRAINER_PLATFORM"):
        return [
            "--set-string",
            f"config.market_daily.trainer_node_selector=kubernetes.io/arch={container_images.TRAINER_PLATFORM[6:]}",
        ]
    jsonpath = "jsonpath={.items[*].status.nodeInfo.architecture}"
    if "amd64" in run(["kubectl", "--context", DEPLOYMENT.context, "get", "nodes", "--output", jsonpath], seconds=60).split():
        return []
    try:
        run(
            ["docker", "run", "--rm", "--platform", "linux/amd64", container_images.name_of("collector"), "--help"], seconds=120
        )
    except ToolError as error:
        raise ToolError(
            f"this machine is {platform.machine()} and runs no amd64 containers, and the trainer's image is one: switch on "
            "emulation (Docker Desktop: Settings, General, Rosetta; Linux: docker run --privileged tonistiigi/binfmt --install "
            "amd64), or train natively, at your own risk, with TRAINER_PLATFORM=linux/arm64 make kind-up"
        ) from error
    print("no node is amd64, but amd64 containers are emulated here: the trainer runs emulated, and slowly")
    return ["--set-string", "config.market_daily.trainer_node_selector="]


def manifests(names: Sequence[str] = MANIFESTS) -> list[str]:
    """What an environment brings elsewhere, as YAML: database, bucket, and a stand-in for Slack."""
    here = {"market-daily/slack": container_images.name_of("slack"), "http://localhost:8081": f"http://localhost:{SLACK_PORT}"}
    texts = [(ROOT / "manifests" / name).read_text() for name in names]
    for written, value in here.items():
        texts = [text.replace(written, value) for text in texts]
    return texts


def api() -> AirflowClient:
    """Airflow's API on the cluster."""
    return AirflowClient(f"http://127.0.0.1:{UI_PORT}", "admin", "admin")


def up(more: Sequence[str] = ()) -> None:
    """Makes everything, upgrades what changed, and runs the DAG once for SESSION. `more` are helm's options."""
    need("docker", "kind", "helm", "kubectl", "git")
    started = time.monotonic()
    os.environ["COMMIT"] = container_images.commit()  # of the tree as it is now, whatever is edited while this runs
    with ThreadPoolExecutor() as pool:
        cluster = pool.submit(create)
        built = {image: container_images.build(image) for image in ("slack", *container_images.IMAGES)}
        cluster.result()
        selector = trainer_selector()
        load([*OTHERS, built["slack"], built["airflow"]])
        loaded = pool.submit(
            load, [built[program] for program in container_images.PROGRAMS]
        )  # no step runs before Airflow does
        with progress("database, bucket and a stand-in for Slack"):
            another_slack = DEPLOYMENT.prepare(manifests(), slack=slack_connection.given())
        DEPLOYMENT.upgrade([*selector, "--set-string", f"config.market_daily.ui_url=http://localhost:{UI_PORT}", *more])
        if another_slack:  # a pod knows a secret as it was when it started
            DEPLOYMENT.kubectl("rollout", "restart", "deployment", "watcher", "airflow-dag-processor")
        loaded.result()
    airflow = api()
    day = date.fromisoformat(SESSION)
    history = {"from": f"{day.year - HISTORY_YEARS}-01-01", "to": (day - timedelta(days=1)).isoformat()}
    wait_for_dags(DEPLOYMENT, airflow, "market_history")
    follow(airflow, "market_history", f"history__{history['from']}__{history['to']}", None, history)
    wait_for_dags(DEPLOYMENT, airflow, "market_daily")
    follow(airflow, "market_daily", f"session__{SESSION}", f"{SESSION}T09:00:00Z", {})
    print(f"\nready after {time.monotonic() - started:.0f} s: {addresses()}")


def addresses() -> str:
    """Where the UI is, and where to read what Slack was told."""
    is_stand_in = "//slack:8081" in DEPLOYMENT.secret("slack")["AIRFLOW_CONN_SLACK_CONN"]
    read = f"http://localhost:{SLACK_PORT}" if is_stand_in else "Slack"
    return f"http://localhost:{UI_PORT} (user admin, password admin); what Slack was told: {read}"


def down() -> None:
    """Deletes the cluster and all that is in it."""
    need("docker", "kind")
    run(["kind", "delete", "cluster", "--name", CLUSTER], seconds=120)


def status() -> None:
    """Tells what runs, and what is wrong with what does not."""
    need("docker", "kind", "kubectl")
    if CLUSTER not in run(["kind", "get", "clusters"], seconds=60).split():
        raise ToolError(f"there is no cluster {CLUSTER}: make kind-up")
    print(DEPLOYMENT.kubectl("get", "pods", "--output=wide"))
    print(DEPLOYMENT.unhealthy())
    print(addresses())


def main(what: str) -> int:
    """Does what is asked for; returns the exit code."""
    try:
        {"up": up, "down": down, "status": status}[what]()
    except ToolError as error:
        return fail(error)
    return 0
