"""Runs real triggerers on Postgres with a DAG of many steps that are deferred at once, against a fake Kubernetes API.

A program: reads Airflow's settings from the environment, among them a migrated database; prints what was measured as JSON on
its last line.

    python run_triggerers.py FOLDER --steps 1000 --triggerers 2 --kill 1 --max-pods 64
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from airflow.api.common.trigger_dag import trigger_dag
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.dagbag import DBDagBag
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType
from sqlalchemy import func, select
from step_contract.commit import Content, commit
from step_contract.lineage.sources import source_of_file
from step_contract.result import Result
from step_contract.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "airflow"))
from fake_kubernetes import KubernetesApi  # type: ignore[import-not-found]

DAG_FILE = """
from datetime import datetime
from airflow.sdk import DAG
from airflow_steps import indexes, remake
from airflow_steps.operator import StepOperator

SYMBOLS = [f"INDEX{{number}}" for number in range({indexes})]

def add_steps():
    previous, common = None, {{"session": "{{{{ run_id }}}}", "symbol": indexes.symbol_option(SYMBOLS)}} | remake.OPTION
    for number in range({steps}):
        options = common | {{"prices": previous.manifest if previous else None}}
        previous = StepOperator(program="collector", step="decide", task_id=f"step_{{number:04}}", options=options)

with DAG("wide", schedule=None, start_date=datetime(2026, 1, 1), params={{"remake": remake.PARAM}}):
    indexes.add_for_each_index(SYMBOLS, add_steps, tooltip="An index")
"""
BLOCKED = re.compile(r"blocked for ([0-9.]+) seconds")
SUCCESS = "success"


def defer_all(folder: Path, steps: int, conf: dict[str, Any], returned: str = "", indexes: int = 0) -> None:
    """Write the DAG, create a run of it with `conf`, and schedule its tasks as the scheduler does: all are deferred.

    `returned` is what the first step, of several indexes that of the last one, has returned, if it has.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wide.py").write_text(DAG_FILE.format(steps=steps, indexes=indexes))
    bag = DagBag(folder, bundle_path=folder, bundle_name="dags-folder")
    assert not bag.import_errors, bag.import_errors
    with create_session() as session:
        if not session.get(DagBundleModel, "dags-folder"):
            session.add(DagBundleModel(name="dags-folder"))
            session.flush()
        sync_bag_to_db(bag, "dags-folder", None, session=session)
    trigger_dag("wide", triggered_by=DagRunTriggeredByType.TEST, run_id=folder.parent.name, conf=conf)
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.run_id == folder.parent.name)).one()
        run.dag = DBDagBag().get_dag_for_run(run, session=session)
        decision = run.task_instance_scheduling_decisions(session=session)
        run.schedule_tis(decision.schedulable_tis, session=session)
    if returned:
        ids: dict[str, Any] = {"dag_id": "wide", "task_id": "step_0000", "run_id": folder.parent.name, "map_index": indexes - 1}
        XComModel.set(key="return_value", value=returned, serialize=False, **ids)  # as Airflow's API stores it


def count_states(folder: Path) -> Counter[str | None]:
    """Return how many task instances of the run that `defer_all` created are in each state."""
    with create_session() as session:
        rows = session.execute(
            select(TaskInstance.state, func.count())
            .where(TaskInstance.run_id == folder.parent.name)
            .group_by(TaskInstance.state)
        )
        return Counter({state: int(count) for state, count in rows})


async def run_pods(api: KubernetesApi, result: str, options: argparse.Namespace) -> int:
    """Start and terminate every pod that is created; return the highest number of pods that ran at once."""
    line = options.line.encode().decode("unicode_escape")
    started, peak, tasks = 0, 0, set[asyncio.Task[None]]()

    async def run_pod(name: str) -> None:
        await api.start_container(name)
        await asyncio.sleep(options.seconds)
        if name in api.pods:
            await api.print_lines(name, f"{name} has run", *[line] * options.lines)
            await api.terminate_container(name, options.code, line if options.code else result)

    with suppress(asyncio.CancelledError):
        while True:
            while started < len(api.created):
                tasks.add(asyncio.create_task(run_pod(api.created[started])))
                started += 1
            peak = max(peak, api.count_active())
            await asyncio.sleep(0.05)
    return peak


