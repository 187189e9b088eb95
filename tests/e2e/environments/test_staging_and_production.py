"""Staging and production by `make deploy`, with database, bucket and source of prices in another namespace."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from botocore.config import Config
from botocore.session import get_session
from devtools import bucket_policy, container_images, kubernetes_secrets
from devtools.airflow_client import AirflowClient
from devtools.commands import ROOT, run
from devtools.container_images import name_of, variable_of
from devtools.dag_runs import unpause_parsed_dag
from devtools.deployment import Deployment

from ..access import Account, find_reachable, is_permitted, list_privileges, make_pod, try_create
from ..conftest import CLUSTER, DEPLOYMENT, list_running_pods, start_run, wait_for_log, wait_for_run, wait_until

HERE = Path(__file__).parent
PRICES = "fetch_prices"


def build_substitute(name: str) -> None:
    """Build the substitute of a third-party image in the folder `name`, and load it into the nodes."""
    run(["docker", "build", "--tag", f"market-daily/{name}:test", str(HERE / name)], timeout=300, env={"DOCKER_BUILDKIT": "1"})
    CLUSTER.load_images([f"market-daily/{name}:test"])


@pytest.fixture(scope="module", autouse=True)
def exporter() -> None:
    """The StatsD exporter's image, for every environment."""
    build_substitute("metrics")


