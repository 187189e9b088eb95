from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

from slack_sdk import WebClient


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_program_prints_its_address_and_terminates_on_sigterm(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "slack_simulator", "--port", str(port), "--data", str(tmp_path), "--channel", "prices"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert f"http://127.0.0.1:{port}/" in program.stdout.readline()
        client = WebClient(token="xoxb-1", base_url=f"http://127.0.0.1:{port}/api/")
        assert [channel["name"] for channel in client.conversations_list()["channels"]] == ["prices"]
        program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=10) == 0


def test_port_in_use_is_reported_in_one_line() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        command = [sys.executable, "-m", "slack_simulator", "--port", str(listener.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, len(done.stderr.splitlines())) == (78, 1)
    assert "in use" in done.stderr and "choose another --port" in done.stderr
