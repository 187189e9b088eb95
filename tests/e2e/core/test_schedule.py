"""A DAG with market_daily's timetable: manual runs do not prevent its scheduled runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from devtools.airflow_client import AirflowClient

from ..conftest import kubectl, wait_until

DAG = "drill_schedule"


def count_restarts() -> int:
    """Return the number of restarts of the schedulers' containers."""
    pods = json.loads(kubectl("get", "pods", "--selector=component=scheduler", "--output=json"))["items"]
    return sum(status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"])


def get_runs(airflow: AirflowClient, run_type: str) -> dict[datetime, dict[str, Any]]:
    """Return the DAG's runs of a type by logical date."""
    runs = airflow.request("GET", f"/dags/{DAG}/dagRuns?run_type={run_type}&order_by=-id")["dag_runs"]
    return {datetime.fromisoformat(run["logical_date"]): run for run in runs if run["logical_date"]}


@pytest.fixture
def due(airflow: AirflowClient) -> Iterator[datetime]:
    """The logical date of the next scheduled run, at least ten seconds ahead; the DAG is unpaused during the test."""
    airflow.unpause_dag(DAG)

    def get_next_date() -> datetime | None:
        next_date = airflow.request("GET", f"/dags/{DAG}")["next_dagrun_logical_date"]
        date = datetime.fromisoformat(next_date) if next_date else None
        return date if date and date - datetime.now(date.tzinfo) > timedelta(seconds=10) else None

    yield wait_until("a scheduled run at least ten seconds ahead", get_next_date, 120)
    airflow.request("PATCH", f"/dags/{DAG}", {"is_paused": True})


@pytest.mark.schedule
@pytest.mark.timeout(600)
def test_manual_runs_do_not_prevent_a_scheduled_run(airflow: AirflowClient, due: datetime) -> None:
    restarts = count_restarts()
    manual_runs = (
        {"dag_run_id": f"session__{due.date()}", "logical_date": None},
        {"logical_date": due.isoformat()},
        {"logical_date": (due - timedelta(seconds=7)).isoformat()},
    )
    for body in manual_runs:
        airflow.request("POST", f"/dags/{DAG}/dagRuns", body)
    shifted, following = due + timedelta(seconds=1), due + timedelta(minutes=1)
    wait_until("the scheduled run a second later", lambda: get_runs(airflow, "scheduled").get(shifted), 120)
    wait_until(
        "the next scheduled run", lambda: get_runs(airflow, "scheduled").get(following, {}).get("state") == "success", 120
    )
    assert get_runs(airflow, "scheduled")[shifted]["state"] == "success"
    assert due not in get_runs(airflow, "scheduled") and due in get_runs(airflow, "manual")
    assert count_restarts() == restarts
