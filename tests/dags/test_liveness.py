"""The liveness probe, on Postgres, with the table of Airflow's own model."""

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
from airflow_steps.airflow_internals import heartbeats
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


def add_job(
    jobs: Session, job_type: str = "SchedulerJob", hostname: str = ADDRESS, state: str = "running", seconds: float = 3
) -> None:
    """Add a job whose last heartbeat was `seconds` ago."""
    job = Job()
    job.job_type, job.hostname, job.state = job_type, hostname, state
    job.latest_heartbeat = datetime.now(UTC) - timedelta(seconds=seconds)
    jobs.add(job)
    jobs.commit()


def run_probe(job_type: str, connection: str, **variables: str) -> tuple[int, str]:
    """Return the exit code and the output."""
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
    add_job(jobs, job_type)
    code, output = run_probe(job_type, postgres)
    assert code == 0 and f"{job_type}: last heartbeat" in output


@pytest.mark.parametrize(
    "job",
    [{"seconds": 31}, {"state": "success"}, {"hostname": "10.0.0.99"}, {"job_type": "TriggererJob"}],
    ids=["old heartbeat", "finished job", "another host", "another component"],
)
def test_a_component_is_not_alive(jobs: Session, postgres: str, job: dict[str, object]) -> None:
    add_job(jobs, **job)  # type: ignore[arg-type]
    assert run_probe("SchedulerJob", postgres)[0] == 1


def test_the_hosts_latest_heartbeat_counts(jobs: Session, postgres: str) -> None:
    """A killed container leaves a job of the same pod that stays in the state running."""
    add_job(jobs, seconds=3600)
    add_job(jobs, seconds=1)
    assert run_probe("SchedulerJob", postgres)[0] == 0


def test_the_threshold_is_read_from_airflows_configuration(jobs: Session, postgres: str, tmp_path: Path) -> None:
    add_job(jobs, seconds=40)
    (tmp_path / "airflow.cfg").write_text("[scheduler]\nscheduler_health_check_threshold = 60\npassword = 100%sure\n")
    assert run_probe("SchedulerJob", postgres, AIRFLOW_HOME=str(tmp_path))[0] == 0
    variable = {"AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20"}
    assert run_probe("SchedulerJob", postgres, AIRFLOW_HOME=str(tmp_path), **variable)[0] == 1


def test_an_unreachable_database_is_reported_without_its_password() -> None:
    code, output = run_probe("SchedulerJob", "postgresql+psycopg2://airflow:secret@127.0.0.1:9/airflow")
    assert code == 1
    assert "metadata database" in output and "secret" not in output and "Traceback" not in output


@pytest.mark.parametrize(
    "connection", ["sqlite:////tmp/airflow.db", "postgresql://u:p@127.0.0.1:9/airflow?executemany_mode=values"]
)
def test_other_connections_are_checked_by_airflows_own_command(tmp_path: Path, connection: str) -> None:
    (tmp_path / "airflow").write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    (tmp_path / "airflow").chmod(0o755)
    code, output = run_probe("TriggererJob", connection, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (code, output.strip()) == (3, "jobs check --job-type TriggererJob --local")


def test_a_host_that_cannot_resolve_its_name_is_probed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(host: str) -> str:
        raise socket.gaierror(f"{host}: name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", fail)
    assert socket.gethostname() in heartbeats.get_host_names()


def test_the_probe_does_not_import_airflow() -> None:
    program = "import sys, airflow_steps.liveness; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
