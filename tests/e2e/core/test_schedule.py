"""A DAG of market_daily's timetable that is due: its scheduled runs come, whatever was started by hand before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from devtools.airflow_client import AirflowClient

from ..conftest import kubectl, unpause, wait_until

DAG = "drill_schedule"


def restarts() -> int:
    """How often the schedulers' containers have been started again."""
    pods = json.loads(kubectl("get", "pods", "--selector=component=scheduler", "--output=json"))["items"]
    return sum(status["restartCount"] for pod in pods for status in pod["status"]["containerStatuses"])


def runs(airflow: AirflowClient, kind: str) -> dict[datetime, dict[str, Any]]:
    """The DAG's runs of a kind by logical date."""
    found = airflow.call("GET", f"/dags/{DAG}/dagRuns?run_type={kind}&order_by=-id")["dag_runs"]
    return {datetime.fromisoformat(run["logical_date"]): run for run in found if run["logical_date"]}


@pytest.fixture
def due(airflow: AirflowClient) -> Iterator[datetime]:
    """The logical date of the next scheduled run, some seconds ahead; the DAG runs for the while."""
    unpause(airflow, DAG)

    def ahead() -> datetime | None:
        following = airflow.call("GET", f"/dags/{DAG}")["next_dagrun_logical_date"]
        date = datetime.fromisoformat(following) if following else None
        return date if date and date - datetime.now(date.tzinfo) > timedelta(seconds=10) else None

    yield wait_until("a scheduled run that is some seconds ahead", ahead, 120)
    airflow.call("PATCH", f"/dags/{DAG}", {"is_paused": True})


@pytest.mark.timeout(300)
def test_a_scheduled_run_comes_after_runs_by_hand_of_its_minute(airflow: AirflowClient, due: datetime) -> None:
    before = restarts()
    started = {"by the session's name": {"dag_run_id": f"session__{due.date()}", "logical_date": None}}
    started["at its instant"] = {"logical_date": due.isoformat()}
    started["a moment before"] = {"logical_date": (due - timedelta(seconds=7)).isoformat()}
    for body in started.values():
        airflow.call("POST", f"/dags/{DAG}/dagRuns", body)
    beside, following = due + timedelta(seconds=1), due + timedelta(minutes=1)
    wait_until("the scheduled run beside it", lambda: runs(airflow, "scheduled").get(beside), 120)
    wait_until("the next one", lambda: runs(airflow, "scheduled").get(following, {}).get("state") == "success", 120)
    assert runs(airflow, "scheduled")[beside]["state"] == "success"
    assert due not in runs(airflow, "scheduled") and due in runs(airflow, "manual")
    assert restarts() == before
