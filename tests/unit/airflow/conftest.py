from __future__ import annotations

import atexit
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import certifi
import pytest
from slack_simulator.server import run_simulator
from slack_simulator.simulator import Simulator

os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-tests-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
# Each HTTP client reads all root certificates, which takes 15 ms: one will do, as the servers of these tests use plain HTTP.
os.environ["SSL_CERT_FILE"] = os.path.join(os.environ["AIRFLOW_HOME"], "certificate.pem")
first_certificate, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
Path(os.environ["SSL_CERT_FILE"]).write_text(first_certificate + end)

from .trigger_harness import comms, play  # noqa: E402 Airflow reads its home when it is imported

__all__ = ["Program", "comms", "play"]

Program = Callable[[str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Installs Python code as the program of the image `collector`, as an image's environment would."""
    monkeypatch.setenv("STEP_ENVIRONMENTS", str(tmp_path / "environments"))
    monkeypatch.setenv("STEP_RUNNER", "process")

    def install(code: str) -> None:
        path = tmp_path / "environments" / "collector" / "bin" / "collector"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{code}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return install


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulator of Slack, and the connection to it."""
    with run_simulator() as slack:
        connection = {"conn_type": "slack", "password": "xoxb-test", "extra": {"base_url": slack.url}}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", json.dumps(connection))
        yield slack
