"""A real scheduler on Postgres, past a schedule: the scheduled run comes, whatever a person started before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
import time_machine
from airflow.models.dagrun import DagRun
from airflow.sdk import DAG
from airflow.sdk.api.datamodels._generated import DagRunType as AllowedRunType
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.utils.types import DagRunType
from airflow_steps.timetable import SessionTimetable

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
def past(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came out of run_scheduler.py."""
    home = tmp_path_factory.mktemp("airflow")
    places = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    command = [sys.executable, str(HERE / "run_scheduler.py"), str(home / "dags")]
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


NOW = pendulum.datetime(2026, 3, 20, 12, tz="UTC")  # three hours after the day's schedule


def run_of(day: str, run_type: str = "scheduled", end: pendulum.DateTime | None = None) -> DagRun:
    """A run of the session `day` at the schedule's instant; its data interval ends then, or at `end`."""
    date = pendulum.instance(datetime.fromisoformat(f"{day}T09:00+00:00"))
    kind, interval = DagRunType(run_type), (date, end or date)
    return DagRun("market_daily", "any", logical_date=date, run_after=date, run_type=kind, data_interval=interval)


def next_session(last: DagRun | None, *, catchup: bool = False, latest: pendulum.DateTime | None = None) -> str | None:
    """The local time of the run that follows `last` at NOW."""
    schedule = SessionTimetable("0 18 * * *", timezone="Asia/Seoul")
    with time_machine.travel(NOW, tick=False):
        info = schedule.next_dagrun_info_v2(
            last_dagrun_info=last and schedule.run_info_from_dag_run(dag_run=last),
            restriction=TimeRestriction(pendulum.datetime(1995, 5, 2, tz="Asia/Seoul"), latest, catchup),
        )
    return info.logical_date.in_timezone("Asia/Seoul").isoformat()[:19] if info and info.logical_date else None


def test_days_that_could_not_start_are_made_up_for_within_a_week() -> None:
    assert next_session(run_of("2026-03-17")) == "2026-03-18T18:00:00"
    assert next_session(run_of("2026-03-19")) == "2026-03-20T18:00:00"
    assert next_session(run_of("2026-03-20")) == "2026-03-21T18:00:00"
    assert next_session(run_of("2026-01-15")) == "2026-03-14T18:00:00"
    assert next_session(run_of("2026-01-15"), catchup=True) == "2026-01-16T18:00:00"


def test_a_first_deployment_begins_with_the_latest_day() -> None:
    assert next_session(None) == "2026-03-20T18:00:00"


def test_an_interval_that_a_person_gave_does_not_stop_the_schedule() -> None:
    """As of a run by hand that a backfill has taken over."""
    taken_over = run_of("2026-03-19", "backfill", NOW.add(days=30))
    assert next_session(taken_over) == "2026-03-20T18:00:00"


@pytest.mark.parametrize("run_type", ["manual", "operator_triggered", "asset_materialization"])
def test_after_any_run_that_is_not_scheduled_the_same_day_comes(run_type: str) -> None:
    assert next_session(run_of("2026-03-20", run_type)) == "2026-03-20T18:00:01"


def test_no_run_comes_after_the_end_date() -> None:
    at = pendulum.datetime(2026, 3, 20, 9, tz="UTC")
    assert next_session(run_of("2026-03-20", "manual"), latest=at) is None
    assert next_session(run_of("2026-03-19"), latest=at) == "2026-03-20T18:00:00"
    assert next_session(run_of("2026-03-20"), latest=at) is None


def test_the_daily_dag_refuses_runs_of_other_dags_and_assets(dag: DAG) -> None:
    """They could take a scheduled run's name, which stops the scheduler."""
    assert dag.allowed_run_types == frozenset(map(AllowedRunType, ("scheduled", "manual", "backfill")))


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
