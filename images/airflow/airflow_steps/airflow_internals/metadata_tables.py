"""The state of Airflow in its database, read without importing Airflow, which takes seconds of CPU.

Relies on columns of the tables `job` (latest_heartbeat, job_type, state, hostname), `trigger` (triggerer_id, created_date),
`import_error` (filename, stacktrace) and `dag` (dag_id, is_paused, is_stale, last_parsed_time). If one is renamed,
`make doctor` reports that the query failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2

from airflow_steps.airflow_internals.heartbeats import CONNECT_TIMEOUT_SECONDS, make_driver_uri

STATEMENT_TIMEOUT_MS = 10_000


@dataclass(frozen=True)
class Job:
    """A running job of a component, by the last process that registered on its host.

    Attributes:
        triggers: how many triggers it runs, if it is a triggerer.
    """

    job_type: str
    hostname: str
    latest_heartbeat: datetime
    triggers: int


@dataclass(frozen=True)
class Dag:
    """A DAG that Airflow knows and whose file exists."""

    dag_id: str
    is_paused: bool
    last_parsed_time: datetime | None


JOBS = """
SELECT DISTINCT ON (job_type, hostname) job_type, hostname, latest_heartbeat,
       (SELECT count(*) FROM trigger WHERE trigger.triggerer_id = job.id)
FROM job WHERE state = 'running' ORDER BY job_type, hostname, latest_heartbeat DESC
"""
WAITING_TRIGGERS = "SELECT count(*), min(created_date) FROM trigger WHERE triggerer_id IS NULL"
IMPORT_ERRORS = "SELECT filename, stacktrace FROM import_error ORDER BY filename"
DAGS = "SELECT dag_id, is_paused, last_parsed_time FROM dag WHERE NOT is_stale ORDER BY dag_id"


class MetadataTables:
    """Reads the tables through one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def _query(self, statement: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def read_time(self) -> datetime:
        """Return the time by the database's clock, UTC."""
        [[time]] = self._query("SELECT clock_timestamp()")
        assert isinstance(time, datetime)  # noqa: S101 for the type checker
        return time

    def read_jobs(self) -> list[Job]:
        """Return the running job of each component and host."""
        return [Job(*row) for row in self._query(JOBS)]

    def read_waiting_triggers(self) -> tuple[int, datetime | None]:
        """Return how many triggers no triggerer has taken, and when the first of them was created."""
        [[count, first]] = self._query(WAITING_TRIGGERS)
        return count, first

    def read_import_errors(self) -> list[tuple[str, str]]:
        """Return each DAG file that cannot be imported, and the last line of its traceback."""
        rows = self._query(IMPORT_ERRORS)
        return [(str(file), (str(trace or "").strip().splitlines() or [""])[-1]) for file, trace in rows]

    def read_dags(self) -> list[Dag]:
        """Return the DAGs whose file exists."""
        return [Dag(*row) for row in self._query(DAGS)]


@contextmanager
def open_tables(uri: str) -> Iterator[MetadataTables]:
    """Connect to the database at SQLAlchemy's `uri` while the block runs.

    Raises psycopg2.OperationalError if it does not respond.
    """
    connection = psycopg2.connect(make_driver_uri(uri), connect_timeout=CONNECT_TIMEOUT_SECONDS)
    try:
        # In one transaction, and for it only: PgBouncer would keep a session's settings for the next client.
        connection.set_session(readonly=True)
        with connection.cursor() as cursor:  # not an option of the connection, which PgBouncer would refuse
            cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
        yield MetadataTables(connection)
    finally:
        connection.close()
