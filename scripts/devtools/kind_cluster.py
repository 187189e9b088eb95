"""A kind cluster with the whole pipeline: Airflow, a database, a bucket and the Slack simulator."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta

from devtools import container_images, dag_runs, slack_connection
from devtools.airflow_client import AirflowClient
from devtools.commands import ROOT, ToolError, progress, require_programs, run
from devtools.deployment import Deployment

DEVELOPMENT_CLUSTER = "market-daily"  # the cluster of make kind-up
DEFAULT_SESSION = "2026-01-15"
HISTORY_YEARS = 5
MANIFESTS = ("postgres.yaml", "bucket.yaml", "slack.yaml")
NODE_TIMEOUT_SECONDS = 120


def find_images(manifests: Sequence[str]) -> list[str]:
    """Return the images of the containers in the manifests."""
    return [image for manifest in manifests for image in re.findall(r"^ *image: (\S+)$", manifest, re.MULTILINE)]


@dataclass
class KindCluster:
    """A kind cluster.

    Attributes:
        name: the name that kind knows it by.
        ui_port: the local port of Airflow's UI and API.
        slack_port: the local port of the Slack simulator's page; by default the one after `ui_port`.
    """

    name: str = DEVELOPMENT_CLUSTER
    ui_port: str = "8080"
    slack_port: str = ""

    def __post_init__(self) -> None:
        self.slack_port = self.slack_port or str(int(self.ui_port) + 1)

    @classmethod
    def from_environment(cls) -> KindCluster:
        """Return the cluster that CLUSTER, UI_PORT and SLACK_PORT describe."""
        name, ui_port = os.environ.get("CLUSTER") or cls.name, os.environ.get("UI_PORT") or cls.ui_port
        return cls(name, ui_port, os.environ.get("SLACK_PORT") or "")

    @property
    def deployment(self) -> Deployment:
        """The deployment of the environment kind."""
        return Deployment(f"kind-{self.name}", "airflow", "kind")

    @property
    def airflow(self) -> AirflowClient:
        """A client of Airflow's API, as admin."""
        return AirflowClient(f"http://127.0.0.1:{self.ui_port}", "admin", "admin")

    def exists(self) -> bool:
        """Return whether kind has a cluster of this name."""
        return self.name in run(["kind", "get", "clusters"], timeout=60).split()

    def create(self) -> None:
        """Create the cluster unless it exists, and wait until its nodes are ready."""
        if not self.exists():
            config = (ROOT / "kind-config.yaml").read_text().replace("hostPort: 8080", f"hostPort: {self.ui_port}")
            config = config.replace("hostPort: 8081", f"hostPort: {self.slack_port}")
            node_image = os.environ.get("KIND_NODE_IMAGE")
            command = ["kind", "create", "cluster", "--name", self.name, "--config", "-", "--wait", "120s"]
            with progress(f"Creating cluster {self.name}"):
                run([*command, *(["--image", node_image] if node_image else [])], timeout=600, input=config)
        self.wait_for_nodes()

    def delete(self) -> None:
        """Delete the cluster; does nothing if it does not exist."""
        run(["kind", "delete", "cluster", "--name", self.name], timeout=120)

    def wait_for_nodes(self) -> None:
        """Wait until all nodes are ready.

        A cluster that restarts, for example after Docker did, first refuses connections, then, until it has loaded its roles,
        the administrator's requests: kubectl is repeated.

        Raises:
            ToolError: the nodes are not ready after two minutes.
        """
        deadline = time.monotonic() + NODE_TIMEOUT_SECONDS
        while True:
            try:
                self.deployment.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s", timeout=70)
                return
            except ToolError as error:
                if time.monotonic() > deadline:
                    raise ToolError(
                        f"cluster {self.name} is not ready: delete it with make kind-down, then run make kind-up\n{error}"
                    ) from error
                time.sleep(1)

    def list_worker_nodes(self) -> list[str]:
        """Return the nodes that run pods."""
        nodes = run(["kind", "get", "nodes", "--name", self.name], timeout=60).split()
        return [node for node in nodes if "control-plane" not in node] or nodes

    def load_images(self, names: Sequence[str]) -> None:
        """Load the local images among `names` into the nodes that lack them; the nodes pull the others."""
        if local := [name for name in names if container_images.find_id(name)]:
            nodes = ",".join(self.list_worker_nodes())
            with progress(f"Loading images {', '.join(local)}"):
                run(["kind", "load", "docker-image", *local, "--name", self.name, "--nodes", nodes], timeout=900)

    def trainer_options(self) -> list[str]:
        """Return helm's options for the node selector that lets the trainer's image run on this machine.

        Raises:
            ToolError: no node can run it; the message says what to do.
        """
        selector = "config.market_daily.trainer_node_selector="
        if os.environ.get("TRAINER_PLATFORM"):
            architecture = container_images.TRAINER_PLATFORM.removeprefix("linux/")
            return ["--set-string", f"{selector}kubernetes.io/arch={architecture}"]
        jsonpath = "jsonpath={.items[*].status.nodeInfo.architecture}"
        if "amd64" in self.deployment.kubectl("get", "nodes", "--output", jsonpath).split():
            return []
        try:
            image = container_images.name_of("collector")
            run(["docker", "run", "--rm", "--platform", "linux/amd64", image, "--help"], timeout=120)
        except ToolError as error:
            raise ToolError(
                f"this machine is {platform.machine()} and cannot run amd64 containers; the trainer's image needs them: enable "
                "emulation (Docker Desktop: Settings, General, Rosetta; Linux: docker run --privileged tonistiigi/binfmt "
                "--install amd64), or train natively, which may crash, with TRAINER_PLATFORM=linux/arm64 make kind-up"
            ) from error
        print("No node is amd64; the trainer's container runs emulated, which is slow.")
        return ["--set-string", selector]

    def read_manifests(self, names: Sequence[str] = MANIFESTS) -> list[str]:
        """Return the manifests of the database, the bucket and the Slack simulator, with the name of the simulator's image."""
        image = container_images.name_of("slack-simulator")
        manifests = [(ROOT / "dev" / "manifests" / name).read_text() for name in names]
        return [manifest.replace("market-daily/slack-simulator", image) for manifest in manifests]

    def deploy(self, session: str = DEFAULT_SESSION, connection: str = "", helm_options: Sequence[str] = ()) -> None:
        """Create the cluster, build the images, install or upgrade everything, and run the DAG once for `session`.

        Args:
            session: a date, YYYY-MM-DD.
            connection: the Airflow connection to Slack; the simulator's by default.
            helm_options: further options of helm.
        """
        require_programs("docker", "kind", "helm", "kubectl", "git")
        started = time.monotonic()
        container_images.pin_commit()
        deployment, airflow = self.deployment, self.airflow
        with ThreadPoolExecutor() as pool:
            cluster = pool.submit(self.create)
            built = {image: container_images.build_image(image) for image in container_images.ALL_IMAGES}
            cluster.result()
            trainer_options = self.trainer_options()
            manifests = self.read_manifests()
            # Side by side: unpacking an image takes one CPU. The database starts meanwhile.
            loading = [pool.submit(self.load_images, [built["airflow"]])]
            loading += [pool.submit(self.load_images, [built[program] for program in container_images.PROGRAMS])]
            self.load_images(find_images(manifests))
            ui_url = f"config.market_daily.ui_url=http://localhost:{self.ui_port}"
            options = [*trainer_options, "--set-string", ui_url, *helm_options]
            with progress("Deploying database, bucket and Slack simulator"):
                replaced = deployment.prepare_namespaces(deployment.render(options), manifests, connection)
            for images in loading:
                images.result()
            deployment.upgrade(options)
            if replaced:  # pods read a secret only when they start
                deployment.kubectl("rollout", "restart", "deployment", "monitor", "airflow-dag-processor")
        day = date.fromisoformat(session)
        history = {"from": f"{day.year - HISTORY_YEARS}-01-01", "to": (day - timedelta(days=1)).isoformat()}
        dag_runs.unpause_parsed_dag(deployment, airflow, "market_history")
        dag_runs.run_dag(airflow, "market_history", f"history__{history['from']}__{history['to']}", None, history)
        dag_runs.unpause_parsed_dag(deployment, airflow, "market_daily")
        dag_runs.run_dag(airflow, "market_daily", f"session__{session}", f"{session}T09:00:00Z", {})
        print(f"\nReady after {time.monotonic() - started:.0f} s.\n{self.describe_urls()}")

    def describe_urls(self) -> str:
        """Return the URLs of the UI and of the Slack messages, one per line."""
        connection = self.deployment.read_secret("slack")["AIRFLOW_CONN_SLACK_CONN"]
        is_simulator = slack_connection.SIMULATOR_URL in connection
        slack = f"http://localhost:{self.slack_port} (simulator)" if is_simulator else "in your workspace"
        return f"Airflow: http://localhost:{self.ui_port} (user admin, password admin)\nSlack: {slack}"

    def print_status(self) -> None:
        """Print the pods, the state of those that are not healthy, and the URLs. Raises ToolError if there is no cluster."""
        if not self.exists():
            raise ToolError(f"cluster {self.name} does not exist: create it with make kind-up")
        print(self.deployment.kubectl("get", "pods", "--output=wide"))
        print(self.deployment.describe_unhealthy_pods())
        print(self.describe_urls())
