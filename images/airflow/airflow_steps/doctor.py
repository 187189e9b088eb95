"""What `make doctor` asks of a pod of Airflow or of the monitor: a report as JSON in the last line of standard output.

    python -m airflow_steps.doctor --salt 5f0c… --variables AIRFLOW__CORE__FERNET_KEY,… bucket database pods

Always reported: the time, the commit and Airflow version of the image, and a keyed digest of each variable, never its value.
`bucket` tries the store of the artifacts, `database` reads the state of Airflow, `pods` builds a pod like a step's for each
program. Only `pods` imports Airflow, which takes seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
import re
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from step_contract.checks.clocks import compare_clocks
from step_contract.checks.findings import Finding, error, ok, run_check, warning
from step_contract.checks.store import check_store
from step_contract.store import Store

from airflow_steps.airflow_internals.heartbeats import get_threshold, read_option
from airflow_steps.redaction import redact_text

if TYPE_CHECKING:
    from airflow_steps.airflow_internals.metadata_tables import Dag, Job

PROCESSES = Path("/proc")
CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
COMPONENTS = {"SchedulerJob": "scheduler", "DagProcessorJob": "dag-processor", "TriggererJob": "triggerer"}
DEFAULT_CAPACITY = "1000"
BUSY_SHARE = 0.8  # of a triggerer's capacity
# The triggerers take new triggers once a second.
MAX_TRIGGER_WAIT = timedelta(minutes=1)
MAX_PARSE_AGE = timedelta(minutes=30)
SHOWN_ERRORS = 3
POD_DEADLINE_SECONDS = 120


def digest_variables(names: Iterable[str], salt: str, processes: Path = PROCESSES) -> dict[str, str | None]:
    """Return a keyed digest of each variable that this container's processes have; None if none has it.

    A variable that only the main process has, because a shell exported it, is found in the process's own environment.
    """
    values: dict[str, str] = {}
    for file in sorted(processes.glob("[0-9]*/environ"), key=lambda file: int(file.parent.name), reverse=True):
        try:
            pairs = (pair.partition("=") for pair in file.read_bytes().decode(errors="surrogateescape").split("\0"))
        except OSError:  # of another user, or it has exited
            continue
        values |= {name: value for name, _, value in pairs}
    values |= os.environ
    return {
        name: hmac.new(salt.encode(), values[name].encode(errors="surrogateescape"), hashlib.sha256).hexdigest()
        if name in values
        else None
        for name in names
    }


def read_airflow_version() -> str:
    """Return the installed version of Airflow; empty if it is not installed."""
    try:
        return version("apache-airflow")
    except PackageNotFoundError:
        return ""


def make_store() -> Store:
    """Return the store of the artifacts. Raises ConfigurationError if it is not set."""
    return Store(os.environ.get("ARTIFACTS") or read_option("market_daily", "artifacts"), fail_fast=True)


def check_database() -> Iterator[Finding]:
    """Yield the state of the database, its clock, and what it says about the components, the triggers and the DAGs."""
    import psycopg2

    from airflow_steps.airflow_internals.metadata_tables import open_tables

    uri = os.environ.get(CONNECTION, "")
    if not uri.startswith("postgres"):
        advice = "these checks read the URI from the variable; make it one of Postgres, or use airflow jobs check"
        yield warning("database", f"{CONNECTION} is not set to a Postgres database", advice)
        return
    try:
        with open_tables(uri) as tables:
            earliest = datetime.now(UTC)
            now = tables.read_time()
            yield ok("database", "the metadata database responds")
            yield compare_clocks("the database", now, earliest, datetime.now(UTC))
            jobs = tables.read_jobs()
            yield from check_heartbeats(jobs, now)
            yield check_triggerers(jobs, tables.read_waiting_triggers(), now)
            yield from check_dags(tables.read_dags(), tables.read_import_errors(), now, list_dag_files())
    except psycopg2.OperationalError as problem:
        advice = "check the database, the secret airflow-metadata and the network policy network.database"
        yield error("database", f"the metadata database does not respond: {redact_text(str(problem))}", advice)


def select_alive(jobs: Iterable[Job], job_type: str, now: datetime) -> list[Job]:
    """Return the jobs of the type whose heartbeat is recent enough."""
    threshold = get_threshold(job_type)
    return [job for job in jobs if job.job_type == job_type and now - job.latest_heartbeat < threshold]


def check_heartbeats(jobs: Iterable[Job], now: datetime) -> Iterator[Finding]:
    """Yield for each component whether one of it is alive."""
    jobs = list(jobs)
    for job_type, component in COMPONENTS.items():
        beats = [job.latest_heartbeat for job in jobs if job.job_type == job_type]
        if alive := select_alive(jobs, job_type, now):
            age = now - max(job.latest_heartbeat for job in alive)
            yield ok("heartbeats", f"{len(alive)} alive, last heartbeat {age.total_seconds():.0f} s ago", component)
        else:
            last = f"the last heartbeat was {(now - max(beats)).total_seconds():.0f} s ago" if beats else "no job is registered"
            advice = (
                f"look at its pods and log: kubectl logs deployment/airflow-{component}; if it was scaled to 0, scale it up"
            )
            yield error("heartbeats", f"no {component} is alive: {last}", advice, component)


def check_triggerers(jobs: Iterable[Job], waiting: tuple[int, datetime | None], now: datetime) -> Finding:
    """Return whether the triggerers that are alive have room for more triggers, and none waits for them."""
    alive = select_alive(jobs, "TriggererJob", now)
    limit = int(read_option("triggerer", "capacity") or DEFAULT_CAPACITY) * len(alive)
    running, (count, first) = sum(job.triggers for job in alive), waiting
    state = f"{len(alive)} alive, {running} of {limit} triggers running, {count} waiting"
    if count and first and now - first > MAX_TRIGGER_WAIT:
        advice = "start a triggerer, or raise its replicas or its capacity: the steps of these triggers do not start"
        return error("triggerer", f"{state}, the first since {first:%Y-%m-%d %H:%M} UTC", advice)
    if not alive:
        return error("triggerer", state, "start a triggerer: no step can start")
    if running >= limit * BUSY_SHARE:
        return warning("triggerer", state, "raise triggerer.replicas or AIRFLOW__TRIGGERER__CAPACITY")
    return ok("triggerer", state)


def list_dag_files() -> list[str]:
    """Return the ids of the DAGs that the image's files are named after."""
    folder = Path(read_option("core", "dags_folder") or "/opt/airflow/dags")
    return [file.stem for file in sorted(folder.glob("market_*.py"))]


