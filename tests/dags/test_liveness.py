"""The probe of a component's heartbeat, on Postgres, with the table that Airflow's own model makes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.jobs.job import Job
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

ADDRESS = socket.gethostbyname(socket.gethostname())
CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


@pytest.fixture(scope="module")
def database(postgres: str) -> Iterator[Engine]:
    engine = create_engine(postgres)
    Job.metadata.tables["job"].create(engine, checkfirst=True)
    yield engine
    engine.dispose()


@pytest.fixture
def jobs(database: Engine) -> Iterator[Session]:
    with Session(database) as session:
        session.query(Job).delete()
        session.commit()
        yield session


def add(
    jobs: Session, job_type: str = "SchedulerJob", hostname: str = ADDRESS, state: str = "running", seconds: float = 3
) -> None:
    """A job whose last heartbeat was `seconds` ago."""
    job = Job()
    job.job_type, job.hostname, job.state = job_type, hostname, state
    job.latest_heartbeat = datetime.now(UTC) - timedelta(seconds=seconds)
    jobs.add(job)
    jobs.commit()


def probe(job_type: str, connection: str, **variables: str) -> tuple[int, str]:
    """The exit code and what is printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    done = subprocess.run(
        [sys.executable, "-m", "airflow_steps.liveness", job_type],
        env=inherited | {CONNECTION: connection} | variables,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("job_type", ["SchedulerJob", "TriggererJob", "DagProcessorJob"])
def test_a_component_with_a_heartbeat_is_alive(jobs: Session, postgres: str, job_type: str) -> None:
    add(jobs, job_type)
    code, printed = probe(job_type, postgres)
    assert code == 0 and f"{job_type}: last heartbeat" in printed


@pytest.mark.parametrize(
    "job",
    [{"seconds": 31}, {"state": "success"}, {"hostname": "10.0.0.99"}, {"job_type": "TriggererJob"}],
    ids=["an old heartbeat", "a job that has ended", "another host", "another component"],
)
def test_a_component_is_not_alive_by(jobs: Session, postgres: str, job: dict[str, object]) -> None:
    add(jobs, **job)  # type: ignore[arg-type]
    assert probe("SchedulerJob", postgres)[0] == 1


def test_the_latest_job_of_the_host_counts(jobs: Session, postgres: str) -> None:
    """A container that was killed leaves a job of the same pod that is running for ever."""
    add(jobs, seconds=3600)
    add(jobs, seconds=1)
    assert probe("SchedulerJob", postgres)[0] == 0


def test_the_threshold_is_the_deployments(jobs: Session, postgres: str, tmp_path: Path) -> None:
    add(jobs, seconds=40)
    (tmp_path / "airflow.cfg").write_text("[scheduler]\nscheduler_health_check_threshold = 60\npassword = 100%sure\n")
    assert probe("SchedulerJob", postgres, AIRFLOW_HOME=str(tmp_path))[0] == 0
    variable = {"AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20"}
    assert probe("SchedulerJob", postgres, AIRFLOW_HOME=str(tmp_path), **variable)[0] == 1


def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    code, printed = probe("SchedulerJob", "postgresql+psycopg2://airflow:secret@127.0.0.1:9/airflow")
    assert code == 1
    assert "metadata database" in printed and "secret" not in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    "connection", ["sqlite:////tmp/airflow.db", "postgresql://u:p@127.0.0.1:9/airflow?executemany_mode=values"]
)
def test_another_database_is_left_to_airflows_own_command(tmp_path: Path, connection: str) -> None:
    (tmp_path / "airflow").write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    (tmp_path / "airflow").chmod(0o755)
    code, printed = probe("TriggererJob", connection, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (code, printed.strip()) == (3, "jobs check --job-type TriggererJob --local")


def test_the_probe_does_not_import_airflow() -> None:
    program = "import sys, airflow_steps.liveness; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
