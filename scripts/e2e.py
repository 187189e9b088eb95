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

import kind
from airflow_api import Airflow
from commands import NO_TESTS, ROOT, Failed, choose_parts, fail, need, progress, run
from target import Target

import images

# Each needs no more than what kind-up has deployed; environments comes last, as it stops that to have room.
PARTS = ("core", "slack", "faults", "environments")
# Most of core is waiting: its drills run beside the rest, after the benchmark, which needs the machine to itself.
TURNS = {"core": [["benchmark"], ["drills", "not (benchmark or drills)"]]}
OWN = "market-daily"
# A watcher that need not be waited for.
IMPATIENT = [f"--set-string=config.market_daily.{name}" for name in ("watch_seconds=3", "watch_grace_seconds=20")]
PYTEST = f"{ROOT}/.venvs/collector-test/bin/pytest"


def build() -> str:
    """Build the Airflow image with the tests' DAGs in it; return its name."""
    plain = images.build("airflow")
    name = plain.replace("/airflow:", "/airflow-e2e:")
    command = ["docker", "build", "--file", "tests/e2e/Dockerfile", "--build-arg", f"AIRFLOW_IMAGE={plain}", "--tag", name, "."]
    run(command, seconds=300, more={"DOCKER_BUILDKIT": "1"})
    return name


def namespaces() -> list[str]:
    """Return the namespaces of the tests' cluster that a deployment or a test has made."""
    labelled = ("get", "namespaces", "--selector=app.kubernetes.io/part-of=market-daily")
    return kind.TARGET.kubectl(*labelled, "--output=jsonpath={.items[*].metadata.name}").split()


def start_anew() -> None:
    """Delete the cluster, or with KEEP only what is deployed there, so that no run was before."""
    if not os.environ.get("KEEP"):
        kind.down()
    elif kind.CLUSTER in run(["kind", "get", "clusters"], seconds=60).split():
        kind.wait_for_nodes()
        if found := namespaces():
            with progress(f"deleting {', '.join(found)}"):
                kind.TARGET.kubectl("delete", "namespaces", *found, seconds=300)


def leave_traces() -> Path:
    """Write what there is to know about every namespace into a folder; return it."""
    folder = ROOT / ".run" / f"e2e-{datetime.now():%Y%m%dT%H%M%S}"  # noqa: DTZ005 the user's own clock
    for namespace in namespaces():
        _leave_traces(Target(kind.TARGET.context, namespace, "kind"), folder / namespace)
    return folder


def _leave_traces(target: Target, folder: Path) -> None:
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
            except Failed:
                continue


@contextmanager
def cluster(more: Sequence[str] = ()) -> Iterator[Airflow]:
    """Yield Airflow's API on a cluster with the tests' DAGs. Leaves traces when something failed; KEEP leaves the cluster."""
    need("docker", "kind", "helm", "kubectl", "git")
    if kind.CLUSTER == OWN:
        raise Failed(f"{OWN} is the cluster of make kind-up: set E2E_CLUSTER to another name, this deletes what it finds")
    os.environ["COMMIT"] = images.commit()  # of the tree as it is now, whatever is written while the tests run
    os.environ["AIRFLOW_IMAGE"] = build()
    try:
        start_anew()
        kind.up(more)
        yield kind.api()
    except BaseException:
        try:
            print(f"traces: {leave_traces()}", file=sys.stderr)
        except Failed as error:
            print(f"no traces: {error}", file=sys.stderr)
        raise
    finally:
        if not os.environ.get("KEEP"):
            with progress("down"):
                kind.down()


def test(part: str, options: Sequence[str]) -> bool:
    """Run a part's tests, telling the seconds of each; return whether they passed."""
    environment = os.environ | {"E2E_CLUSTER": kind.CLUSTER}
    command = [PYTEST, "--timeout=600", "--durations=0", "--durations-min=1", f"{ROOT}/tests/e2e/{part}", *options]

    def run_group(mark: str) -> int:
        chosen = [*command, *(["-m", mark] if mark else [])]
        done = subprocess.run(chosen, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(done.stdout, flush=True)
        return done.returncode

    codes: list[int] = []
    for groups in TURNS.get(part, [[""]]):
        with ThreadPoolExecutor() as pool:
            codes += pool.map(run_group, groups)
    return not set(codes) - {0, NO_TESTS}


def by_hand() -> str:
    """Return the command that runs a test on the cluster that was kept."""
    names = {"E2E_CLUSTER": kind.CLUSTER, "E2E_UI_PORT": kind.UI_PORT}
    names |= {name: os.environ[name] for name in ("COMMIT", "AIRFLOW_IMAGE")}
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in names.items())
    return f"{settings} {Path(PYTEST).relative_to(ROOT)} tests/e2e/core -k …"


def main(options: list[str]) -> int:
    """Run the parts that PART names, or all; return the exit code."""
    started, seconds, failed = time.monotonic(), dict[str, float](), list[str]()
    try:
        parts = choose_parts(os.environ.get("PART") or "", PARTS)
        with cluster(IMPATIENT):
            seconds["set-up"] = time.monotonic() - started
            for part in parts:
                print(f"\n== {part}", flush=True)
                began = time.monotonic()
                if not test(part, options):
                    failed.append(part)
                    print(f"traces: {leave_traces()}", file=sys.stderr)
                seconds[part] = time.monotonic() - began
            if os.environ.get("KEEP"):
                print(f"\nthe cluster is kept; one test by hand: {by_hand()}")
    except Failed as error:
        return fail(error)
    print("\n" + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
    print(f"{'FAILED: ' + ', '.join(failed) if failed else 'passed'}, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
