"""Run the cluster tests on a kind cluster of their own.

PART=core,slack python scripts/e2e.py -k training   # some parts; all by default; arguments are passed to pytest
KEEP=1 python scripts/e2e.py                        # keep the cluster afterwards; reuse one that was kept
SERIAL=1 python scripts/e2e.py                      # nothing side by side; by default only if creating the cluster was slow

E2E_CLUSTER and E2E_UI_PORT set the cluster's name and the UI's port. If a test fails, the pods, events and logs of that moment
are saved below .run/.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from devtools.commands import NO_TESTS_COLLECTED, ROOT, ToolError, print_error, select_parts
from devtools.e2e_cluster import E2E_UI_PORT, keep_cluster, run_cluster, save_diagnostics
from devtools.kind_cluster import KindCluster

# Turns run one after another, the lanes of a turn side by side (most of a test is waiting), the groups of a lane one after
# another. A group is a part and a mark expression. The benchmark needs the machine to itself; faults need the nodes.
TURNS: tuple[tuple[tuple[tuple[str, str], ...], ...], ...] = (
    ((("core", "benchmark"),),),
    ((("core", "drills"),), (("core", "schedule"),), (("core", "not (benchmark or drills or schedule)"),)),
    ((("faults", ""),),),
    ((("doctor", ""),),),
    ((("slack", ""),), (("environments", "production"),), (("environments", "staging"),)),
    # An upgrade doubles pods for a moment: beside two other deployments, their CPU requests do not fit into two cores.
    ((("environments", "not (staging or production)"),),),
)
PARTS = tuple(dict.fromkeys(part for turn in TURNS for lane in turn for part, _ in lane))
# What runs side by side needs the cores that it was measured with, where the setup takes 170 s. Where it takes longer than
# this, three deployments at once fail by their own timeouts.
SIDE_BY_SIDE_SETUP_SECONDS = 240
# Messages and retries come within seconds.
FAST_SETTINGS = ("monitor_poll_seconds=3", "monitor_grace_seconds=20", "step_evicted_retry_delay_seconds=5")
FAST = [f"--set-string=config.market_daily.{setting}" for setting in FAST_SETTINGS]
# Staging and production run beside it.
SMALL_REQUESTS = ["--set-string=config.market_daily.trainer_cpu=200m"]
SMALL_REQUESTS += [
    f"--set={name}.resources.requests.cpu=50m" for name in ("apiServer", "dagProcessor", "scheduler", "triggerer")
]
PYTEST = f"{ROOT}/.venvs/collector-test/bin/pytest"


def read_cluster() -> KindCluster:
    """Return the cluster that E2E_CLUSTER and E2E_UI_PORT describe."""
    return KindCluster(os.environ.get("E2E_CLUSTER") or "market-daily-e2e", os.environ.get("E2E_UI_PORT") or E2E_UI_PORT)


def run_group(cluster: KindCluster, part: str, mark: str, options: Sequence[str]) -> bool:
    """Run the tests of a part that have the mark, and print their durations; return whether they passed."""
    environment = os.environ | {"E2E_CLUSTER": cluster.name, "E2E_UI_PORT": cluster.ui_port}
    command = [PYTEST, "--timeout=1200", "--durations=0", "--durations-min=1", f"{ROOT}/tests/e2e/{part}", *options]
    command += ["-m", mark] if mark else []
    started = time.monotonic()
    completed = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    name = f"{part} ({mark})" if mark else part
    print(f"\n== {name}\n{completed.stdout}\n{name}: {time.monotonic() - started:.0f} s", flush=True)
    return completed.returncode in (0, NO_TESTS_COLLECTED)


def run_turn(
    cluster: KindCluster, lanes: Sequence[Sequence[tuple[str, str]]], options: Sequence[str], serial: bool
) -> list[str]:
    """Run the lanes of a turn side by side, or one after another if `serial`; return the parts that failed."""

    def run_lane(groups: Sequence[tuple[str, str]]) -> list[str]:
        return [part for part, mark in groups if not run_group(cluster, part, mark, options)]

    with ThreadPoolExecutor(1 if serial else len(lanes)) as pool:
        failed = [part for parts in pool.map(run_lane, lanes) for part in parts]
    if failed:
        print(f"Diagnostics saved to {save_diagnostics(cluster)}", file=sys.stderr)
    return failed


def format_pytest_command(cluster: KindCluster) -> str:
    """Return a command that runs a single test on the cluster that was kept."""
    variables = {
        "E2E_CLUSTER": cluster.name,
        "E2E_UI_PORT": cluster.ui_port,
        "COMMIT": os.environ["COMMIT"],
        "AIRFLOW_IMAGE": os.environ["AIRFLOW_IMAGE"],
    }
    assignments = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"{assignments} {Path(PYTEST).relative_to(ROOT)} tests/e2e/core -k …"


def main(options: list[str]) -> int:
    """Run the parts that PART names, or all; return the exit code."""
    started, durations, failed = time.monotonic(), list[tuple[str, float]](), list[str]()
    cluster = read_cluster()
    try:
        parts = select_parts(os.environ.get("PART") or "", PARTS)
        with run_cluster(cluster, [*FAST, *SMALL_REQUESTS]):
            durations.append(("setup", time.monotonic() - started))
            serial = bool(os.environ.get("SERIAL")) or durations[0][1] > SIDE_BY_SIDE_SETUP_SECONDS
            if serial:
                print("This machine is slow, or SERIAL is set: nothing runs side by side", flush=True)
            for turn in TURNS:
                lanes = [[group for group in lane if group[0] in parts] for lane in turn]
                if any(lanes):
                    turn_started = time.monotonic()
                    failed += run_turn(cluster, lanes, options, serial)
                    names = dict.fromkeys(part for lane in lanes for part, _ in lane)
                    durations.append((" and ".join(names), time.monotonic() - turn_started))
            if keep_cluster():
                print(f"\nThe cluster {cluster.name} is kept. To run a single test: {format_pytest_command(cluster)}")
    except ToolError as error:
        return print_error(error)
    print("\n" + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in durations))
    print(f"{'FAILED: ' + ', '.join(dict.fromkeys(failed)) if failed else 'passed'}, {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
