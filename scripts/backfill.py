"""Collect past sessions in a cluster, by a backfill of the DAG market_history, and follow it.

    python scripts/backfill.py kind      # FROM=2025-01-01 TO=2025-12-31; STEPS=fetch_prices,forecast; REMAKE=reason

Airflow runs it: interrupted, this program stops showing it and nothing else. Repeated with the same arguments, it follows the
backfill that is active, or continues the one that has failed. CONTEXT, NAMESPACE, BACKFILL_MAX_ACTIVE_RUNS: see
docs/settings.md.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence

from deploy import find_deployment, read_int
from devtools.airflow_client import FINISHED_STATES, AirflowClient, ConflictError
from devtools.backfill_request import BackfillRequest, Json, read_request
from devtools.commands import ToolError, print_error, require_programs
from devtools.dag_runs import LOG_LINES

DAG_ID = "market_history"
# These use what the months before have left.
ORDERED_STEPS = ("forecast", "train", "plot")
MAX_ACTIVE_RUNS = 2
POLL_SECONDS = 3.0
MAX_FAILURES_SHOWN = 3


def choose_reprocessing(conf: Json, previous: Json | None, states: Sequence[str]) -> str:
    """Return which months run again that have run before: `failed` ones only, or all that are `completed`.

    Args:
        conf: the configuration of the new backfill.
        previous: the last backfill of the DAG; None if there is none.
        states: the states of the previous one's runs.

    A repetition continues where the last one failed. Any other backfill has other steps, days or a new reason, or is to find
    out what is missing now: its months run again, and what is committed costs next to nothing.
    """
    is_repetition = previous is not None and (previous["dag_run_conf"] or {}) == conf
    return "failed" if is_repetition and set(states) != {"success"} else "completed"


class BackfillClient:
    """Airflow's API as far as backfills of one DAG are concerned."""

    def __init__(self, airflow: AirflowClient) -> None:
        self.airflow = airflow

    def find_latest(self) -> Json | None:
        """Return the DAG's latest backfill; None if it has none."""
        found = self.airflow.request("GET", f"/backfills?dag_id={DAG_ID}&order_by=-id&limit=1")["backfills"]
        return dict(found[0]) if found else None

    def create(self, request: BackfillRequest, reprocessing: str, max_active_runs: int) -> Json:
        """Create a backfill. Raises ToolError if Airflow refuses it."""
        body = {
            "dag_id": DAG_ID,
            "from_date": f"{request.first.replace(day=1)}T00:00:00Z",  # as the logical date of the first month
            "to_date": f"{request.last}T00:00:00Z",
            "dag_run_conf": request.conf,
            "reprocess_behavior": reprocessing,
            "max_active_runs": max_active_runs,
        }
        try:
            return dict(self.airflow.request("POST", "/backfills", body))
        except ConflictError as error:
            raise ToolError(f"another backfill of {DAG_ID} has just been started: run this again; {error}") from error

    def get(self, id: int) -> Json:
        """Return the backfill."""
        return dict(self.airflow.request("GET", f"/backfills/{id}"))

    def list_runs(self, backfill: Json) -> list[Json]:
        """Return the runs of the backfill's months in their order."""
        first, last = f"{backfill['from_date'][:7]}-01T00:00:00Z", f"{backfill['to_date'][:10]}T23:59:59Z"
        query = f"run_type=backfill&logical_date_gte={first}&logical_date_lte={last}&order_by=logical_date&limit=100"
        runs: list[Json] = []
        while True:
            page = self.airflow.request("GET", f"/dags/{DAG_ID}/dagRuns?{query}&offset={len(runs)}")
            runs += page["dag_runs"]
            if not page["dag_runs"] or len(runs) >= page["total_entries"]:
                return runs

    def describe_failure(self, run: Json) -> str:
        """Return the last lines of the log of the first task of a run that has failed."""
        for task_id, ti in self.airflow.get_task_instances(DAG_ID, run["dag_run_id"]).items():
            if ti["state"] == "failed":
                log = self.airflow.get_log(DAG_ID, run["dag_run_id"], task_id, ti["try_number"])
                lines = "\n".join(f"      {line}" for line in log.splitlines()[-LOG_LINES:])
                return f"  {format_month(run)}: {task_id} failed\n{lines}"
        return f"  {format_month(run)}: failed, though none of its tasks did: it was cancelled, or took too long"

    def count_sessions(self, run: Json) -> Counter[str]:
        """Return how many sessions' prices the run has committed, found committed, and made anew."""
        try:
            facts = self.airflow.get_xcom(DAG_ID, run["dag_run_id"], "fetch_prices", "facts")
        except ToolError:  # the step was not selected, was skipped, or has failed
            return Counter()
        return Counter({name: int(facts.get(name, 0)) for name in ("committed", "already_committed", "remade")})


