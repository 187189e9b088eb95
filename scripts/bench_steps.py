"""Measure what a step costs on a cluster: bare pods, this project's operator, the stock one; then each kind of day.

A chain of steps that do nothing, one after another, and a fan of steps that take a second, side by side. Every way runs the
same pods: a bare pod has the spec of a pod that this operator created. All ways take turns, on a kind cluster of
the benchmark's own, which BENCH_CLUSTER names; with KEEP=1 it is kept, and one that was kept is reused.
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

from devtools.airflow_client import FINISHED_STATES, AirflowClient
from devtools.commands import ROOT, ToolError, print_error
from devtools.deployment import Deployment
from devtools.e2e_cluster import run_cluster
from devtools.kind_cluster import KindCluster

BARE, OURS, STOCK, DEFERRABLE = "bare pods", "this operator", "stock operator", "stock operator, deferrable"
TUNED_STOCK = "stock operator, tuned"
CHAIN, FEW, FAN = 3, 6, 10  # as in tests/e2e/dags/bench.py
# The ways of each round. The stock operator's costly variants run less often, to bound the benchmark's duration.
CHAIN_ROUNDS = ((BARE, OURS, STOCK, DEFERRABLE), (BARE, OURS, STOCK)) * 2 + ((BARE, OURS, STOCK),)
FAN_ROUNDS = ((BARE, OURS, STOCK), (BARE, OURS, DEFERRABLE), *((BARE, OURS),) * 4)
# As many steps at once as the fan has, for all ways. With the usual CPU requests, the workers of a wide fan fill a node of two
# cores and wait forever for pods that do not fit beside them.
WIDE = ["--set", "config.market_daily.step_max_pods=32", "--set", "config.core.parallelism=32"]
WIDE += ["--set", "config.market_daily.collector_cpu=10m", "--set", "workers.kubernetes.resources.requests.cpu=10m"]
TUNED = {"WORKER_PODS_CREATION_BATCH_SIZE": str(FAN), "ASYNC_POD_CREATION": "True"}
DAYS = {"open": "2026-01-20", "closed": "2026-03-02", "suspect": "2026-03-23", "training": "2025-12-15"}
DAG_SUFFIXES = {OURS: "ours", STOCK: "stock", DEFERRABLE: "deferrable", TUNED_STOCK: "stock"}
# Fields of a pod's spec that the API server fills in.
SERVER_FIELDS = ("nodeName", "preemptionPolicy", "priority", "serviceAccount", "tolerations")
JIFFIES_PER_SECOND = 100  # of /proc/stat


@dataclass
class Cost:
    """The cost of an activity for the whole machine.

    Attributes:
        seconds: its duration.
        cpu: CPU seconds of all cores.
        memory: the highest memory use in GB.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    memory: float = 0.0


Costs = dict[str, list[Cost]]


@contextmanager
def measure_machine(cluster: KindCluster) -> Iterator[Cost]:
    """Fill in the CPU and memory of a Cost while the block runs, from /proc in a node's container."""
    sample = "while :; do head -1 /proc/stat; grep -E 'MemTotal|MemAvailable' /proc/meminfo; sleep 0.5; done"
    node = cluster.list_worker_nodes()[0]
    process = subprocess.Popen(["docker", "exec", node, "sh", "-c", sample], stdout=subprocess.PIPE, text=True)
    cost, busy, used = Cost(), list[float](), list[float]()

    def read() -> None:
        total = 0.0
        for line in process.stdout or ():
            name, *numbers = line.split()
            if name == "cpu":
                jiffies = [int(number) for number in numbers]
                busy.append((sum(jiffies[:8]) - jiffies[3] - jiffies[4]) / JIFFIES_PER_SECOND)
            elif name == "MemTotal:":
                total = int(numbers[0]) / 1e6
            else:
                used.append(total - int(numbers[0]) / 1e6)

    threading.Thread(target=read, daemon=True).start()
    try:
        yield cost
    finally:
        time.sleep(0.6)  # for the last sample
        process.terminate()
        cost.cpu, cost.memory = (busy[-1] - busy[0], max(used)) if used else (0.0, 0.0)


