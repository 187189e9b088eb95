"""Runs the DAG once for one session in real Airflow, embedded in this process: SQLite, no server, no container.

Called by scripts/run with its settings in the environment. Shows each task as it goes, then a table, then the picture.
Airflow's own log goes to a file under .run/.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venvs" / "airflow"
# Migrated once for what is installed, copied for each run: two runs at once share nothing but the artifacts.
DATABASE = ENVIRONMENT / f"metadata-{(ENVIRONMENT / '.ready').read_text()[:12]}.db"


def airflow_environment(home: Path) -> dict[str, str]:
    """What makes Airflow run embedded, with everything that it writes under `home`."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/metadata.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def make_database() -> None:
    """Makes the empty, migrated metadata database that every run starts from."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(sys.executable).with_name("airflow")
        environment = os.environ | airflow_environment(Path(folder))
        done = subprocess.run([program, "db", "migrate"], env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the metadata database could not be made:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        whole = DATABASE.with_suffix(f".{os.getpid()}")
        shutil.copyfile(Path(folder, "metadata.db"), whole)
        whole.replace(DATABASE)


def collect_history(session: date, years: int) -> subprocess.Popen[str]:
    """Starts collecting the sessions of `years` years before `session`; those that are committed are passed over."""
    first, last = session - timedelta(days=366 * years), session - timedelta(days=1)  # the trainer leaves out what it need not
    program = ROOT / ".venvs" / "collector" / "bin" / "collector"
    command = [str(program), "fetch-prices", "--from", first.isoformat(), "--to", last.isoformat()]
    environment = {name: value for name, value in os.environ.items() if name != "SESSION"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def log_to(path: Path) -> Iterator[TextIO]:
    """Sends everything that this process and Airflow print to `path`; yields the terminal."""
    terminal = os.fdopen(os.dup(1), "w", buffering=1)
    with path.open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield terminal
    except BaseException as error:
        print(f"the run broke off: {error!r}; see {path}", file=terminal)
        raise


def main() -> int:
    """Runs the session that the environment names; returns the exit code."""
    try:
        session, years = date.fromisoformat(os.environ["SESSION"]), int(os.environ["HISTORY_YEARS"])
        history = collect_history(session, years)
    except (ValueError, OverflowError) as error:
        print(f"SESSION must be a date YYYY-MM-DD and HISTORY_YEARS a number of years before it: {error}", file=sys.stderr)
        return 78
    print(f"session {session}: real Airflow, embedded; artifacts in {os.environ['ARTIFACTS']}", flush=True)
    if not DATABASE.exists():
        make_database()
    (ROOT / ".run").mkdir(exist_ok=True)
    log = ROOT / ".run" / f"{session}-{datetime.now():%Y%m%dT%H%M%S}-{os.getpid()}.log"  # noqa: DTZ005 the user's own clock
    with tempfile.TemporaryDirectory(prefix="airflow-") as home:
        shutil.copyfile(DATABASE, Path(home, "metadata.db"))
        os.environ.update(airflow_environment(Path(home)))
        with log_to(log) as terminal:
            from embedded_airflow.dag_run import run  # imports Airflow, which must find its environment set

            return run(session, terminal, history, log)


if __name__ == "__main__":
    sys.exit(main())
