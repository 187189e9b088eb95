"""Runs a real scheduler past a schedule after a person has started runs of the same day in every way there is.

A program: reads Airflow's settings from the environment, prints what came out as JSON on its last line.
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
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from sqlalchemy import select

FILE = """
from datetime import datetime
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow_steps.timetable import SessionTimetable

for name in {names}:
    schedule = SessionTimetable("0 18 * * *", timezone="Asia/Seoul")
    with DAG(name, schedule=schedule, start_date=datetime(2026, 1, 1), catchup=False, max_active_runs=1):
        EmptyOperator(task_id="step")
"""
NAMES = ["untouched", "morning", "undated", "named", "exact", "exact_and_after", "intervals", "command"]
BUNDLE = "dags-folder"
WAIT_SECONDS = 60


def parse(folder: Path) -> None:
    """Hands a DAG of each name to the database, as the DAG processor does."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "days.py").write_text(FILE.format(names=NAMES))
    bag = DagBag(folder, bundle_path=folder, bundle_name=BUNDLE)
    assert not bag.import_errors, bag.import_errors
    with create_session() as session:
        if not session.get(DagBundleModel, BUNDLE):
            session.add(DagBundleModel(name=BUNDLE))
            session.flush()
        sync_bag_to_db(bag, BUNDLE, None, session=session)


def next_logical_date(name: str) -> datetime:
    """The logical date of the DAG's next scheduled run."""
    with create_session() as session:
        found = session.scalar(select(DagModel.next_dagrun).where(DagModel.dag_id == name))
    assert found is not None, name
    return found


def runs() -> list[dict[str, str]]:
    """Every run, the first created first."""
    with create_session() as session:
        return [
            {"dag": run.dag_id, "id": run.run_id, "type": run.run_type, "date": str(run.logical_date), "state": run.state}
            for run in session.scalars(select(DagRun).order_by(DagRun.id))
        ]


@contextmanager
def api() -> Iterator[TestClient]:
    """Airflow's REST API, which the UI uses as well."""
    with TestClient(create_app(apps="core")) as client:
        client.headers["Authorization"] = f"Bearer {client.get('/auth/token').json()['access_token']}"
        yield client


def start_by_hand(due: datetime) -> dict[str, int]:
    """Starts runs of the day that is `due`; returns the API's status codes by what was tried."""
    morning, after = (due - timedelta(hours=7, minutes=30)).isoformat(), (due + timedelta(seconds=1)).isoformat()
    local = due.astimezone(ZoneInfo("Asia/Seoul"))
    exact = {"logical_date": due.isoformat()}
    bodies: list[tuple[str, str, dict[str, Any]]] = [
        ("in the morning", "morning", {"logical_date": morning}),
        ("without a date", "undated", {}),
        ("by the session's name", "named", {"dag_run_id": f"session__{local.date()}"}),
        ("by the scheduled run's name", "named", {"dag_run_id": f"scheduled__{local.isoformat()}"}),
        ("at the schedule's instant", "exact", exact),
        ("there, of two", "exact_and_after", exact),
        ("a second after", "exact_and_after", {"logical_date": after}),
        ("with its interval", "intervals", exact | {"data_interval_start": exact["logical_date"], "data_interval_end": after}),
    ]
    codes = {}
    with api() as client:
        for what, dag, body in bodies:
            codes[what] = client.post(f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None} | body).status_code
    trigger = get_parser().parse_args(["dags", "trigger", "command", "--logical-date", due.isoformat(), "--output=json"])
    trigger.func(trigger)
    return codes


def schedule() -> int | None:
    """Runs a scheduler until a scheduled run of each DAG has ended; returns its exit code where it ends before."""
    with subprocess.Popen([sys.executable, "-m", "airflow", "scheduler", "--skip-serve-logs"], stdout=sys.stderr) as scheduler:
        until = time.monotonic() + WAIT_SECONDS
        while scheduler.poll() is None and time.monotonic() < until:
            if {run["dag"] for run in runs() if run["type"] == "scheduled" and run["state"] == "success"} == set(NAMES):
                break
            time.sleep(0.2)
        code = scheduler.poll()
        scheduler.terminate()
    return code


def main(folder: Path) -> None:
    """All of it; the DAGs are parsed once more while the scheduled runs are due, as they are every few minutes."""
    initdb()
    parse(folder)
    due = next_logical_date("exact")
    codes = start_by_hand(due)
    parse(folder)
    crashed = schedule()
    parse(folder)
    following = {name: str(next_logical_date(name)) for name in NAMES}
    print(json.dumps({"due": str(due), "codes": codes, "crashed": crashed, "runs": runs(), "following": following}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