class Environment:
    """An environment on the kind cluster, with its external services in another namespace."""

    def __init__(self, name: str, folder: Path, extra_values: str = "") -> None:
        self.name, self.folder = name, folder
        self.values = (HERE / "values-outside.yaml").read_text() + extra_values
        self.deployment = Deployment(DEPLOYMENT.context, f"market-daily-{name}", name)
        self.steps = replace(self.deployment, namespace=f"market-daily-{name}-steps")
        self.services = Deployment(DEPLOYMENT.context, f"outside-{name}", "kind")

    def deploy_services(self) -> None:
        postgres, bucket = CLUSTER.read_manifests(("postgres.yaml", "bucket.yaml"))
        self.services.prepare_namespaces("", [postgres, add_users(bucket)])
        source = (HERE / "source.yaml").read_text().replace("COLLECTOR_IMAGE", name_of("collector"))
        self.services.kubectl("apply", "--filename", "-", input=source)
        self.services.kubectl("rollout", "status", "deployment/source", "--timeout=60s", timeout=70)

    def create_external_secrets(self) -> None:
        for name in kubernetes_secrets.EXTERNAL:
            kubernetes_secrets.create_secret(self.deployment.kubectl, name, self.services.read_secret(name))
        kubernetes_secrets.create_secret(self.steps.kubectl, "bucket-steps", self.create_step_key())

    def create_step_key(self) -> dict[str, str]:
        """Create a key of the bucket, with the policy that `make bucket-policy` prints for it; return it."""
        key = {"AWS_ACCESS_KEY_ID": f"steps-{self.name}", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20)}
        root = self.services.read_secret("bucket")
        login = ("--access", root["AWS_ACCESS_KEY_ID"], "--secret", root["AWS_SECRET_ACCESS_KEY"])
        user = ("--access", key["AWS_ACCESS_KEY_ID"], "--secret", key["AWS_SECRET_ACCESS_KEY"], "--role", "user")
        admin = ("versitygw", "admin", *login, "--endpoint-url", "http://127.0.0.1:7070", "create-user", *user)
        self.services.kubectl("exec", "statefulset/bucket", "--", *admin)
        policy = bucket_policy.make_policy("s3://market/artifacts", "s3://market/logs", key["AWS_ACCESS_KEY_ID"])
        # The tests' DAGs write here.
        policy["Statement"][0]["Resource"].append("arn:aws:s3:::market/artifacts/drills/*")
        with self.bucket(root) as client:
            client.put_bucket_policy(Bucket="market", Policy=json.dumps(policy))
        return key

    @contextmanager
    def bucket(self, key: Mapping[str, str]) -> Iterator[Any]:
        """A client of the bucket's server with this key."""
        with self.services.port_forward("bucket", 7070) as url:
            options = {name.lower(): value for name, value in key.items()}
            path_style = Config(s3={"addressing_style": "path"})
            yield get_session().create_client("s3", "us-east-1", endpoint_url=url, config=path_style, **options)

    def run_deploy(self, command: str, channel: str = "workflows", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run `make COMMAND ENV=…`, with YES=1 and the values of this environment."""
        values = self.folder / f"{self.name}-{channel}.yaml"
        values.write_text(self.values.replace("OUTSIDE", self.services.namespace).replace("CHANNEL", channel))
        program = [sys.executable, str(ROOT / "scripts" / "deploy.py"), command, self.name]
        settings = {"CONTEXT": self.deployment.context, "VALUES": str(values), "YES": "1"}
        started = time.monotonic()
        environment = os.environ | settings | variables
        completed = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1000)
        duration = time.monotonic() - started
        print(completed.stdout[-6000:], completed.stderr[-6000:], f"\n{command} {self.name}: {duration:.0f} s")
        return completed

    @contextmanager
    def airflow(self) -> Iterator[AirflowClient]:
        with self.deployment.port_forward("airflow-api-server", 8080) as url:
            yield AirflowClient(url, "admin", self.deployment.read_secret("airflow-admin")["password"])

    def delete(self) -> None:
        for deployment in (self.deployment, self.steps, self.services):
            deployment.kubectl("delete", "namespace", deployment.namespace, "--wait=false", "--ignore-not-found")


def add_users(bucket: str) -> str:
    """Return the bucket's manifest with a server that has users, which it keeps in a folder of its own."""
    changes = {
        '":7070", posix': '":7070", --iam-dir, /users, posix',
        "          volumeMounts:\n": "          volumeMounts:\n            - {name: users, mountPath: /users}\n",
        "  volumeClaimTemplates:\n": "      volumes: [{name: users, emptyDir: {}}]\n  volumeClaimTemplates:\n",
    }
    for old, new in changes.items():
        assert bucket.count(old) == 1, old
        bucket = bucket.replace(old, new)
    return bucket


@contextmanager
def environment(name: str, folder: Path, extra_values: str = "") -> Iterator[Environment]:
    environment = Environment(name, folder, extra_values)
    environment.deploy_services()
    yield environment
    environment.delete()  # the next environment needs the CPU; after a failure it is kept for the diagnostics


def scrape(environment: Environment) -> str:
    """Return the metrics as Prometheus scrapes them."""
    forwarded = environment.deployment.port_forward("airflow-statsd", 9102)
    with forwarded as url, urlopen(f"{url}/metrics", timeout=10) as response:  # noqa: S310 always HTTP
        metrics: str = response.read().decode()
    return metrics


def tag_by_digest(name: str) -> str:
    """Tag the image on the nodes by its digest, as there is no registry to pull it from; return that name."""
    repository, digest = name.rpartition(":")[0], ""
    for node in CLUSTER.list_worker_nodes():
        ctr = ["docker", "exec", node, "ctr", "--namespace=k8s.io", "images"]
        digest = run([*ctr, "list", f"name==docker.io/{name}"], timeout=60).splitlines()[-1].split()[2]
        run([*ctr, "tag", "--force", f"docker.io/{name}", f"docker.io/{repository}@{digest}"], timeout=60)
    return f"{repository}@{digest}"


def check_access(environment: Environment) -> None:
    """Check what service accounts, pods and the steps' key can do, by trying it."""
    airflow, steps = environment.deployment, environment.steps
    components = ("triggerer", "worker", "scheduler", "api-server", "dag-processor")
    accounts = {name: Account(f"airflow-{name}", airflow) for name in components}
    accounts |= {"monitor": Account("monitor", airflow), "step": Account("step", steps)}
    places = (airflow.namespace, steps.namespace)
    for name, account in accounts.items():
        for place in places:
            assert list_privileges(account, place) == [], f"{name} in {place}"

    def list_permitted(verb: str) -> list[tuple[str, str]]:
        """Return the accounts that may do this to pods, with the namespace."""
        pairs = ((name, place) for name in accounts for place in places)
        return [(name, place) for name, place in pairs if is_permitted(accounts[name], place, verb, "pods")]

    # A pod in Airflow's namespace could mount every secret, and its labels could open the database.
    assert list_permitted("create") == [("triggerer", steps.namespace), ("scheduler", airflow.namespace)]
    deleters = [("triggerer", steps.namespace), ("worker", steps.namespace), ("scheduler", airflow.namespace)]
    assert list_permitted("delete") == deleters

    # The triggerer, for real: Airflow's secrets do not exist where it can create pods.
    triggerer = accounts["triggerer"].option
    pod = make_pod("created", {"tier": "airflow", "component": "scheduler"})
    assert "forbidden" in try_create(airflow, pod, triggerer)
    references = {"airflow-metadata": "connection", "airflow-jwt-secret": "jwt-secret", "bucket": "AWS_ACCESS_KEY_ID"}
    for name, key in references.items():
        variable = {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}
        assert not try_create(steps, make_pod(f"reads-{name}", {}, ["env"], [variable]), triggerer)
    pods = [f"pod/reads-{name}" for name in references]
    waiting = "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=CreateContainerConfigError"
    steps.kubectl("wait", *pods, waiting, "--timeout=60s", timeout=70)
    events = steps.kubectl("get", "events", "--output=yaml")
    assert [name for name in references if f'secret "{name}" not found' not in events] == []
    steps.kubectl("delete", *pods, "--now", triggerer)
    privileged = make_pod("privileged", {})
    privileged["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    assert "violates PodSecurity" in try_create(steps, privileged, triggerer, "--dry-run=server")

    outside = environment.services.namespace
    database, bucket, source = f"postgres.{outside}.svc:5432", f"bucket.{outside}.svc:7070", f"source.{outside}.svc:8000"
    api, kubernetes = f"airflow-api-server.{airflow.namespace}.svc:8080", "kubernetes.default.svc:443"
    addresses = (database, bucket, source, api, kubernetes)
    step = {"app.kubernetes.io/component": "step"}
    # The labels of a pod, and the addresses that it can connect to.
    reachable: dict[str, tuple[dict[str, str], set[str]]] = {
        "trainer": (step | {"app.kubernetes.io/name": "trainer"}, {bucket}),
        "collector": (step | {"app.kubernetes.io/name": "collector"}, {bucket, source}),
        "disguised": ({"tier": "airflow", "component": "scheduler"}, set()),
    }
    assert find_reachable(steps, {name: labels for name, (labels, _) in reachable.items()}, addresses) == {
        name: expected for name, (_, expected) in reachable.items()
    }

    with environment.bucket(steps.read_secret("bucket-steps")) as client:
        keys = [item["Key"] for item in client.list_objects_v2(Bucket="market")["Contents"]]
        [log, record] = [next(key for key in keys if key.startswith(prefix)) for prefix in ("logs/", "artifacts/monitor/")]
        for key in (log, record):
            with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
                client.put_object(Bucket="market", Key=key, Body=b"forged")
            with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
                client.get_object(Bucket="market", Key=key)


@pytest.mark.staging
@pytest.mark.timeout(1500)
def test_staging_is_deployed_and_a_broken_deployment_is_rolled_back(tmp_path: Path) -> None:
    with environment("staging", tmp_path) as staging:
        without_secrets = staging.run_deploy("deploy")
        assert without_secrets.returncode == 1
        for missing in ("airflow-metadata", "bucket", "bucket-steps"):
            assert f"generic {missing} " in without_secrets.stderr
        staging.create_external_secrets()

        deployed = staging.run_deploy("deploy")
        assert deployed.returncode == 0
        assert "+ Deployment airflow-scheduler: new" in deployed.stdout
        last_line = deployed.stdout.splitlines()[-1]
        assert last_line.startswith("Deployed ")
        assert container_images.get_commit() in last_line and name_of("trainer") in last_line
        assert staging.run_deploy("diff").stdout.strip() == "no changes"
        metrics = scrape(staging)
        for task in ("decide", "fetch_range", "train", "plot"):
            assert f'market_daily_step_attempts_total{{dag_id="market_smoke",outcome="success",task_id="{task}"}} 1' in metrics
            assert f'market_daily_step_run_seconds_count{{dag_id="market_smoke",task_id="{task}"}} 1' in metrics
        assert "airflow_scheduler_heartbeat{" in metrics and "airflow_triggers_running{hostname=" in metrics
        with staging.airflow() as airflow:
            assert airflow.password not in ("admin", "airflow")
            unpause_parsed_dag(staging.deployment, airflow, "market_daily")
            start_run(airflow, "market_daily", "session__2026-01-16", "2026-01-16T09:00:00Z")
            assert wait_for_run(airflow, "market_daily", "session__2026-01-16", 180) == "success"
            wait_for_log(airflow, "market_daily", "session__2026-01-16", PRICES, "http://source.outside-staging.svc:8000")
        check_access(staging)

        broken = staging.run_deploy("deploy", COLLECTOR_IMAGE="market-daily/collector:missing")
        assert broken.returncode == 1
        assert "collector_image = market-daily/collector:missing" in broken.stdout
        assert "it did not start within 45 s" in broken.stdout and "market-daily/collector:missing" in broken.stdout
        assert "rolled back to revision 1" in broken.stderr
        assert staging.run_deploy("diff").stdout.strip() == "no changes"


@pytest.fixture
def pgbouncer_values() -> str:
    """The values that enable PgBouncer, whose images are loaded into the nodes."""
    build_substitute("pooling")
    return (HERE / "values-pooling.yaml").read_text()


def list_database_clients(environment: Environment) -> set[str]:
    """Return the IP addresses of the pods that are connected to the database."""
    query = "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE client_addr IS NOT NULL"
    psql = ("psql", "--username=airflow", "--tuples-only", "--no-align", f"--command={query}")
    return set(environment.services.kubectl("exec", "statefulset/postgres", "--", *psql).split())


@pytest.mark.production
@pytest.mark.timeout(2400)
def test_a_deployment_to_production_during_a_run_loses_no_step(tmp_path: Path, pgbouncer_values: str) -> None:
    with environment("prod", tmp_path, pgbouncer_values) as prod:
        prod.deployment.create_namespace()
        prod.steps.create_namespace()
        prod.create_external_secrets()
        kubernetes_secrets.create_secret(prod.deployment.kubectl, "airflow-admin", {"password": "-begins-with-a-dash"})
        by_tag = prod.run_deploy("deploy")
        assert by_tag.returncode == 1 and "has no digest" in by_tag.stderr
        names = {variable_of(image): tag_by_digest(name_of(image)) for image in container_images.IMAGES}

        assert prod.run_deploy("deploy", **names).returncode == 0
        pods = prod.deployment.kubectl(
            "get", "pods", "--output=jsonpath={range .items[*]}{.metadata.labels.component} {end}"
        ).split()
        replicated = ("api-server", "scheduler", "triggerer", "pgbouncer")
        assert {component: pods.count(component) for component in replicated} == dict.fromkeys(replicated, 2)
        budgets = prod.deployment.kubectl(
            "get", "poddisruptionbudgets", "--output=jsonpath={.items[*].status.disruptionsAllowed}"
        )
        assert budgets.split() == ["1", "1", "1", "1"]
        addresses = ("--selector=component=pgbouncer", "--output=jsonpath={.items[*].status.podIP}")
        pgbouncers = prod.deployment.kubectl("get", "pods", *addresses)
        clients = list_database_clients(prod)
        assert clients and clients <= set(pgbouncers.split())

        with prod.airflow() as airflow:
            unpause_parsed_dag(prod.deployment, airflow, "drill_long")
            start_run(airflow, "drill_long", "deployed")
            wait_until("a running step", lambda: list_running_pods("dag_id=drill_long", prod.steps), 60)
        changed = prod.run_deploy("deploy", channel="another", **names)
        assert changed.returncode == 0
        assert "-    slack_channel = workflows" in changed.stdout and "+    slack_channel = another" in changed.stdout
        with prod.airflow() as airflow:
            assert wait_for_run(airflow, "drill_long", "deployed", 120) == "success"
            assert airflow.get_task_instances("drill_long", "deployed")["long"]["try_number"] == 1

        broken = prod.run_deploy(
            "deploy", **names | {"AIRFLOW_IMAGE": f"market-daily/airflow@sha256:{'0' * 64}"}, DEPLOY_SECONDS="25"
        )
        assert broken.returncode == 1
        assert "ImagePull" in broken.stderr and "rolled back to revision 2" in broken.stderr
        assert prod.run_deploy("diff", channel="another", **names).stdout.strip() == "no changes"
        assert prod.run_deploy("rollback", **names).returncode == 0
        assert prod.run_deploy("diff", **names).stdout.strip() == "no changes"


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_the_api_server_accepts_the_rendered_manifests(name: str) -> None:
    airflow = Deployment(DEPLOYMENT.context, f"validated-{name}", name)
    steps = replace(airflow, namespace=f"{airflow.namespace}-steps")
    documents = re.split(r"^---.*$", airflow.render(), flags=re.MULTILINE)
    created = ""
    for deployment in (airflow, steps):
        deployment.create_namespace()
        # kubectl refuses an object of another namespace than its option --namespace.
        own = [text for text in documents if (f"\n  namespace: {steps.namespace}\n" in text) == (deployment is steps)]
        created += deployment.kubectl("create", "--dry-run=server", "--filename", "-", input="\n---\n".join(own))
    for line in ("deployment.apps/airflow-scheduler", "rolebinding.rbac.authorization.k8s.io/worker-step-pods"):
        assert f"{line} created (server dry run)" in created
    airflow.kubectl("delete", "namespace", airflow.namespace, steps.namespace, "--wait=false")
