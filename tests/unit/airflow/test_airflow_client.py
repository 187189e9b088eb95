"""Servers that are slow, silent or talk too much do not block the client of Airflow's API."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from airflow_monitor import airflow_client
from airflow_monitor.airflow_client import AirflowClient, AirflowUnavailableError

HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def serve(respond: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve each connection with `respond`, which gets the connection once a request has arrived."""
    connections: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connections.append(connection)
                threading.Thread(target=handle, args=[connection], daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.recv(65536)
            respond(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    for connection in connections:
        connection.close()


def respond_nothing(connection: socket.socket) -> None:
    """Keep the connection open without a response."""


def respond_by_bytes(connection: socket.socket) -> None:
    connection.sendall(HEADERS + b"Content-Length: 1000000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def respond_without_end(connection: socket.socket) -> None:
    connection.sendall(HEADERS + b"\r\n")
    while True:
        connection.sendall(b" " * 65536)


@pytest.mark.parametrize("respond", [respond_nothing, respond_by_bytes, respond_without_end])
def test_a_server_that_never_completes_a_response_is_unavailable(
    respond: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airflow_client, "TIMEOUT_SECONDS", 0.4)
    monkeypatch.setattr(airflow_client, "MAX_REQUEST_SECONDS", 0.4)
    monkeypatch.setattr(airflow_client, "MAX_RESPONSE_BYTES", 2**20)
    with serve(respond) as url:
        started = time.monotonic()
        with pytest.raises(AirflowUnavailableError):
            AirflowClient(url, "monitor", "secret").get_health()
        assert time.monotonic() - started < 5


def test_pages_that_never_end_are_unavailable() -> None:
    body = b'{"access_token": "x", "dag_runs": [], "next_cursor": "again"}'

    def respond(connection: socket.socket) -> None:
        connection.sendall(HEADERS + b"Connection: close\r\n\r\n" + body)
        connection.shutdown(socket.SHUT_RDWR)

    with serve(respond) as url, pytest.raises(AirflowUnavailableError, match="pages do not end"):
        AirflowClient(url, "monitor", "secret").list_unfinished_runs()
