"""The timetable, also with a real scheduler on Postgres: scheduled runs are created whatever runs were triggered manually."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
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

SETTINGS = {
    "AIRFLOW__API_AUTH__JWT_SECRET": "not-a-secret-of-anyone",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PARALLELISM": "1",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
}


@pytest.fixture(scope="module")
def outcome(
    create_database: Callable[[], str], run_program: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Return the output of run_scheduler.py."""
    home = tmp_path_factory.mktemp("airflow")
    output: dict[str, Any] = run_program("run_scheduler.py", home, create_database(), SETTINGS, str(home / "dags"))
    return output


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
def test_a_scheduled_run_is_created_after_any_manual_run(outcome: dict[str, Any], dag: str, seconds: int) -> None:
    """In the next free second if a manual run has its logical date."""
    date = datetime.fromisoformat(outcome["due"]) + timedelta(seconds=seconds)
    scheduled = [run for run in outcome["runs"] if run["dag"] == dag and run["type"] == "scheduled"]
    assert outcome["exit_code"] is None
    assert [(run["date"], run["state"]) for run in scheduled] == [(str(date), "success")]
    assert scheduled[0]["id"] == f"scheduled__{pendulum.instance(date).in_timezone('Asia/Seoul').isoformat()}"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_next_scheduled_run_is_a_day_later(outcome: dict[str, Any]) -> None:
    assert set(outcome["next_dates"].values()) == {str(datetime.fromisoformat(outcome["due"]) + timedelta(days=1))}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_manual_run_keeps_its_id_and_cannot_take_the_scheduled_runs(outcome: dict[str, Any]) -> None:
    manual = [run["id"] for run in outcome["runs"] if run["type"] == "manual"]
    session = datetime.fromisoformat(outcome["due"]).date()
    assert [name for name in manual if not name.startswith("manual__")] == [f"session__{session}"]
    rejected = outcome["codes"].pop("scheduled run's id")
    assert rejected == 400 and set(outcome["codes"].values()) == {200}


NOW = pendulum.datetime(2026, 3, 20, 12, tz="UTC")  # three hours after the scheduled time


def make_run(day: str, run_type: str = "scheduled", end: pendulum.DateTime | None = None) -> DagRun:
    """Return a run of the session `day` at the scheduled time; its data interval ends then, or at `end`."""
    date = pendulum.instance(datetime.fromisoformat(f"{day}T09:00+00:00"))
    kind, interval = DagRunType(run_type), (date, end or date)
    return DagRun("market_daily", "any", logical_date=date, run_after=date, run_type=kind, data_interval=interval)


def get_next_session(last: DagRun | None, *, catchup: bool = False, latest: pendulum.DateTime | None = None) -> str | None:
    """Return the local time of the run after `last`, computed at NOW."""
    schedule = SessionTimetable("0 18 * * *", timezone="Asia/Seoul")
    with time_machine.travel(NOW, tick=False):
        info = schedule.next_dagrun_info_v2(
            last_dagrun_info=last and schedule.run_info_from_dag_run(dag_run=last),
            restriction=TimeRestriction(pendulum.datetime(1995, 5, 2, tz="Asia/Seoul"), latest, catchup),
        )
    return info.logical_date.in_timezone("Asia/Seoul").isoformat()[:19] if info and info.logical_date else None


def test_missed_runs_are_created_within_a_week() -> None:
    assert get_next_session(make_run("2026-03-17")) == "2026-03-18T18:00:00"
    assert get_next_session(make_run("2026-03-19")) == "2026-03-20T18:00:00"
    assert get_next_session(make_run("2026-03-20")) == "2026-03-21T18:00:00"
    assert get_next_session(make_run("2026-01-15")) == "2026-03-14T18:00:00"
    assert get_next_session(make_run("2026-01-15"), catchup=True) == "2026-01-16T18:00:00"


def test_a_first_deployment_starts_with_the_latest_day() -> None:
    assert get_next_session(None) == "2026-03-20T18:00:00"


def test_a_manual_data_interval_does_not_stop_the_schedule() -> None:
    """As that of a manual run that a backfill has taken over."""
    taken_over = make_run("2026-03-19", "backfill", NOW.add(days=30))
    assert get_next_session(taken_over) == "2026-03-20T18:00:00"


@pytest.mark.parametrize("run_type", ["manual", "operator_triggered", "asset_materialization"])
def test_a_run_that_is_not_scheduled_does_not_replace_the_days_run(run_type: str) -> None:
    assert get_next_session(make_run("2026-03-20", run_type)) == "2026-03-20T18:00:01"


def test_no_run_is_created_after_the_end_date() -> None:
    at = pendulum.datetime(2026, 3, 20, 9, tz="UTC")
    assert get_next_session(make_run("2026-03-20", "manual"), latest=at) is None
    assert get_next_session(make_run("2026-03-19"), latest=at) == "2026-03-20T18:00:00"
    assert get_next_session(make_run("2026-03-20"), latest=at) is None


def test_the_daily_dag_rejects_runs_of_other_dags_and_assets(dag: DAG) -> None:
    """They could take a scheduled run's id, which stops the scheduler."""
    assert dag.allowed_run_types == frozenset(map(AllowedRunType, ("scheduled", "manual", "backfill")))


def test_two_scheduled_runs_of_one_day_have_different_ids() -> None:
    """As after the schedule moved to a later hour of the same day."""
    schedule = SessionTimetable("0 18 * * *", timezone="Asia/Seoul")
    run_ids = []
    for hour in (9, 10):
        at = DataInterval.exact(pendulum.datetime(2026, 1, 14, hour, tz="UTC"))
        run_ids.append(schedule.generate_run_id(run_type=DagRunType.SCHEDULED, run_after=at.end, data_interval=at))
    assert run_ids == ["scheduled__2026-01-14T18:00:00+09:00", "scheduled__2026-01-14T19:00:00+09:00"]


def test_the_timetable_survives_serialization() -> None:
    schedule = SessionTimetable("0 18 * * *", timezone="Asia/Seoul")
    assert isinstance(decode_timetable(encode_timetable(schedule)), SessionTimetable)
