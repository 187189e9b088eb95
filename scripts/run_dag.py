"""Run the pipeline once, for a session or a range, in an Airflow embedded in this process: SQLite, no server, no container.

scripts/run calls it with the settings as environment variables, whose defaults are in scripts/default-settings. It prints the
progress of each task, a table, and the path of the plot. Airflow's log is written to a file below .run/.
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

from devtools.commands import ROOT, ToolError
from embedded_airflow.run_request import read_run_request

ENVIRONMENT = ROOT / ".venvs" / "airflow"
# Migrated once for each installation of Airflow, and copied for each run: parallel runs share only the artifacts.
DATABASE = ENVIRONMENT / f"metadata-{(ENVIRONMENT / '.ready').read_text()[:12]}.db"


def make_airflow_environment(home: Path) -> dict[str, str]:
    """Return the variables that configure the embedded Airflow, which writes only below `home`."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/metadata.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def create_database() -> None:
    """Create the empty, migrated metadata database that each run copies."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(sys.executable).with_name("airflow")
        environment = os.environ | make_airflow_environment(Path(folder))
        completed = subprocess.run([program, "db", "migrate"], env=environment, capture_output=True, text=True)
        if completed.returncode:
            sys.exit(f"cannot create the metadata database:\n{completed.stdout[-2000:]}{completed.stderr[-2000:]}")
        temporary = DATABASE.with_suffix(f".{os.getpid()}")
        shutil.copyfile(Path(folder, "metadata.db"), temporary)
        temporary.replace(DATABASE)


def start_history(session: date, years: int, symbol: str) -> subprocess.Popen[str]:
    """Start to collect the sessions of `years` years before `session`; committed ones are skipped.

    An empty symbol means the collector's default.
    """
    # May be some days more than `years`, which the trainer ignores.
    first, last = session - timedelta(days=366 * years), session - timedelta(days=1)
    program = ROOT / ".venvs" / "collector" / "bin" / "collector"
    command = [str(program), "fetch-prices", "--from", first.isoformat(), "--to", last.isoformat()]
    command += ["--symbol", symbol] if symbol else []
    environment = {name: value for name, value in os.environ.items() if name != "SESSION"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def redirect_output(path: Path) -> Iterator[TextIO]:
    """Redirect the output of this process to `path` while the block runs; yield the terminal."""
    terminal = os.fdopen(os.dup(1), "w", buffering=1)
    with path.open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield terminal
    except BaseException as error:
        print(f"the run was aborted: {error!r}; see {path}", file=terminal)
        raise


def main() -> int:
    """Run the DAG for SESSION, or for FROM and TO; return the exit code."""
    try:
        (first, request), years = read_run_request(os.environ), int(os.environ["HISTORY_YEARS"])
        # The setting is checked when the DAG is imported, which takes seconds.
        names = (os.environ.get("SYMBOLS", "").strip() or os.environ.get("SYMBOL", "")).split(",")
        histories = [start_history(first, years, name.strip()) for name in names]
    except ToolError as error:
        print(error, file=sys.stderr)
        return 78
    except (ValueError, OverflowError) as error:
        print(f"invalid SESSION or HISTORY_YEARS: {error}; use a date YYYY-MM-DD and a number of years", file=sys.stderr)
        return 78
    print(f"{request.name}: embedded Airflow; artifacts in {os.environ['ARTIFACTS']}", flush=True)
    if not DATABASE.exists():
        create_database()
    (ROOT / ".run").mkdir(exist_ok=True)
    log = ROOT / ".run" / f"{request.day}-{datetime.now():%Y%m%dT%H%M%S}-{os.getpid()}.log"  # noqa: DTZ005 the user's time zone
    with tempfile.TemporaryDirectory(prefix="airflow-") as home:
        shutil.copyfile(DATABASE, Path(home, "metadata.db"))
        os.environ.update(make_airflow_environment(Path(home)))
        with redirect_output(log) as terminal:
            from embedded_airflow.dag_run import run  # imports Airflow, which reads its environment variables

            return run(request, terminal, histories, log)


if __name__ == "__main__":
    sys.exit(main())