class Triggerer:
    """A triggerer in processes of its own, and what it used."""

    def __init__(self, folder: Path, number: int, module: str) -> None:
        self.log = folder / f"triggerer-{number}.log"
        self.peak_bytes = 0
        command = [sys.executable, "-m", module, *(["triggerer"] if module == "airflow" else []), "--skip-serve-logs"]
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)

    def sample(self) -> None:
        """Measure the resident memory of all its processes."""
        with suppress(psutil.Error):
            parent = psutil.Process(self.process.pid)
            sizes = []
            for process in [parent, *parent.children(recursive=True)]:
                with suppress(psutil.Error):
                    sizes.append(process.memory_info().rss)
            self.peak_bytes = max(self.peak_bytes, sum(sizes))

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal_number)

    def read_end(self) -> str:
        """Return the exit code and the last lines of the log if it has exited; empty if it runs or was killed."""
        code = self.process.poll()
        return "" if code in (None, -signal.SIGKILL) else f"exit code {code}: {self.log.read_text()[-2000:]}"

    def longest_block(self) -> float:
        """Return for how many seconds its event loop was blocked at most, if Airflow has logged it."""
        return max((float(seconds) for seconds in BLOCKED.findall(self.log.read_text())), default=0.0)


async def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run the triggerers until all steps have ended."""
    store = Store(f"file://{folder}/artifacts")
    content = Content(
        {"x.json": b"{}"}, 0, 1, {}, [source_of_file("source", "https://user:secret@host/2026.csv?key=secret", b"")]
    )
    artifact = commit(store, "decisions", step="decide", session=date(2026, 1, 15), inputs={}, content=content)
    api = KubernetesApi()
    os.environ["KUBECONFIG"] = str(await api.start(folder))
    conf = json.loads(options.conf)
    await asyncio.to_thread(defer_all, folder / "dags", options.steps, conf, options.returned, options.indexes)
    deferred = await asyncio.to_thread(count_states, folder / "dags")
    pods = asyncio.create_task(run_pods(api, Result(artifact.uri).to_json().decode(), options))
    started = time.monotonic()
    triggerers = [Triggerer(folder, number, options.module) for number in range(options.triggerers)]
    killed = 0
    while True:
        states = await asyncio.to_thread(count_states, folder / "dags")
        for triggerer in triggerers:
            triggerer.sample()
        if options.kill > killed and states[SUCCESS] > options.steps // 3:
            triggerers[killed].kill()
            killed += 1
        alive = any(triggerer.process.poll() is None for triggerer in triggerers)
        if not states["deferred"] or not alive or time.monotonic() - started > options.timeout:
            break
        await asyncio.sleep(0.3)
    duration = time.monotonic() - started
    await asyncio.sleep(options.linger)
    ends = [triggerer.read_end() for triggerer in triggerers]
    for triggerer in triggerers:
        triggerer.kill(signal.SIGTERM)
        await asyncio.to_thread(triggerer.process.wait)
    pods.cancel()
    return {
        "deferred": deferred["deferred"],
        "states": states,
        "seconds": round(duration, 1),
        "created": len(api.created),
        "arguments": [pod["spec"]["containers"][0]["args"] for pod in (api.deleted_pods | api.pods).values()],
        "distinct": len(set(api.created)),
        "ends": [end for end in ends if end],
        "peak_pods": await pods,
        "peak_mb": [triggerer.peak_bytes // 2**20 for triggerer in triggerers],
        "blocked_seconds": [triggerer.longest_block() for triggerer in triggerers],
    }


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--triggerers", type=int, default=1)
    parser.add_argument("--kill", type=int, default=0, help="so many triggerers are killed after a third of the steps")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a step takes")
    parser.add_argument("--code", type=int, default=0, help="the exit code of every step")
    parser.add_argument("--line", default="", help="what every step prints, with Python's escapes")
    parser.add_argument("--lines", type=int, default=0, help="how often a step prints it")
    parser.add_argument("--conf", default="{}", help="the params of the run, JSON")
    parser.add_argument("--returned", default="", help="what the first step has returned before")
    parser.add_argument("--indexes", type=int, default=0, help="so many indexes, each with all steps")
    parser.add_argument("--linger", type=float, default=0, help="how long the triggerers run after that, in seconds")
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--module", default="airflow_steps.triggerer")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measure(options.folder, options))))


if __name__ == "__main__":
    main()
