"""A liveness probe of an Airflow component's heartbeat that does not import Airflow.

    python -m airflow_steps.liveness SchedulerJob

It checks what `airflow jobs check --local` checks, by one query. That command takes seconds of CPU to import Airflow, and every
scheduler, triggerer and DAG processor is probed every minute, a scheduler every two seconds while it starts.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import NoReturn

import psycopg2

from airflow_steps.airflow_internals.heartbeats import get_host_names, get_last_heartbeat, get_threshold

CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"


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
