"""The monitor as a process of its own, as its Deployment runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from .fake_airflow_api import FakeAirflowApi, serve_airflow_api

MEMORY = 200 * 1024  # KiB, of the 256 MiB that helm/values.yaml requests
POLLS = 6


@pytest.fixture
def airflow() -> Iterator[FakeAirflowApi]:
    """An Airflow with a hundred active runs, which have not changed for ten minutes."""
    with serve_airflow_api() as airflow:
        start = datetime.now(UTC) - timedelta(minutes=10)
        airflow.now = start
        for number in range(100):
            run_id = f"run{number}"
            airflow.add_run(run_id, at=start)
            airflow.add_task(run_id, "decide", "success", at=start)
            airflow.add_result(run_id, "decide", {"summary": "decided"}, "file:///x/decisions/manifest.json")
            airflow.add_task(run_id, "fetch_prices", "deferred", at=start, trigger={"triggerer_id": 1})
        airflow.now = datetime.now(UTC)
        yield airflow


def read_memory(process: subprocess.Popen[bytes]) -> int:
    """Return the resident memory of a process in KiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to read the memory of a process")
def test_a_hundred_active_runs_need_little_memory_and_few_requests(airflow: FakeAirflowApi, tmp_path: Path) -> None:
    settings = {"AIRFLOW_URL": airflow.url, "AIRFLOW_USER": "monitor", "AIRFLOW_PASSWORD": "secret"}
    settings |= {"ARTIFACTS": f"file://{tmp_path}/artifacts", "MONITOR_POLL_SECONDS": "1"}
    command = [sys.executable, "-m", "airflow_monitor"]
    with subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while airflow.requests.count("/monitor/health") <= POLLS:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        memory = read_memory(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    polls = [index for index, path in enumerate(airflow.requests) if path == "/monitor/health"]
    assert polls[-1] - polls[-2] <= 10
    assert memory < MEMORY