def bare_pod(pod: dict[str, Any], name: str, seconds: float) -> dict[str, Any]:
    """Return a pod that takes `seconds`, with the spec of `pod`, a step's pod."""
    spec = {key: value for key, value in pod["spec"].items() if key not in SERVER_FIELDS}
    [container] = spec["containers"]
    manifest, _ = container["args"]
    spec["containers"] = [container | {"args": [manifest, str(seconds)]}]
    labels = {"bench": "bare", "app.kubernetes.io/name": "collector", "app.kubernetes.io/component": "step"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def run_bare(deployment: Deployment, template: dict[str, Any], count: int, seconds: float, *, at_once: bool) -> float:
    """Run `count` bare pods by kubectl, one after another or side by side; return the seconds until all have succeeded."""
    pods = [bare_pod(template, f"bare-{number}", seconds) for number in range(count)]
    started = time.monotonic()
    for group in [pods] if at_once else [[pod] for pod in pods]:
        deployment.kubectl("create", "--filename=-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": group}))
        names = [f"pod/{pod['metadata']['name']}" for pod in group]
        deployment.kubectl("wait", *names, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", timeout=150)
    duration = time.monotonic() - started
    deployment.kubectl("delete", "pods", "--selector=bench=bare", "--now", timeout=120)
    return duration


def run_dag(airflow: AirflowClient, dag_id: str, logical_date: str | None = None) -> float:
    """Run the DAG and return its duration in seconds, from `queued_at` to `end_date`. Raises ToolError unless it succeeds."""
    run_id = f"bench__{time.time():.3f}"
    airflow.unpause_dag(dag_id)
    airflow.trigger_dag(dag_id, run_id, logical_date)

    def get_finished_run() -> dict[str, Any] | None:
        run = airflow.get_run(dag_id, run_id)
        return run if run["state"] in FINISHED_STATES else None

    run = airflow.wait_for(f"the run {run_id} of {dag_id}", get_finished_run, 600)
    if run["state"] != "success":
        raise ToolError(f"the run {run_id} of {dag_id} finished as {run['state']}")
    start, end = (datetime.fromisoformat(run[key]) for key in ("queued_at", "end_date"))
    return (end - start).total_seconds()


class Benchmark:
    """The ways to run a step on one cluster, measured in turn."""

    def __init__(self, cluster: KindCluster) -> None:
        """Run once what all ways need: the artifact that the steps return, and a pod of this operator to copy."""
        self.cluster, self.airflow = cluster, cluster.airflow
        run_dag(self.airflow, "bench_prepare")
        with cluster.deployment.watch_pods("dag_id=bench_chain_ours,app.kubernetes.io/component=step") as watch:
            run_dag(self.airflow, "bench_chain_ours")
        if not watch.first:
            raise ToolError("no pod of bench_chain_ours was created: its steps must run from the triggerer (step_runner)")
        self.template = next(iter(watch.first.values()))

    def run_bare(self, count: int, seconds: float, *, at_once: bool) -> float:
        """Run `count` bare pods that take `seconds` each; return the duration of all in seconds."""
        return run_bare(self.cluster.deployment, self.template, count, seconds, at_once=at_once)

    def measure(self, way: str, shape: str) -> Cost:
        """Run a chain or a fan in one way; return its cost."""
        with measure_machine(self.cluster) as cost:
            if way != BARE:
                seconds = run_dag(self.airflow, f"bench_{shape}_{DAG_SUFFIXES[way]}")
            elif shape == "chain":
                seconds = self.run_bare(CHAIN, 0, at_once=False)
            else:
                seconds = self.run_bare(FAN if shape == "fan" else FEW, 1, at_once=True)
        cost.seconds = seconds
        print(f"  {shape}, {way}: {cost.seconds:.1f} s, {cost.cpu:.0f} CPU s, {cost.memory:.1f} GB", flush=True)
        return cost

    def measure_rounds(self, shape: str, rounds: Iterable[Sequence[str]], costs: Costs) -> None:
        """Measure the ways of each round in turn, and append each cost to `costs`."""
        for ways in rounds:
            for way in ways:
                costs.setdefault(way, []).append(self.measure(way, shape))

    @contextmanager
    def tuned_scheduler(self) -> Iterator[None]:
        """Let the scheduler create worker pods in batches and asynchronously while the block runs."""
        names = {f"AIRFLOW__KUBERNETES_EXECUTOR__{name}": value for name, value in TUNED.items()}
        self._set_scheduler_variables(*(f"{name}={value}" for name, value in names.items()))
        try:
            yield
        finally:
            self._set_scheduler_variables(*(f"{name}-" for name in names))

    def _set_scheduler_variables(self, *variables: str) -> None:
        deployment = self.cluster.deployment
        deployment.kubectl("set", "env", "deployment/airflow-scheduler", "--containers=scheduler", *variables)
        deployment.kubectl("rollout", "status", "deployment/airflow-scheduler", "--timeout=180s", timeout=200)


def spread(values: Sequence[float], digits: int) -> str:
    """Return the median of the values, and their range if there are several."""
    median = f"{statistics.median(values):.{digits}f}"
    return f"{median} ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else median


def ratio(costs: Sequence[Cost], bare: Sequence[Cost], name: str) -> float:
    """Return the median of the field `name` of `costs`, divided by that of `bare`."""
    median, bare_median = (statistics.median(getattr(cost, name) for cost in group) for group in (costs, bare))
    return float(median / bare_median)


def format_table(title: str, costs_by_way: Costs, per: int) -> str:
    """Return a table in Markdown: medians with their range, divided by `per`, and their ratio to those of bare pods."""
    lines = [f"| {title} | runs | s | to bare pods | CPU s | to bare pods | peak GB |", "|---|---|---|---|---|---|---|"]
    for way, costs in costs_by_way.items():
        seconds = spread([cost.seconds / per for cost in costs], 1)
        cpu = spread([cost.cpu / per for cost in costs], 1 if per > 1 else 0)
        seconds_ratio, cpu_ratio = (ratio(costs, costs_by_way[BARE], name) for name in ("seconds", "cpu"))
        memory = max(cost.memory for cost in costs)
        lines.append(f"| {way} | {len(costs)} | {seconds} | {seconds_ratio:.2f} | {cpu} | {cpu_ratio:.2f} | {memory:.1f} |")
    return "\n".join(lines)


def run_benchmark(cluster: KindCluster) -> None:
    """Run the whole benchmark and print its tables; save the figures below .run/ as JSON."""
    started = time.monotonic()
    benchmark = Benchmark(cluster)
    benchmark.run_bare(CHAIN, 0, at_once=False)  # a warm-up; this operator's chain has run once, for its pod
    chain: Costs = {}
    benchmark.measure_rounds("chain", CHAIN_ROUNDS, chain)
    fan: Costs = {}
    benchmark.measure_rounds("fan", FAN_ROUNDS, fan)
    with benchmark.tuned_scheduler():
        benchmark.measure_rounds("fan", ((TUNED_STOCK,),), fan)
    print(f"\n{format_table(f'chain of {CHAIN}, per step', chain, CHAIN)}")
    print(f"\n{format_table(f'fan of {FAN}, in total', fan, 1)}", flush=True)
    print("\n| kind of day | session | s from trigger to end |\n|---|---|---|")
    days = {}
    for name, session in DAYS.items():
        days[name] = run_dag(benchmark.airflow, "market_daily", f"{session}T09:00:00Z")
        print(f"| {name} | {session} | {days[name]:.0f} |", flush=True)
    figures = {
        shape: {way: [asdict(cost) for cost in costs] for way, costs in costs_by_way.items()}
        for shape, costs_by_way in (("chain", chain), ("fan", fan))
    }
    path = ROOT / ".run" / f"bench-steps-{datetime.now():%Y%m%dT%H%M%S}.json"  # noqa: DTZ005 the user's time zone
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"chain_steps": CHAIN, "fan_steps": FAN, **figures, "days_seconds": days}, indent=1))
    print(f"\n{time.monotonic() - started:.0f} s; figures: {path.relative_to(ROOT)}")


def main() -> int:
    """Run the benchmark on the cluster that BENCH_CLUSTER and BENCH_UI_PORT describe; return the exit code."""
    cluster = KindCluster(os.environ.get("BENCH_CLUSTER") or "market-daily-bench", os.environ.get("BENCH_UI_PORT") or "8093")
    try:
        with run_cluster(cluster, WIDE):
            run_benchmark(cluster)
    except ToolError as error:
        return print_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
