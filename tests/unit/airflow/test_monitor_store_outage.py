"""What the monitor shows of failures while the object store cannot be read."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from urllib.parse import urlsplit

import fsspec
import pytest
from slack_simulator.simulator import Simulator
from step_contract.store import CircuitBreakerStore, Store

from .fake_airflow_api import serve_airflow_api
from .monitor_harness import RUN_ID, SIX_PM, MonitorHarness, add_session_run

MINUTE = timedelta(minutes=1)
DENIED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Gate:
    """A way to a server on this machine that can be closed: `mode` is "open", "down" or "denied"."""

    def __init__(self, port: int) -> None:
        self.mode, self.target = "open", port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.connections: list[socket.socket] = []
        threading.Thread(target=self.accept, daemon=True).start()

    def set(self, mode: str) -> None:
        """Change the mode; close all connections."""
        self.mode = mode
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=[client], daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self.mode == "denied":
                client.recv(65536)
                client.sendall(DENIED)
            if self.mode != "open":
                return
            with socket.create_connection(("127.0.0.1", self.target)) as server:
                self.connections += [client, server]
                back = threading.Thread(target=self.copy, args=[server, client], daemon=True)
                back.start()
                self.copy(client, server)
                back.join()

    def copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class OutageHarness(MonitorHarness):
    """A monitor whose object store is behind a gate; `store` is what the steps use, without the gate."""

    gate: Gate

    def restart(self, now: object = SIX_PM, channel: str = "workflows") -> None:
        super().restart(SIX_PM, channel)
        self.through_gate = CircuitBreakerStore(self.store.root)
        for reader in (self.reconciler, self.reconciler.delivery.records, self.reconciler.snapshots._failures):
            reader.store = self.through_gate

    def poll_after(self, minutes: float) -> None:
        self.through_gate._closed_at = 0.0  # as if the circuit breaker were closed again
        self.poll(SIX_PM + minutes * MINUTE)

    def alert(self) -> str:
        [alert] = self.broadcasts()
        return json.dumps(alert.blocks)


@pytest.fixture
def outage(s3: str, slack: Simulator, monkeypatch: pytest.MonkeyPatch, s3_endpoint: str) -> Iterator[OutageHarness]:
    monkeypatch.setenv("ARTIFACTS", s3)
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # each instance reads the endpoint once
    steps_store = Store(s3)
    assert steps_store.list("") == []
    gate = Gate(urlsplit(s3_endpoint).port or 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{gate.port}")
    with serve_airflow_api() as airflow:
        OutageHarness.gate = gate
        harness = OutageHarness(airflow, slack, steps_store)
        add_session_run(airflow, state="failed")
        airflow.add_task(RUN_ID, "train", "failed", at=SIX_PM)
        yield harness
    gate.listener.close()
    gate.set("down")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.parametrize("mode", ["down", "denied"])
def test_a_sent_reason_survives_a_store_that_goes_away(outage: OutageHarness, mode: str) -> None:
    outage.record_failure("train", reason="line 11 is no number")
    outage.poll_after(0)
    outage.gate.set(mode)
    outage.poll_after(1)
    assert "line 11 is no number" in outage.alert()
    outage.airflow.add_task(RUN_ID, "train", "running", at=SIX_PM, try_number=2)
    outage.airflow.add_run(RUN_ID, "running", at=SIX_PM, updated_at=(SIX_PM + MINUTE).isoformat())
    for minutes in (2, 3):
        outage.poll_after(minutes)
    assert "line 11 is no number" in outage.alert() and "running (attempt 2)" in outage.alert()
    assert "reason" not in outage.alert()


@pytest.mark.parametrize("mode", ["down", "denied"])
def test_a_reason_that_cannot_be_read_is_corrected_later(outage: OutageHarness, mode: str) -> None:
    outage.record_failure("train", reason="line 11 is no number")
    outage.gate.set(mode)
    outage.poll_after(1)
    assert "cannot be read now" in outage.alert() and "No failure reason recorded" not in outage.alert()
    outage.gate.set("open")
    for minutes in (20, 21):
        outage.poll_after(minutes)
    assert "line 11 is no number" in outage.alert() and "cannot be read" not in outage.alert()


def test_a_monitor_restarted_without_the_store_keeps_a_sent_reason(outage: OutageHarness) -> None:
    outage.record_failure("train", reason="line 11 is no number")
    outage.poll_after(0)
    outage.gate.set("down")
    outage.restart()
    for minutes in (1, 2):
        outage.poll_after(minutes)
    assert "line 11 is no number" in outage.alert()
    outage.gate.set("open")
    for minutes in (3, 4):
        outage.poll_after(minutes)
    assert "line 11 is no number" in outage.alert() and len(outage.messages()) == 2


def test_the_end_of_a_run_notifies_once_earlier_failures_can_be_read(outage: OutageHarness) -> None:
    outage.record_failure("train")
    outage.poll_after(0)
    outage.gate.set("down")
    outage.restart()
    outage.airflow.add_task(RUN_ID, "train", "success", at=SIX_PM + MINUTE, try_number=2)
    outage.airflow.add_run(RUN_ID, "success", at=SIX_PM + MINUTE, logical_date=SIX_PM.isoformat())
    for minutes in (2, 6, 10):
        outage.poll_after(minutes)
    assert outage.run_lines()[0].startswith(":large_green_circle:") and outage.completions() == []
    outage.gate.set("open")
    for minutes in (20, 21, 30):
        outage.poll_after(minutes)
    assert len(outage.completions()) == len(outage.alerts()) == 1
