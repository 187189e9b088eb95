"""Staging and production by `make deploy`, with a database, a bucket and a source in a namespace of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import kind
import make_secrets
import pytest
from airflow_api import Airflow
from commands import ROOT, run
from runs import wait_for_dags
from target import Target

import images

from ..conftest import start, wait_for_end, wait_for_log, wait_until

HERE = Path(__file__).parent
PRICES = "fetch_prices"


def build(name: str) -> None:
    """Puts the stand-in `name` of an image on the nodes."""
    run(["docker", "build", "--tag", f"market-daily/{name}:test", str(HERE / name)], seconds=300, more={"DOCKER_BUILDKIT": "1"})
    kind.load([f"market-daily/{name}:test"])


@pytest.fixture(scope="module", autouse=True)
def exporter() -> None:
    """The exporter of metrics, for every environment."""
    build("metrics")


class Environment:
    """An environment on the kind cluster, and what is outside it."""

    def __init__(self, name: str, folder: Path, more: str = "") -> None:
        self.name, self.folder = name, folder
        self.values = (HERE / "values-outside.yaml").read_text() + more
        self.target = Target(kind.TARGET.context, f"market-daily-{name}", name)
        self.outside = Target(kind.TARGET.context, f"outside-{name}", "kind")

    def prepare_outside(self) -> None:
        self.outside.prepare(kind.manifests(("postgres.yaml", "bucket.yaml")))
        source = (HERE / "source.yaml").read_text().replace("COLLECTOR_IMAGE", images.name_of("collector"))
        self.outside.kubectl("apply", "--filename", "-", input=source)
        self.outside.kubectl("rollout", "status", "deployment/source", "--timeout=60s", seconds=70)

    def give_secrets(self) -> None:
        for name in make_secrets.GIVEN:
            make_secrets.create(self.target.kubectl, name, self.outside.secret(name))

    def make(self, what: str, channel: str = "workflows", **more: str) -> subprocess.CompletedProcess[str]:
        """`make WHAT ENV=…` as a person would, who has said yes."""
        values = self.folder / f"{self.name}-{channel}.yaml"
        values.write_text(self.values.replace("OUTSIDE", self.outside.namespace).replace("CHANNEL", channel))
        command = [sys.executable, str(ROOT / "scripts" / "deploy.py"), what, self.name]
        settings = {"CONTEXT": self.target.context, "VALUES": str(values), "YES": "1"}
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, env=os.environ | settings | more, capture_output=True, text=True, timeout=1000)
        print(done.stdout[-6000:], done.stderr[-6000:], f"\n{what} {self.name}: {time.monotonic() - started:.0f} s")
        return done

    @contextmanager
    def airflow(self) -> Iterator[Airflow]:
        with self.target.forward("airflow-api-server", 8080) as url:
            yield Airflow(url, "admin", self.target.secret("airflow-admin")["password"])

    def remove(self) -> None:
        for namespace in (self.target, self.outside):
            namespace.kubectl("delete", "namespace", namespace.namespace, "--wait=false")


@contextmanager
def environment(name: str, folder: Path, more: str = "") -> Iterator[Environment]:
    made = Environment(name, folder, more)
    made.prepare_outside()
    yield made
    made.remove()  # what the next environment needs the room for; of one that failed the traces stay


def scraped(environment: Environment) -> str:
    """What a Prometheus would fetch."""
    forwarded = environment.target.forward("airflow-statsd", 9102)
    with forwarded as url, urlopen(f"{url}/metrics", timeout=10) as answer:  # noqa: S310 http alone
        numbers: str = answer.read().decode()
    return numbers


def by_digest(name: str) -> str:
    """The image's name by digest, which the nodes are told, as there is no registry that it could be pulled from."""
    repository, found = name.rpartition(":")[0], ""
    for node in kind.workers():
        ctr = ["docker", "exec", node, "ctr", "--namespace=k8s.io", "images"]
        found = run([*ctr, "list", f"name==docker.io/{name}"], seconds=60).splitlines()[-1].split()[2]
        run([*ctr, "tag", "--force", f"docker.io/{name}", f"docker.io/{repository}@{found}"], seconds=60)
    return f"{repository}@{found}"


