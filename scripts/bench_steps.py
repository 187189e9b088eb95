"""Measure what a step costs on a cluster: bare pods, this project's operator, the stock one; then each kind of day.

A chain of steps that do nothing, one after another, and a fan of steps that take a second, side by side. Every way runs the
same pods: a bare pod has the spec of a pod that this operator made. All ways take turns, on a kind cluster of the benchmark's
own, which BENCH_CLUSTER names; KEEP=1 leaves it, and uses one that was left.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

if __name__ == "__main__":
    os.environ["E2E_CLUSTER"] = os.environ.get("BENCH_CLUSTER") or "market-daily-bench"
    os.environ["E2E_UI_PORT"] = os.environ.get("BENCH_UI_PORT") or "8093"

import e2e
import kind
from airflow_api import Airflow
from commands import ROOT, Failed, fail

BARE, OURS, STOCK, DEFERRABLE = "bare pods", "this operator", "stock operator", "stock operator, deferrable"
TUNED_STOCK = "stock operator, tuned"
CHAIN, FEW, FAN = 3, 6, 10  # as in tests/e2e/dags/bench.py
# The ways of each round; the stock operator takes turns too, its costly variants less often, so that all of it ends in time.
CHAIN_ROUNDS = ((BARE, OURS, STOCK, DEFERRABLE), (BARE, OURS, STOCK)) * 2 + ((BARE, OURS, STOCK),)
FAN_ROUNDS = ((BARE, OURS, STOCK), (BARE, OURS, DEFERRABLE), (BARE, OURS), (BARE, OURS), (BARE, OURS))
# As many steps at once as the fan has, for all ways. With the usual CPU requests the workers of a wide fan fill a node of two
# cores and wait for ever for pods that do not fit beside them.
WIDE = ["--set", "config.market_daily.step_max_pods=32", "--set", "config.core.parallelism=32"]
WIDE += ["--set", "config.market_daily.collector_cpu=10m", "--set", "workers.kubernetes.resources.requests.cpu=10m"]
TUNED = {"WORKER_PODS_CREATION_BATCH_SIZE": str(FAN), "ASYNC_POD_CREATION": "True"}
DAYS = {"open": "2026-01-20", "closed": "2026-03-02", "suspect": "2026-03-23", "training": "2025-12-15"}
DAG_OF = {OURS: "ours", STOCK: "stock", DEFERRABLE: "deferrable", TUNED_STOCK: "stock"}
# What a pod gets from the cluster, not from who creates it.
GIVEN_BY_THE_CLUSTER = ("nodeName", "preemptionPolicy", "priority", "serviceAccount", "tolerations")
JIFFIES = 100  # a second of /proc/stat


@dataclass
class Cost:
    """What something cost the machine: seconds, CPU seconds of all cores, the most memory in use in GB."""

    seconds: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0


Figures = dict[str, list[Cost]]


@contextmanager
def measured() -> Iterator[Cost]:
    """Fill in a Cost while the block runs, from what the kernel says to a container of the cluster."""
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


@contextmanager
def capture_pod(dag: str) -> Iterator[list[dict[str, Any]]]:
    """Collect the pods of the DAG's steps, as the cluster first has them, while the block runs."""
    command = ["kubectl", "--context", kind.TARGET.context, "--namespace", kind.NAMESPACE, "get", "pods"]
    command += ["--watch", "--output=json", f"--selector=dag_id={dag},app.kubernetes.io/component=step"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pods: list[dict[str, Any]] = []

    def read() -> None:
        text = ""
        for line in process.stdout or ():
            text += line
            if line == "}\n":
                pods.append(json.loads(text))
                text = ""

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield pods
    finally:
        process.terminate()
        reader.join(timeout=10)


def bare_pod(pod: dict[str, Any], name: str, seconds: float) -> dict[str, Any]:
    """Return a pod with the spec of `pod`, a step's, that takes `seconds`."""
    spec = {key: value for key, value in pod["spec"].items() if key not in GIVEN_BY_THE_CLUSTER}
    [container] = spec["containers"]
    manifest, _ = container["args"]
    spec["containers"] = [container | {"args": [manifest, str(seconds)]}]
    labels = {"bench": "bare", "app.kubernetes.io/name": "collector", "app.kubernetes.io/component": "step"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def run_bare(template: dict[str, Any], count: int, seconds: float, *, at_once: bool) -> float:
    """Run `count` bare pods by kubectl, one after another or side by side; return the seconds until all have ended."""
    pods = [bare_pod(template, f"bare-{number}", seconds) for number in range(count)]
    started = time.monotonic()
    for group in [pods] if at_once else [[pod] for pod in pods]:
        kind.TARGET.kubectl("create", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": group}))
        names = [f"pod/{pod['metadata']['name']}" for pod in group]
        kind.TARGET.kubectl("wait", *names, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", seconds=150)
    took = time.monotonic() - started
    kind.TARGET.kubectl("delete", "pods", "--selector=bench=bare", "--now", seconds=120)
    return took


def run_dag(airflow: Airflow, dag: str, logical_date: str | None = None) -> float:
    """Run the DAG; return the seconds from the trigger to its end."""
    name = f"bench__{time.time():.3f}"
    airflow.wait_for(f"the DAG {dag}", lambda: airflow.call("PATCH", f"/dags/{dag}", {"is_paused": False}), 180)
    airflow.trigger(dag, name, logical_date)
    ended = airflow.wait_for(f"{dag}", lambda: (run := airflow.run(dag, name))["state"] in ("success", "failed") and run, 600)
    if ended["state"] != "success":
        raise Failed(f"{dag} {name} ended as {ended['state']}")
    start, end = (datetime.fromisoformat(ended[key]) for key in ("queued_at", "end_date"))
    return (end - start).total_seconds()


class Bench:
    """The ways to run a step on one cluster, measured in turn."""

    def __init__(self, airflow: Airflow) -> None:
        """Run what everything else needs: the artifact that steps hand over, and a pod of this operator to copy."""
        self.airflow = airflow
        run_dag(airflow, "bench_prepare")
        with capture_pod("bench_chain_ours") as pods:
            run_dag(airflow, "bench_chain_ours")
        if not pods:
            raise Failed("no pod of bench_chain_ours was seen: its runs need the triggerer (step_runner)")
        self.template = pods[0]

    def run(self, way: str, shape: str) -> Cost:
        """Run a chain or a fan in one way."""
        with measured() as cost:
            if way != BARE:
                seconds = run_dag(self.airflow, f"bench_{shape}_{DAG_OF[way]}")
            elif shape == "chain":
                seconds = run_bare(self.template, CHAIN, 0, at_once=False)
            else:
                seconds = run_bare(self.template, FAN if shape == "fan" else FEW, 1, at_once=True)
        cost.seconds = seconds
        print(f"  {shape}, {way}: {cost.seconds:.1f} s, {cost.cpu:.0f} CPU s, {cost.memory:.1f} GB", flush=True)
        return cost

    def rounds(self, shape: str, rounds: Iterable[Sequence[str]], figures: Figures) -> None:
        """Run the ways of each round in turn, and add what each cost."""
        for ways in rounds:
            for way in ways:
                figures.setdefault(way, []).append(self.run(way, shape))


@contextmanager
def tuned() -> Iterator[None]:
    """Let the scheduler create worker pods in batches and at once while the block runs."""
    names = {f"AIRFLOW__KUBERNETES_EXECUTOR__{name}": value for name, value in TUNED.items()}
    _set_scheduler(*(f"{name}={value}" for name, value in names.items()))
    try:
        yield
    finally:
        _set_scheduler(*(f"{name}-" for name in names))


def _set_scheduler(*variables: str) -> None:
    kind.TARGET.kubectl("set", "env", "deployment/airflow-scheduler", "--containers=scheduler", *variables)
    kind.TARGET.kubectl("rollout", "status", "deployment/airflow-scheduler", "--timeout=180s", seconds=200)


def spread(values: Sequence[float], digits: int) -> str:
    """Return the median of the values, and their range where there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else middle


def ratio(costs: Sequence[Cost], bare: Sequence[Cost], name: str) -> float:
    """Return how many times the median of bare pods this way's median is."""
    mine, theirs = (statistics.median(getattr(cost, name) for cost in some) for some in (costs, bare))
    return float(mine / theirs)


def table(title: str, figures: Figures, per: int) -> str:
    """Return a table in Markdown: medians with their range, divided by `per`, and their ratio to those of bare pods."""
    lines = [f"| {title} | runs | s | to bare pods | CPU s | to bare pods | peak GB |", "|---|---|---|---|---|---|---|"]
    for way, costs in figures.items():
        seconds = spread([cost.seconds / per for cost in costs], 1)
        cpu = spread([cost.cpu / per for cost in costs], 1 if per > 1 else 0)
        times, of_cpu = (ratio(costs, figures[BARE], name) for name in ("seconds", "cpu"))
        memory = max(cost.memory for cost in costs)
        lines.append(f"| {way} | {len(costs)} | {seconds} | {times:.2f} | {cpu} | {of_cpu:.2f} | {memory:.1f} |")
    return "\n".join(lines)


def bench(airflow: Airflow) -> None:
    """Run and print all of it; leave the figures in .run/ as JSON."""
    started = time.monotonic()
    benchmark = Bench(airflow)
    run_bare(benchmark.template, CHAIN, 0, at_once=False)  # as this operator's chain has run once, to be copied
    chain: Figures = {}
    benchmark.rounds("chain", CHAIN_ROUNDS, chain)
    fan: Figures = {}
    benchmark.rounds("fan", FAN_ROUNDS, fan)
    with tuned():
        benchmark.rounds("fan", ((TUNED_STOCK,),), fan)
    print(f"\n{table(f'chain of {CHAIN}, a step', chain, CHAIN)}\n\n{table(f'fan of {FAN}, all of it', fan, 1)}", flush=True)
    print("\n| kind of day | session | s from trigger to end |\n|---|---|---|")
    days = {}
    for name, session in DAYS.items():
        days[name] = run_dag(airflow, "market_daily", f"{session}T09:00:00Z")
        print(f"| {name} | {session} | {days[name]:.0f} |", flush=True)
    costs = {
        shape: {way: [asdict(cost) for cost in of_way] for way, of_way in figures.items()}
        for shape, figures in (("chain", chain), ("fan", fan))
    }
    path = ROOT / ".run" / f"bench-steps-{datetime.now():%Y%m%dT%H%M%S}.json"  # noqa: DTZ005 the user's own clock
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"chain_steps": CHAIN, "fan_steps": FAN, **costs, "days_seconds": days}, indent=1))
    print(f"\n{time.monotonic() - started:.0f} s; figures: {path.relative_to(ROOT)}")


def main() -> int:
    """Run the benchmark; return the exit code."""
    try:
        with e2e.cluster(WIDE) as airflow:
            bench(airflow)
    except Failed as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
