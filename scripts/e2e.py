"""The cluster tests, on a kind cluster of their own: up, tests, down. KEEP=1 leaves the cluster; arguments go to pytest.

What was there when a test failed (pods, events, logs) is left in .run/e2e-…/.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

os.environ["CLUSTER"] = os.environ.get("E2E_CLUSTER") or "market-daily-e2e"
os.environ["UI_PORT"] = os.environ.get("E2E_UI_PORT") or "8091"
# Whoever has a token at hand does not want the drills in his channel.
os.environ |= dict.fromkeys(("SLACK_TOKEN", "AIRFLOW_CONN_SLACK_CONN", "SLACK_PORT"), "")

import kind
from airflow_api import Airflow
from commands import ROOT, Failed, fail, need, progress, run

import images

# A watcher that need not be waited for.
IMPATIENT = [f"--set-string=config.market_daily.{name}" for name in ("watch_seconds=3", "watch_grace_seconds=20")]


def build() -> str:
    """Builds the Airflow image with the tests' DAGs in it; returns its name."""
    plain = images.build("airflow")
    name = plain.replace("/airflow:", "/airflow-e2e:")
    command = ["docker", "build", "--file", "tests/e2e/Dockerfile", "--build-arg", f"AIRFLOW_IMAGE={plain}", "--tag", name, "."]
    run(command, seconds=300, more={"DOCKER_BUILDKIT": "1"})
    return name


def leave_traces() -> Path:
    """Writes what there is to know about the namespace into a folder; returns it."""
    folder = ROOT / ".run" / f"e2e-{datetime.now():%Y%m%dT%H%M%S}"  # noqa: DTZ005 the user's own clock
    folder.mkdir(parents=True)
    kubectl = kind.TARGET.kubectl
    wanted: dict[str, tuple[str, ...]] = {
        "pods.txt": ("get", "pods", "--output=wide"),
        "pods.yaml": ("get", "pods", "--output=yaml"),
    }
    wanted |= {"events.txt": ("get", "events", "--sort-by=.lastTimestamp"), "described.txt": ("describe", "pods")}
    for name, command in wanted.items():
        try:
            (folder / name).write_text(kubectl(*command))
        except Failed as error:
            (folder / name).write_text(str(error))
            return folder
    for pod in json.loads(kubectl("get", "pods", "--output=json"))["items"]:
        name = pod["metadata"]["name"]
        for extra in ((), ("--previous",)):
            try:
                log = kubectl("logs", name, "--all-containers", *extra)
                (folder / f"{name}{''.join(extra)}.log").write_text(log)
            except Failed:
                continue
    return folder


@contextmanager
def cluster(more: Sequence[str] = ()) -> Iterator[Airflow]:
    """A cluster with the tests' DAGs and Airflow's API on it. Leaves traces when something failed; KEEP leaves the cluster."""
    need("docker", "kind", "helm", "kubectl", "git")
    os.environ["COMMIT"] = images.commit()  # of the tree as it is now, whatever is written while the tests run
    os.environ["AIRFLOW_IMAGE"] = build()
    try:
        if not os.environ.get("KEEP"):
            kind.down()  # what a run that was killed has left
        kind.up(more)
        yield kind.api()
    except BaseException:
        print(f"traces: {leave_traces()}", file=sys.stderr)
        raise
    finally:
        if not os.environ.get("KEEP"):
            with progress("down"):
                kind.down()


def main(arguments: list[str]) -> int:
    """Runs the tests; returns the exit code."""
    try:
        with cluster(IMPATIENT):
            options = ["--timeout=600", "--durations=10", f"{ROOT}/tests/e2e", *arguments]
            pytest = [f"{ROOT}/.venvs/collector-test/bin/pytest", *options]
            if code := subprocess.run(pytest, cwd=ROOT).returncode:
                raise Failed("the cluster tests failed")
    except Failed as error:
        return fail(error)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
