"""What `make doctor` reads from the metadata database, on Postgres with Airflow's own tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.errors import ParseImportError
from airflow.models.trigger import Trigger
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from step_contract.checks.findings import Finding

from .test_liveness import add_job

CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
DAG_IDS = ("market_daily", "market_smoke")
Run = Callable[..., dict[tuple[str, str], Finding]]


@pytest.fixture
def dags_folder(tmp_path: Path) -> Path:
    for dag_id in DAG_IDS:
        (tmp_path / f"{dag_id}.py").touch()
    return tmp_path


@pytest.fixture
def healthy(create_database: Callable[[], str]) -> Iterator[tuple[Session, str]]:
    """A database in which every component is alive and every DAG is parsed, and its URI."""
    uri = create_database()
    engine = create_engine(uri)
    with Session(engine) as session:
        for job_type in ("SchedulerJob", "DagProcessorJob", "TriggererJob"):
            add_job(session, job_type, hostname="10.0.0.7")
        session.add(DagBundleModel(name="dags-folder"))
        session.commit()
        for dag_id in DAG_IDS:
            dag = DagModel(dag_id=dag_id, bundle_name="dags-folder", is_stale=False, is_paused=False, max_active_tasks=16)
            dag.last_parsed_time = datetime.now(UTC)
            session.add(dag)
        session.commit()
        yield session, uri
    engine.dispose()


@pytest.fixture
def run(healthy: tuple[Session, str], dags_folder: Path) -> Run:
    def run_doctor(**variables: str) -> dict[tuple[str, str], Finding]:
        """Return what the program finds, by check and place."""
        healthy[0].commit()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
        settings = {CONNECTION: healthy[1], "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder)} | variables
        command = [sys.executable, "-X", "importtime", "-m", "airflow_steps.doctor", "--salt", "0", "database"]
        done = subprocess.run(command, env=inherited | settings, capture_output=True, text=True, check=True)
        assert "| airflow.settings" not in done.stderr, "importing Airflow takes seconds"
        findings = [Finding.parse(json.dumps(item)) for item in json.loads(done.stdout.splitlines()[-1])["findings"]]
        return {(finding.check, finding.where): finding for finding in findings if finding}

    return run_doctor


def list_bad(found: dict[tuple[str, str], Finding]) -> dict[tuple[str, str], str]:
    return {key: finding.message for key, finding in found.items() if finding.status != "ok"}


def test_a_healthy_airflow_has_only_ok_findings(run: Run) -> None:
    found = run()
    assert list_bad(found) == {}
    places = {("heartbeats", component) for component in ("scheduler", "dag-processor", "triggerer")}
    assert set(found) == places | {("database", ""), ("clock", ""), ("triggerer", ""), ("dags", "")}
    assert "1 alive, 0 of 1000 triggers running, 0 waiting" in found["triggerer", ""].message


def test_components_without_a_recent_heartbeat_are_named(healthy: tuple[Session, str], run: Run) -> None:
    from airflow.jobs.job import Job

    for job in healthy[0].query(Job):
        if job.job_type == "SchedulerJob":
            job.latest_heartbeat = datetime.now(UTC) - timedelta(minutes=5)
        elif job.job_type == "TriggererJob":
            job.state = "success"
    bad = list_bad(run())
    assert set(bad) == {("heartbeats", "scheduler"), ("heartbeats", "triggerer"), ("triggerer", "")}
    assert "the last heartbeat was 30" in bad["heartbeats", "scheduler"]
    assert "no job is registered" in bad["heartbeats", "triggerer"]


def add_trigger(session: Session, triggerer_id: int | None, age: timedelta) -> None:
    trigger: Any = Trigger(classpath="airflow_steps.trigger.StepTrigger", kwargs={})
    trigger.created_date, trigger.triggerer_id = datetime.now(UTC) - age, triggerer_id
    session.add(trigger)


def test_waiting_triggers_and_full_triggerers_are_reported(healthy: tuple[Session, str], run: Run) -> None:
    from airflow.jobs.job import Job

    session = healthy[0]
    [triggerer] = session.query(Job).filter_by(job_type="TriggererJob")
    add_trigger(session, triggerer.id, timedelta(hours=1))
    add_trigger(session, None, timedelta(seconds=1))
    found = run(AIRFLOW__TRIGGERER__CAPACITY="1")["triggerer", ""]
    assert found.status == "warning" and "1 of 1 triggers running, 1 waiting" in found.message
    add_trigger(session, None, timedelta(minutes=10))
    found = run()["triggerer", ""]
    assert found.status == "error" and "2 waiting, the first since" in found.message


def test_dags_that_fail_or_are_missing_or_paused_are_named(healthy: tuple[Session, str], run: Run, dags_folder: Path) -> None:
    session = healthy[0]
    daily = session.get(DagModel, "market_daily")
    assert daily
    daily.is_paused = True
    found = run()["dags", ""]
    assert found.status == "warning" and "paused: market_daily" in found.message
    daily.is_paused, daily.last_parsed_time = False, datetime.now(UTC) - timedelta(hours=2)
    assert "last parsed" in run()["dags", ""].message
    (dags_folder / "market_new.py").touch()
    found = run()["dags", ""]
    assert found.status == "error" and "market_new" in found.message
    trace = "Traceback (most recent call last):\n  File\nModuleNotFoundError: no module 'x'"
    session.add(ParseImportError(filename="market_new.py", bundle_name="dags-folder", stacktrace=trace, timestamp=None))
    (dags_folder / "market_new.py").unlink()
    found = run()["dags", ""]
    assert found.status == "error" and "market_new.py: ModuleNotFoundError: no module 'x'" in found.message


def test_a_database_that_does_not_respond_is_one_error_without_its_password(run: Run) -> None:
    found = run(**{CONNECTION: "postgresql+psycopg2://airflow:s3cret-word@127.0.0.1:9/airflow"})
    [(check, finding)] = found.items()
    assert check == ("database", "") and finding.status == "error" and "s3cret-word" not in finding.message
    assert "network.database" in finding.advice
