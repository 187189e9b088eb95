"""Run the cluster tests on a kind cluster of their own: up, tests, down.

PART=core,slack python scripts/e2e.py -k training   # parts; all by default; arguments are passed to pytest
KEEP=1 python scripts/e2e.py                        # leaves the cluster, and starts anew on one that was left

E2E_CLUSTER and E2E_UI_PORT name the cluster and its port. What was there when a test failed (pods, events, logs) is left in
.run/e2e-…/.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

# Only the tests' own cluster: they delete pods, scale deployments to nothing and stop nodes.
os.environ["CLUSTER"] = os.environ.get("E2E_CLUSTER") or "market-daily-e2e"
os.environ["UI_PORT"] = os.environ.get("E2E_UI_PORT") or "8091"
# Whoever has a token at hand does not want the drills in his channel.
os.environ |= dict.fromkeys(("SLACK_TOKEN", "AIRFLOW_CONN_SLACK_CONN", "SLACK_PORT"), "")

from devtools import container_images, kind_cluster
from devtools.airflow_client import AirflowClient
from devtools.commands import NO_TESTS, ROOT, ToolError, choose_parts, fail, need, progress, run
from devtools.deployment import Deployment

# Turns run one after another, the lanes of a turn side by side (most of a test is waiting), the groups of a lane one after
# another. A group is a part and a mark expression. The benchmark needs the machine to itself; faults need the nodes.
TURNS: tuple[tuple[tuple[tuple[str, str], ...], ...], ...] = (
    ((("core", "benchmark"),),),
    ((("core", "drills"),), (("core", "not (benchmark or drills)"),)),
    ((("faults", ""),),),
    (
        (("slack", ""), ("environments", "not (staging or production)")),
        (("environments", "staging"), ("environments", "production")),
    ),
)
PARTS = tuple(dict.fromkeys(part for turn in TURNS for lane in turn for part, _ in lane))
OWN = "market-daily"
# A watcher that need not be waited for.
IMPATIENT = [f"--set-string=config.market_daily.{name}" for name in ("watch_seconds=3", "watch_grace_seconds=20")]
# Staging or production finds room beside it.
SMALL = ["--set-string=config.market_daily.trainer_cpu=200m"]
SMALL += [f"--set={name}.resources.requests.cpu=50m" for name in ("apiServer", "dagProcessor", "scheduler", "triggerer")]
PYTEST = f"{ROOT}/.venvs/collector-test/bin/pytest"


def build() -> str:
    """Build the Airflow image with the tests' DAGs in it; return its name."""
    plain = container_images.build("airflow")
    name = plain.replace("/airflow:", "/airflow-e2e:")
    command = ["docker", "build", "--file", "tests/e2e/Dockerfile", "--build-arg", f"AIRFLOW_IMAGE={plain}", "--tag", name, "."]
    run(command, seconds=300, more={"DOCKER_BUILDKIT": "1"})
    return name


def namespaces() -> list[str]:
    """Return the namespaces of the tests' cluster that a deployment or a test has made."""
    labelled = ("get", "namespaces", "--selector=app.kubernetes.io/part-of=market-daily")
    return kind_cluster.DEPLOYMENT.kubectl(*labelled, "--output=jsonpath={.items[*].metadata.name}").split()


def start_anew() -> None:
    """Delete the cluster, or with KEEP only what is deployed there, so that no run was before."""
    if not os.environ.get("KEEP"):
        kind_cluster.down()
    elif kind_cluster.CLUSTER in run(["kind", "get", "clusters"], seconds=60).split():
        kind_cluster.wait_for_nodes()
        if found := namespaces():
            with progress(f"deleting {', '.join(found)}"):
                kind_cluster.DEPLOYMENT.kubectl("delete", "namespaces", *found, seconds=300)


def leave_traces() -> Path:
    """Write what there is to know about every namespace into a folder; return it."""
    folder = ROOT / ".run" / f"e2e-{datetime.now():%Y%m%dT%H%M%S}"  # noqa: DTZ005 the user's own clock
    for namespace in namespaces():
        _leave_traces(Deployment(kind_cluster.DEPLOYMENT.context, namespace, "kind"), folder / namespace)
    return folder