def format_month(run: Json) -> str:
    """Return the month of a run, such as 2025-03."""
    return str(run["logical_date"])[:7]


def follow(client: BackfillClient, backfill: Json) -> list[Json]:
    """Print each month as it finishes, until Airflow has completed the backfill; return its runs."""
    started, states, was_paused = time.monotonic(), dict[str, str](), False
    while True:
        backfill = client.get(backfill["id"])
        runs = client.list_runs(backfill)
        for run in runs:
            state = run["state"]
            if states.get(run["dag_run_id"]) != state and state != "queued":
                states[run["dag_run_id"]] = state
                done = sum(other["state"] in FINISHED_STATES for other in runs)
                seconds = time.monotonic() - started
                print(f"  {seconds:6.0f} s  {format_month(run)}  {state:<8} {done} of {len(runs)} months", flush=True)
        if backfill["is_paused"] and not was_paused:
            print("  paused: no further month begins until it is resumed in the UI", flush=True)
        was_paused = backfill["is_paused"]
        if backfill["completed_at"] and all(run["state"] in FINISHED_STATES for run in runs):
            return runs
        time.sleep(POLL_SECONDS)


def backfill(airflow: AirflowClient, request: BackfillRequest, max_active_runs: int) -> bool:
    """Start, continue or follow the backfill; return whether all its months have succeeded.

    Raises ToolError if another one is active, or Airflow refuses it.
    """
    client = BackfillClient(airflow)
    latest = client.find_latest()
    if latest and not latest["completed_at"]:
        if (latest["dag_run_conf"] or {}) != request.conf:
            raise ToolError(
                f"backfill {latest['id']} of {DAG_ID} is active, from {latest['from_date'][:10]} to {latest['to_date'][:10]}, "
                "and Airflow runs one at a time: wait for it, or cancel it in the UI"
            )
        print(f"Backfill {latest['id']} is active; following it: {request}", flush=True)
        current = latest
    else:
        states = [run["state"] for run in client.list_runs(latest)] if latest else []
        reprocessing = choose_reprocessing(request.conf, latest, states)
        current = client.create(request, reprocessing, max_active_runs)
        continued = f", continuing backfill {latest['id']}" if latest and reprocessing == "failed" else ""
        print(f"Backfill {current['id']}{continued}: {request}", flush=True)
    started = time.monotonic()
    try:
        runs = follow(client, current)
    except KeyboardInterrupt:
        print(
            f"\nBackfill {current['id']} goes on in Airflow. Run the same command to follow it; pause or cancel it in the UI."
        )
        raise
    failed = [run for run in runs if run["state"] != "success"]
    summary = f"{len(runs) - len(failed)} of {len(runs)} months succeeded in {time.monotonic() - started:.0f} s"
    if counts := sum(map(client.count_sessions, runs), Counter()):
        summary += f"; prices of {counts['committed']} sessions committed, {counts['already_committed']} already committed"
        summary += f", {counts['remade']} of them made anew" if counts["remade"] else ""
    print(summary)
    for run in failed[:MAX_FAILURES_SHOWN]:
        print(client.describe_failure(run))
    if failed:
        print("Correct the cause, then run the same command: it continues with the months that failed.")
    return not failed


def main(arguments: list[str]) -> int:
    """Backfill the environment that the argument names; return the exit code."""
    try:
        require_programs("kubectl")
        request, deployment = read_request(os.environ), find_deployment(arguments[0])
        max_active_runs = (
            1 if set(request.steps) & set(ORDERED_STEPS) else read_int("BACKFILL_MAX_ACTIVE_RUNS") or MAX_ACTIVE_RUNS
        )
        with deployment.port_forward("airflow-api-server", 8080) as url:
            airflow = AirflowClient(url, "admin", deployment.read_secret("airflow-admin")["password"])
            airflow.unpause_dag(DAG_ID, timeout=30)
            return 0 if backfill(airflow, request, max_active_runs) else 1
    except ToolError as error:
        return print_error(error)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
