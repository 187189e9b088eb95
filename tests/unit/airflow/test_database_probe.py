"""The program that reads the database's revision in a pod, with the installed Airflow."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from airflow.utils.db import _REVISION_HEADS_MAP
from airflow.version import version
from devtools.database_migrations import PROBE, DatabaseState, find_head, is_supported


def test_the_probe_reads_the_revision_and_airflows_own_map(tmp_path: Path) -> None:
    head = find_head(version, _REVISION_HEADS_MAP)
    with sqlite3.connect(tmp_path / "airflow.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES (?)", (head,))
    environment = os.environ | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db"}
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
    state = json.loads(done.stdout)
    assert state == {"revision": head, "heads": _REVISION_HEADS_MAP}
    assert is_supported(DatabaseState("pod", **state), version)
    assert not is_supported(DatabaseState("pod", **state), "3.0.0")
