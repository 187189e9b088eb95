"""Runs a real scheduler past a scheduled time, after manual runs of the same day were triggered in every possible way.

A program: reads Airflow's settings from the environment, prints the runs as JSON on its last line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from airflow.api_fastapi.app import create_app
from airflow.cli.cli_parser import get_parser
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from sqlalchemy import select

DAG_FILE = """
from datetime import datetime
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow_steps.timetable import SessionTimetable

for name in {names}:
    schedule = SessionTimetable("0 18 * * *", timezone="Asia/Seoul")
    with DAG(name, schedule=schedule, start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1):
        EmptyOperator(task_id="step")
"""
DAG_IDS = ["untouched", "morning", "undated", "named", "exact", "exact_and_after", "intervals", "command"]
BUNDLE_NAME = "dags-folder"
WAIT_SECONDS = 120


def parse_dags(folder: Path) -> None:
    """Write the DAGs to the database, as the DAG processor does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "days.py").write_text(DAG_FILE.format(names=DAG_IDS))
    bag = DagBag(folder, bundle_path=folder, bundle_name=BUNDLE_NAME)
    assert not bag.import_errors, bag.import_errors
    with create_session() as session:
        if not session.get(DagBundleModel, BUNDLE_NAME):
            session.add(DagBundleModel(name=BUNDLE_NAME))
            session.flush()
        sync_bag_to_db(bag, BUNDLE_NAME, None, session=session)


def get_next_logical_date(dag_id: str) -> datetime:
    """Return the logical date of the DAG's next scheduled run."""
    with create_session() as session:
        logical_date = session.scalar(select(DagModel.next_dagrun).where(DagModel.dag_id == dag_id))
    assert logical_date is not None, dag_id
    return logical_date


def list_runs() -> list[dict[str, str]]:
    """Return every run in the order of creation."""
    with create_session() as session:
        return [
            {"dag": run.dag_id, "id": run.run_id, "type": run.run_type, "date": str(run.logical_date), "state": run.state}
            for run in session.scalars(select(DagRun).order_by(DagRun.id))
        ]


@contextmanager
def serve_api() -> Iterator[TestClient]:
    """Yield a client of Airflow's REST API, which the UI uses too."""
    with TestClient(create_app(apps="core")) as client:
        client.headers["Authorization"] = f"Bearer {client.get('/auth/token').json()['access_token']}"
        yield client


def trigger_manual_runs(due: datetime) -> dict[str, int]:
    """Trigger runs of the day that is `due`. Return the API's status code of each."""
    morning, after = (due - timedelta(hours=7, minutes=30)).isoformat(), (due + timedelta(seconds=1)).isoformat()
    local = due.astimezone(ZoneInfo("Asia/Seoul"))
    exact = {"logical_date": due.isoformat()}
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("morning", "morning", {"logical_date": morning}),
        ("no logical date", "undated", {}),
        ("session's run id", "named", {"dag_run_id": f"session__{local.date()}"}),
        ("scheduled run's id", "named", {"dag_run_id": f"scheduled__{local.isoformat()}"}),
        ("scheduled time", "exact", exact),
        ("scheduled time, first of two", "exact_and_after", exact),
        ("a second later", "exact_and_after", {"logical_date": after}),
        (
            "scheduled time with interval",
            "intervals",
            exact | {"data_interval_start": exact["logical_date"], "data_interval_end": after},
        ),
    ]
    codes = {}
    with serve_api() as client:
        for case, dag_id, body in bodies:
            codes[case] = client.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None} | body).status_code
    trigger = get_parser().parse_args(["dags", "trigger", "command", "--logical-date", due.isoformat(), "--output=json"])
    trigger.func(trigger)
    return codes


def run_scheduler() -> int | None:
    """Run a scheduler until each DAG has a finished scheduled run. Return its exit code if it exits before."""
    with subprocess.Popen([sys.executable, "-m", "airflow", "scheduler", "--skip-serve-logs"], stdout=sys.stderr) as scheduler:
        deadline = time.monotonic() + WAIT_SECONDS
        while scheduler.poll() is None and time.monotonic() < deadline:
            if {run["dag"] for run in list_runs() if run["type"] == "scheduled" and run["state"] == "success"} == set(DAG_IDS):
                break
            time.sleep(0.2)
        code = scheduler.poll()
        scheduler.terminate()
    return code


def main(folder: Path) -> None:
    """Trigger the manual runs, run the scheduler, print the runs. The DAGs are parsed again meanwhile, as every few minutes."""
    parse_dags(folder)
    due = get_next_logical_date("exact")
    codes = trigger_manual_runs(due)
    parse_dags(folder)
    exit_code = run_scheduler()
    parse_dags(folder)
    next_dates = {dag_id: str(get_next_logical_date(dag_id)) for dag_id in DAG_IDS}
    print(json.dumps({"due": str(due), "codes": codes, "exit_code": exit_code, "runs": list_runs(), "next_dates": next_dates}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
