"""What a step costs on a cluster, all in one run: bare pods, this project's operator, the stock one; and each kind of day.

A chain of four steps that do nothing, and a fan of twenty that take a second, on a kind cluster of the benchmark's own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

os.environ["E2E_CLUSTER"] = os.environ.get("BENCH_CLUSTER") or "market-daily-bench"

import e2e
import kind
from airflow_api import Airflow
from commands import Failed, fail

import images

CHAIN, FAN, ROUNDS = 4, 20, 3
# As many steps at once as the fan has, for all three ways. With the usual requests of CPU twenty workers fill a node of two
# cores and then wait for ever for pods that do not fit beside them.
WIDE = ["--set", "config.market_daily.step_pods=32", "--set", "config.core.parallelism=32"]
WIDE += ["--set", "config.market_daily.collector_cpu=10m", "--set", "workers.kubernetes.resources.requests.cpu=10m"]
DAYS = {"open": "2026-01-20", "closed": "2026-03-02", "suspect": "2026-03-23", "training": "2025-12-15"}
JIFFIES = 100  # a second of /proc/stat
REPEAT = """printf '{"manifest": "%s", "facts": {}, "error": null}' "$1" > /dev/termination-log; sleep "$2" """
WAYS = {"bare pods": "", "this operator": "triggerer", "stock operator": "worker"}


@dataclass
class Cost:
    """What something cost the machine: seconds, CPU seconds of all cores, the most memory in use in GB."""

    seconds: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Fills in a Cost while its block runs, from what the kernel says to a container of the cluster."""
    look = "while :; do head -1 /proc/stat; grep -E 'MemTotal|MemAvailable' /proc/meminfo; sleep 0.5; done"
    node = kind.workers()[0]
    process = subprocess.Popen(["docker", "exec", node, "sh", "-c", look], stdout=subprocess.PIPE, text=True)
    cost, busy, used = Cost(), list[float](), list[float]()

    def read() -> None:
        total = 0.0
        for line in process.stdout or ():
            name, *numbers = line.split()
            if name == "cpu":
                jiffies = [int(number) for number in numbers]
                busy.append((sum(jiffies[:8]) - jiffies[3] - jiffies[4]) / JIFFIES)
            elif name == "MemTotal:":
                total = int(numbers[0]) / 1e6
            else:
                used.append(total - int(numbers[0]) / 1e6)

    threading.Thread(target=read, daemon=True).start()
    try:
        yield cost
    finally:
        time.sleep(0.6)  # for the last look
        process.terminate()
        cost.cpu, cost.memory = (busy[-1] - busy[0], max(used)) if used else (0.0, 0.0)


def bare(count: int, seconds: float, *, at_once: bool) -> float:
    """Runs `count` pods like a step's by kubectl, one after another or side by side; the seconds until all have ended."""
    pods: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"bare-{number}", "labels": {"bench": "bare"}},
            "spec": {
                "restartPolicy": "Never",
                "containers": [
                    {
                        "name": "base",
                        "image": images.name_of("collector"),
                        "command": ["sh", "-c", REPEAT, "sh", "s3://market/artifacts/drills/noop/manifest.json", str(seconds)],
                    }
                ],
            },
        }
        for number in range(count)
    ]
    started = time.monotonic()
    for group in [pods] if at_once else [[pod] for pod in pods]:
        kind.TARGET.kubectl("create", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": group}))
        names = [f"pod/{pod['metadata']['name']}" for pod in group]
        kind.TARGET.kubectl("wait", *names, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", seconds=150)
    took = time.monotonic() - started
    kind.TARGET.kubectl("delete", "pods", "--selector=bench=bare", "--now", seconds=120)
    return took


def run_dag(airflow: Airflow, dag: str, logical_date: str | None = None) -> float:
    """Runs the DAG; the seconds from the trigger to its end."""
    name = f"bench__{time.time():.0f}"
    airflow.call("PATCH", f"/dags/{dag}", {"is_paused": False})
    airflow.trigger(dag, name, logical_date)
    ended = airflow.wait_for(f"{dag}", lambda: (run := airflow.run(dag, name))["state"] in ("success", "failed") and run, 600)
    if ended["state"] != "success":
        raise Failed(f"{dag} {name} ended as {ended['state']}")
    start, end = (datetime.fromisoformat(ended[key]) for key in ("queued_at", "end_date"))
    return (end - start).total_seconds()


def way(airflow: Airflow, runner: str, shape: str) -> Callable[[], float]:
    """What runs a chain or a fan."""
    if runner:
        return lambda: run_dag(airflow, f"bench_{shape}_{runner}")
    return (lambda: bare(CHAIN, 0, at_once=False)) if shape == "chain" else (lambda: bare(FAN, 1, at_once=True))


def table(rows: dict[str, Cost], divisor: int) -> None:
    """Prints the costs, and their ratios to the first row's."""
    first = next(iter(rows.values()))
    for name, cost in rows.items():
        seconds, cpu = cost.seconds / first.seconds, cost.cpu / first.cpu
        print(f"| {name} | {cost.seconds / divisor:.1f} | {seconds:.2f} | {cost.cpu:.0f} | {cpu:.2f} | {cost.memory:.1f} |")


def bench(airflow: Airflow) -> None:
    """Runs and prints all of it; the days first, as the fans leave the machine busy."""
    print("\n| kind of day | session | s from trigger to end |\n|---|---|---|")
    for name, session in DAYS.items():
        print(f"| {name} | {session} | {run_dag(airflow, 'market_daily', f'{session}T09:00:00Z'):.0f} |", flush=True)
    run_dag(airflow, "bench_prepare")
    for runner in filter(None, WAYS.values()):
        run_dag(airflow, f"bench_chain_{runner}")  # so that nobody is measured while it imports
    found: dict[str, dict[str, list[Cost]]] = {"chain": {}, "fan": {}}
    for shape, rounds in (("chain", ROUNDS), ("fan", 1)):
        for _ in range(rounds):
            for name, runner in WAYS.items():
                with measured() as cost:
                    seconds = way(airflow, runner, shape)()
                cost.seconds = seconds
                found[shape].setdefault(name, []).append(cost)
                print(f"  {shape}, {name}: {cost.seconds:.1f} s, {cost.cpu:.0f} CPU s, {cost.memory:.1f} GB", flush=True)
    for shape, what in (("chain", f"chain of {CHAIN}, median of {ROUNDS}: s a step"), ("fan", f"fan of {FAN}: s")):
        print(f"\n| {what} | s | to bare pods | CPU s | to bare pods | peak GB |\n|---|---|---|---|---|---|")
        medians = {
            name: Cost(*(statistics.median(getattr(cost, field) for cost in costs) for field in ("seconds", "cpu", "memory")))
            for name, costs in found[shape].items()
        }
        table(medians, CHAIN if shape == "chain" else 1)
    ours, stock = found["fan"]["this operator"][0], found["fan"]["stock operator"][0]
    print(f"\nfan, this operator to stock: time {ours.seconds / stock.seconds:.2f}, CPU {ours.cpu / stock.cpu:.2f}")


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    try:
        with e2e.cluster(WIDE) as airflow:
            bench(airflow)
    except Failed as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