def _leave_traces(target: Deployment, folder: Path) -> None:
    folder.mkdir(parents=True)
    wanted: dict[str, tuple[str, ...]] = {
        "pods.txt": ("get", "pods", "--output=wide"),
        "pods.yaml": ("get", "pods", "--output=yaml"),
        "events.txt": ("get", "events", "--sort-by=.lastTimestamp"),
        "described.txt": ("describe", "pods"),
    }
    for name, command in wanted.items():
        (folder / name).write_text(target.kubectl(*command))
    for pod in json.loads(target.kubectl("get", "pods", "--output=json"))["items"]:
        name = pod["metadata"]["name"]
        for extra in ((), ("--previous",)):
            try:
                log = target.kubectl("logs", name, "--all-containers", *extra)
                (folder / f"{name}{''.join(extra)}.log").write_text(log)
            except ToolError:
                continue


@contextmanager
def cluster(more: Sequence[str] = ()) -> Iterator[AirflowClient]:
    """Yield Airflow's API on a cluster with the tests' DAGs. Leaves traces when something failed; KEEP leaves the cluster."""
    need("docker", "kind", "helm", "kubectl", "git")
    if kind_cluster.CLUSTER == OWN:
        raise ToolError(f"{OWN} is the cluster of make kind-up: set E2E_CLUSTER to another name, this deletes what it finds")
    os.environ["COMMIT"] = container_images.commit()  # of the tree as it is now, whatever is written while the tests run
    os.environ["AIRFLOW_IMAGE"] = build()
    try:
        start_anew()
        kind_cluster.up(more)
        yield kind_cluster.api()
    except BaseException:
        try:
            print(f"traces: {leave_traces()}", file=sys.stderr)
        except ToolError as error:
            print(f"no traces: {error}", file=sys.stderr)
        raise
    finally:
        if not os.environ.get("KEEP"):
            with progress("down"):
                kind_cluster.down()


def run_group(part: str, mark: str, options: Sequence[str]) -> bool:
    """Run the tests of a part that have the mark, and print the seconds of each; return whether they passed."""
    environment = os.environ | {"E2E_CLUSTER": kind_cluster.CLUSTER}
    command = [PYTEST, "--timeout=600", "--durations=0", "--durations-min=1", f"{ROOT}/tests/e2e/{part}", *options]
    command += ["-m", mark] if mark else []
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    name = f"{part} ({mark})" if mark else part
    print(f"\n== {name}\n{done.stdout}\n{name}: {time.monotonic() - began:.0f} s", flush=True)
    return done.returncode in (0, NO_TESTS)


def run_turn(lanes: Sequence[Sequence[tuple[str, str]]], options: Sequence[str]) -> list[str]:
    """Run the lanes of a turn side by side; return the parts that failed."""

    def run_lane(groups: Sequence[tuple[str, str]]) -> list[str]:
        return [part for part, mark in groups if not run_group(part, mark, options)]

    with ThreadPoolExecutor() as pool:
        failed = [part for parts in pool.map(run_lane, lanes) for part in parts]
    if failed:
        print(f"traces: {leave_traces()}", file=sys.stderr)
    return failed


def by_hand() -> str:
    """Return the command that runs a test on the cluster that was kept."""
    names = {"E2E_CLUSTER": kind_cluster.CLUSTER, "E2E_UI_PORT": kind_cluster.UI_PORT}
    names |= {name: os.environ[name] for name in ("COMMIT", "AIRFLOW_IMAGE")}
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in names.items())
    return f"{settings} {Path(PYTEST).relative_to(ROOT)} tests/e2e/core -k …"


def main(options: list[str]) -> int:
    """Run the parts that PART names, or all; return the exit code."""
    started, turns, failed = time.monotonic(), list[tuple[str, float]](), list[str]()
    try:
        parts = choose_parts(os.environ.get("PART") or "", PARTS)
        with cluster([*IMPATIENT, *SMALL]):
            turns.append(("set-up", time.monotonic() - started))
            for turn in TURNS:
                lanes = [[group for group in lane if group[0] in parts] for lane in turn]
                if any(lanes):
                    began = time.monotonic()
                    failed += run_turn(lanes, options)
                    names = dict.fromkeys(part for lane in lanes for part, _ in lane)
                    turns.append((" beside ".join(names), time.monotonic() - began))
            if os.environ.get("KEEP"):
                print(f"\nthe cluster is kept; one test by hand: {by_hand()}")
    except ToolError as error:
        return fail(error)
    print("\n" + ", ".join(f"{name} {value:.0f} s" for name, value in turns))
    print(f"{'FAILED: ' + ', '.join(dict.fromkeys(failed)) if failed else 'passed'}, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