@pytest.mark.staging
@pytest.mark.timeout(1500)
def test_staging_is_deployed_tried_out_and_a_value_that_breaks_it_is_rolled_back_by_itself(tmp_path: Path) -> None:
    with environment("staging", tmp_path) as staging:
        without = staging.make("deploy")
        assert without.returncode == 1
        assert "generic airflow-metadata" in without.stderr and "generic bucket" in without.stderr
        staging.give_secrets()

        deployed = staging.make("deploy")
        assert deployed.returncode == 0
        assert "+ Deployment airflow-scheduler: new" in deployed.stdout
        last = deployed.stdout.splitlines()[-1]
        assert last.startswith("deployed: ") and images.commit() in last and images.name_of("trainer") in last
        assert staging.make("diff").stdout.strip() == "nothing would change"
        numbers = scraped(staging)
        for task in ("decide", "fetch_range", "train", "plot"):
            assert f'market_daily_step_attempts_total{{dag_id="market_smoke",outcome="success",task_id="{task}"}} 1' in numbers
            assert f'market_daily_step_run_seconds_count{{dag_id="market_smoke",task_id="{task}"}} 1' in numbers
        assert "airflow_scheduler_heartbeat{" in numbers and "airflow_triggers_running{hostname=" in numbers
        with staging.airflow() as airflow:
            assert airflow.password not in ("admin", "airflow")
            wait_for_dags(staging.target, airflow, "market_daily")
            start(airflow, "market_daily", "session__2026-01-16", "2026-01-16T09:00:00Z")
            assert wait_for_end(airflow, "market_daily", "session__2026-01-16", 180) == "success"
            wait_for_log(airflow, "market_daily", "session__2026-01-16", PRICES, "http://source.outside-staging.svc:8000")

        broken = staging.make("deploy", COLLECTOR_IMAGE="market-daily/collector:missing")
        assert broken.returncode == 1
        assert "collector_image = market-daily/collector:missing" in broken.stdout
        assert "it did not start within 45 s" in broken.stdout and "market-daily/collector:missing" in broken.stdout
        assert "rolled back to revision 1" in broken.stderr
        assert staging.make("diff").stdout.strip() == "nothing would change"


@pytest.fixture
def pooling() -> str:
    """The values that switch PgBouncer on, with its images on the nodes."""
    build("pooling")
    return (HERE / "values-pooling.yaml").read_text()


def who_speaks_to_the_database(environment: Environment) -> set[str]:
    """The addresses of the pods that hold connections to it."""
    query = "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE client_addr IS NOT NULL"
    psql = ("psql", "--username=airflow", "--tuples-only", "--no-align", f"--command={query}")
    return set(environment.outside.kubectl("exec", "statefulset/postgres", "--", *psql).split())


@pytest.mark.production
@pytest.mark.timeout(2400)
def test_production_by_digest_loses_no_step_when_it_is_deployed_in_the_middle_of_a_run(tmp_path: Path, pooling: str) -> None:
    with environment("prod", tmp_path, pooling) as prod:
        prod.target.kubectl("create", "namespace", prod.target.namespace)
        prod.give_secrets()
        make_secrets.create(prod.target.kubectl, "airflow-admin", {"password": "-begins-with-a-dash"})
        by_tag = prod.make("deploy")
        assert by_tag.returncode == 1 and "has no digest here" in by_tag.stderr
        names = {images.variable_of(image): by_digest(images.name_of(image)) for image in images.IMAGES}

        assert prod.make("deploy", **names).returncode == 0
        pods = prod.target.kubectl(
            "get", "pods", "--output=jsonpath={range .items[*]}{.metadata.labels.component} {end}"
        ).split()
        twice = ("api-server", "scheduler", "triggerer", "pgbouncer")
        assert {component: pods.count(component) for component in twice} == dict.fromkeys(twice, 2)
        budgets = prod.target.kubectl("get", "poddisruptionbudgets", "--output=jsonpath={.items[*].status.disruptionsAllowed}")
        assert budgets.split() == ["1", "1", "1", "1"]
        of_poolers = ("--selector=component=pgbouncer", "--output=jsonpath={.items[*].status.podIP}")
        poolers = prod.target.kubectl("get", "pods", *of_poolers)
        speaking = who_speaks_to_the_database(prod)
        assert speaking and speaking <= set(poolers.split())

        with prod.airflow() as airflow:
            wait_for_dags(prod.target, airflow, "drill_long")
            start(airflow, "drill_long", "deployed")
            selector = "--selector=dag_id=drill_long,app.kubernetes.io/component=step"
            wait_until("running", lambda: "Running" in prod.target.kubectl("get", "pods", selector), 60)
        changed = prod.make("deploy", channel="another", **names)
        assert changed.returncode == 0
        assert "-    slack_channel = workflows" in changed.stdout and "+    slack_channel = another" in changed.stdout
        with prod.airflow() as airflow:
            assert wait_for_end(airflow, "drill_long", "deployed", 120) == "success"
            assert airflow.tasks("drill_long", "deployed")["long"]["try_number"] == 1

        broken = prod.make(
            "deploy", **names | {"AIRFLOW_IMAGE": f"market-daily/airflow@sha256:{'0' * 64}"}, DEPLOY_SECONDS="25"
        )
        assert broken.returncode == 1
        assert "ImagePull" in broken.stderr and "rolled back to revision 2" in broken.stderr
        assert prod.make("diff", channel="another", **names).stdout.strip() == "nothing would change"
        assert prod.make("rollback", **names).returncode == 0
        assert prod.make("diff", **names).stdout.strip() == "nothing would change"


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_the_api_server_takes_what_is_rendered(name: str) -> None:
    target = Target(kind.TARGET.context, f"validated-{name}", name)
    target.kubectl("create", "namespace", target.namespace)
    created = target.kubectl("create", "--dry-run=server", "--filename", "-", input=target.render())
    assert "deployment.apps/airflow-scheduler created (server dry run)" in created
    target.kubectl("delete", "namespace", target.namespace, "--wait=false")
