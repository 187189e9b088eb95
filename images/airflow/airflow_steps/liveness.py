"""Probe a component's heartbeat without importing Airflow.

    python -m airflow_steps.liveness SchedulerJob

Asks what `airflow jobs check --local` asks, by one query. That command takes seconds of CPU to import Airflow, and every
scheduler, triggerer and DAG processor is probed every minute, a scheduler every two seconds while it starts.
"""

from __future__ import annotations

import configparser
import os
import re
import socket
import sys
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import psycopg2

CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
CONNECT_SECONDS = 10
# The option that holds how old a heartbeat may be, and its default in seconds: airflow.jobs.job.health_check_threshold.
THRESHOLDS = {
    "SchedulerJob": ("scheduler", "scheduler_health_check_threshold"),
    "TriggererJob": ("triggerer", "triggerer_health_check_threshold"),
    "DagProcessorJob": ("dag_processor", "health_check_threshold"),
}
DEFAULT_SECONDS = "30"
QUERY = """
SELECT max(latest_heartbeat) FROM job WHERE job_type = %s AND state = 'running' AND hostname = ANY(%s)
"""


def threshold(job_type: str) -> timedelta:
    """Return how old a heartbeat may be, from the environment or airflow.cfg. Raises ValueError where it is no number."""
    section, option = THRESHOLDS[job_type]
    file = configparser.RawConfigParser(strict=False)
    file.read(os.path.join(os.environ.get("AIRFLOW_HOME", "/opt/airflow"), "airflow.cfg"))
    given = os.environ.get(f"AIRFLOW__{section}__{option}".upper()) or file.get(section, option, fallback="")
    return timedelta(seconds=float(given or DEFAULT_SECONDS))


def own_names() -> list[str]:
    """Return the names under which this host may have registered: `[core] hostname_callable` chooses one of them."""
    host = socket.gethostname()
    return [host, socket.getfqdn(), socket.gethostbyname(host)]


def last_heartbeat(job_type: str, uri: str) -> datetime | None:
    """Return the last heartbeat of a running job of this type on this host, None without one.

    Raises psycopg2.OperationalError where the database does not answer.
    """
    connection = psycopg2.connect(re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", uri), connect_timeout=CONNECT_SECONDS)
    try:
        with connection.cursor() as cursor:
            cursor.execute(QUERY, (job_type, own_names()))
            row: tuple[datetime | None] = cursor.fetchone()
    finally:
        connection.close()
    return row[0]


def ask_airflow(job_type: str) -> NoReturn:
    """Become the command that the chart's own probe is."""
    os.execvp("airflow", ["airflow", "jobs", "check", "--job-type", job_type, "--local"])  # noqa: S606 no shell is wanted


def main(job_type: str) -> int:
    """Return 0 where the job is alive, else 1; prints what was found."""
    uri = os.environ.get(CONNECTION, "")
    if not uri.startswith("postgres"):  # in a file, from a command, from a secrets backend: Airflow knows them all
        return ask_airflow(job_type)
    try:
        found = last_heartbeat(job_type, uri)
    except psycopg2.ProgrammingError:  # an option of SQLAlchemy in the address, or a table of another version of Airflow
        return ask_airflow(job_type)
    except psycopg2.Error as error:
        print(f"{job_type}: the metadata database does not answer: {str(error).strip()}")
        return 1
    if found is None:
        print(f"{job_type}: no running job is registered for {', '.join(own_names())}")
        return 1
    age, bound = datetime.now(UTC) - found, threshold(job_type)
    print(f"{job_type}: last heartbeat {age.total_seconds():.0f} s ago, at most {bound.total_seconds():.0f} s are allowed")
    return 0 if age < bound else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