def check_dags(
    dags: Iterable[Dag], failed: list[tuple[str, str]], now: datetime, expected: Collection[str]
) -> Iterator[Finding]:
    """Yield whether every DAG file can be imported and its DAGs are parsed regularly."""
    known = {dag.dag_id: dag for dag in dags}
    missing = [dag_id for dag_id in expected if dag_id not in known]
    if failed:
        shown = "; ".join(f"{file}: {redact_text(trace)}" for file, trace in failed[:SHOWN_ERRORS])
        yield error(
            "dags", f"{len(failed)} DAG files cannot be imported: {shown}", "correct the file or the setting that it names"
        )
    if missing:
        advice = "wait a minute after a deployment; otherwise look at the DAG processor's log"
        yield error("dags", f"not parsed, or their files failed: {', '.join(missing)}", advice)
    parsed = [dag.last_parsed_time for dag in known.values() if dag.last_parsed_time]
    if failed or missing:
        return
    if not parsed or now - min(parsed) > MAX_PARSE_AGE:
        yield warning("dags", f"a DAG was last parsed at {min(parsed, default='no time')}", "look at the DAG processor's log")
    elif paused := [dag_id for dag_id in expected if known[dag_id].is_paused]:
        advice = "unpause it in the UI if its runs should start"
        yield warning("dags", f"{len(known)} DAGs are imported; paused: {', '.join(paused)}", advice)
    else:
        yield ok("dags", f"{len(known)} DAGs are imported, none is paused")


def make_step_pods(environment: Mapping[str, str] = os.environ) -> dict[str, dict[str, Any]]:
    """Return for each program with an image the pod of its command `check`, as the operator makes it for a step.

    Raises ConfigurationError if a setting is invalid.
    """
    from airflow_steps.airflow_internals.operators import serialize_pod
    from airflow_steps.operator import DELETED_PHASES, StepOperator
    from airflow_steps.pods.client import DELETE_PHASES
    from airflow_steps.pods.spec import STEP_LABELS
    from airflow_steps.settings import Settings, get_setting

    settings = Settings.read()
    options = {"artifacts": settings.artifacts, "symbol": next(iter(settings.symbols), None), "format": "json"}
    source = {"prices_url": settings.prices_url, "feeds": settings.feeds}
    source["scheduled"] = str(settings.schedule_enabled).lower()
    pods = {}
    for program, more in (("collector", source), ("trainer", {})):
        if not get_setting(environment, f"{program.upper()}_IMAGE"):
            continue
        step = StepOperator(
            program=program,
            step="check",
            options=options | more,
            runner="worker",
            active_deadline_seconds=POD_DEADLINE_SECONDS,
            retries=0,
        )
        pod = serialize_pod(step.build_pod_request_obj(dry_run=True))
        pod["metadata"]["labels"] |= STEP_LABELS
        # If nobody else deletes it, a triggerer does after an hour.
        pod["metadata"]["annotations"] = {DELETE_PHASES: DELETED_PHASES["delete_pod"]}
        pods[program] = pod
    return pods


def main(arguments: list[str]) -> int:
    """Print the report; return the exit code."""
    parser = argparse.ArgumentParser(prog="airflow_steps.doctor", description="Report on this pod, for make doctor.")
    parser.add_argument("--salt", required=True)
    parser.add_argument("--variables", default="", type=lambda text: re.findall(r"\w+", text))
    parser.add_argument("sections", nargs="*", choices=("bucket", "database", "pods"), metavar="bucket|database|pods")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {
        "time": time.time(),
        "commit": os.environ.get("GIT_COMMIT", ""),
        "airflow_version": read_airflow_version(),
        "digests": digest_variables(options.variables, options.salt),
        "pods": {},
    }
    findings: list[Finding] = []
    if "bucket" in options.sections:
        findings += run_check("bucket", lambda: check_store(make_store))
    if "database" in options.sections:
        findings += run_check("database", check_database)
    if "pods" in options.sections:

        def build() -> Iterator[Finding]:
            report["pods"] = make_step_pods()
            yield from ()

        findings += run_check("step-pod", build)
    report["findings"] = [asdict(finding) for finding in findings]
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
