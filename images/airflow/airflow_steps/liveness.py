"""A liveness probe of an Airflow component's heartbeat that does not import Airflow.

    python -m airflow_steps.liveness SchedulerJob

It checks what `airflow jobs check --local` checks, by one query. That command takes seconds of CPU to import Airflow, and every
scheduler, triggerer and DAG processor is probed every minute, a scheduler every two seconds while it starts.
"""

from __future__ import annotations

import configparser
import os
import re
import socket
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import psycopg2

CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
CONNECT_TIMEOUT_SECONDS = 10
# Section and option of the maximum age of a heartbeat: airflow.jobs.job.health_check_threshold.
THRESHOLDS = {
    "SchedulerJob": ("scheduler", "scheduler_health_check_threshold"),
    "TriggererJob": ("triggerer", "triggerer_health_check_threshold"),
    "DagProcessorJob": ("dag_processor", "health_check_threshold"),
}
DEFAULT_THRESHOLD_SECONDS = "30"
QUERY = """
SELECT max(latest_heartbeat) FROM job WHERE job_type = %s AND state = 'running' AND hostname = ANY(%s)
"""


def get_threshold(job_type: str) -> timedelta:
    """Return the maximum age of a heartbeat, from the environment or airflow.cfg. Raises ValueError if it is no number."""
    section, option = THRESHOLDS[job_type]
    file = configparser.RawConfigParser(strict=False)
    file.read(os.path.join(os.environ.get("AIRFLOW_HOME", "/opt/airflow"), "airflow.cfg"))
    value = os.environ.get(f"AIRFLOW__{section}__{option}".upper()) or file.get(section, option, fallback="")
    return timedelta(seconds=float(value or DEFAULT_THRESHOLD_SECONDS))


def get_host_names() -> list[str]:
    """Return the names under which this host may have registered: `[core] hostname_callable` chooses one of them."""
    host = socket.gethostname()
    names = [host, socket.getfqdn()]
    with suppress(OSError):  # a host that cannot resolve its own name has registered under one of the others
        names.append(socket.gethostbyname(host))
    return names


def get_last_heartbeat(job_type: str, uri: str) -> datetime | None:
    """Return the last heartbeat (UTC) of a running job of this type on this host, or None if there is none.

    Raises psycopg2.OperationalError if the database does not respond.
    """
    connection = psycopg2.connect(
        re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", uri), connect_timeout=CONNECT_TIMEOUT_SECONDS
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(QUERY, (job_type, get_host_names()))
            row: tuple[datetime | None] = cursor.fetchone()
    finally:
        connection.close()
    return row[0]


def run_airflow_check(job_type: str) -> NoReturn:
    """Replace this process by Airflow's own command, which the chart's default probe runs."""
    os.execvp("airflow", ["airflow", "jobs", "check", "--job-type", job_type, "--local"])  # noqa: S606 no shell is wanted


def main(job_type: str) -> int:
    """Print the age of the last heartbeat. Return 0 if the job is alive, else 1."""
    uri = os.environ.get(CONNECTION, "")
    if not uri.startswith("postgres"):  # a file, a command or a secrets backend, which Airflow reads
        return run_airflow_check(job_type)
    try:
        heartbeat = get_last_heartbeat(job_type, uri)
    except psycopg2.ProgrammingError:  # an option of SQLAlchemy in the URI, or another version of the table
        return run_airflow_check(job_type)
    except psycopg2.Error as error:
        print(f"{job_type}: the metadata database does not respond: {str(error).strip()}")
        return 1
    if heartbeat is None:
        print(f"{job_type}: no running job is registered for {', '.join(get_host_names())}")
        return 1
    age, threshold = datetime.now(UTC) - heartbeat, get_threshold(job_type)
    print(f"{job_type}: last heartbeat {age.total_seconds():.0f} s ago; the threshold is {threshold.total_seconds():.0f} s")
    return 0 if age < threshold else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
