"""The heartbeats of Airflow's components in its database, read without importing Airflow, which takes seconds of CPU.

Relies on the columns latest_heartbeat, job_type, state and hostname of the table `job` (airflow.jobs.job.Job), and on the
options that airflow.jobs.job.health_check_threshold reads. If a column is renamed, `airflow_steps.liveness` runs Airflow's own
command instead.
"""

from __future__ import annotations

import configparser
import os
import re
import socket
from contextlib import suppress
from datetime import datetime, timedelta

import psycopg2

CONNECT_TIMEOUT_SECONDS = 10
# Section and option of the maximum age of a heartbeat.
THRESHOLDS = {
    "SchedulerJob": ("scheduler", "scheduler_health_check_threshold"),
    "TriggererJob": ("triggerer", "triggerer_health_check_threshold"),
    "DagProcessorJob": ("dag_processor", "health_check_threshold"),
}
DEFAULT_THRESHOLD_SECONDS = "30"
QUERY = """
SELECT max(latest_heartbeat) FROM job WHERE job_type = %s AND state = 'running' AND hostname = ANY(%s)
"""


def read_option(section: str, option: str) -> str:
    """Return an option of Airflow's configuration, from the environment or airflow.cfg; empty if neither sets it."""
    file = configparser.RawConfigParser(strict=False)
    file.read(os.path.join(os.environ.get("AIRFLOW_HOME", "/opt/airflow"), "airflow.cfg"))
    return os.environ.get(f"AIRFLOW__{section}__{option}".upper()) or str(file.get(section, option, fallback=""))


def get_threshold(job_type: str) -> timedelta:
    """Return the maximum age of a heartbeat, from the environment or airflow.cfg. Raises ValueError if it is no number."""
    return timedelta(seconds=float(read_option(*THRESHOLDS[job_type]) or DEFAULT_THRESHOLD_SECONDS))


def make_driver_uri(uri: str) -> str:
    """Return SQLAlchemy's URI of a Postgres database as the driver reads it."""
    return re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", uri)


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
    connection = psycopg2.connect(make_driver_uri(uri), connect_timeout=CONNECT_TIMEOUT_SECONDS)
    try:
        with connection.cursor() as cursor:
            cursor.execute(QUERY, (job_type, get_host_names()))
            row: tuple[datetime | None] = cursor.fetchone()
    finally:
        connection.close()
    return row[0]
