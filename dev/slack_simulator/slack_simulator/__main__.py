"""Runs the stand-in: python -m slack_simulator --port 8081 --data FOLDER."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from slack_simulator.server import Server
from slack_simulator.simulator import Simulator
from slack_simulator.workspace import DEFAULT_CHANNELS, Workspace


def parser() -> argparse.ArgumentParser:
    """The program's arguments."""
    found = argparse.ArgumentParser(prog="slack-simulator", description="Stands in for Slack and shows what was sent to it.")
    found.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: this machine alone)")
    found.add_argument("--port", type=int, default=8081, help="the port to listen at (default: 8081)")
    found.add_argument("--data", type=Path, metavar="FOLDER", help="keeps what was sent there over a restart")
    found.add_argument("--public", default="", metavar="URL", help="where people find the page, for the links to messages")
    found.add_argument("--channel", action="append", metavar="NAME", help="a channel that is there from the start, repeatable")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is told to stop; returns the exit code."""
    given = parser().parse_args(arguments)
    try:
        workspace = Workspace(given.data, given.channel or DEFAULT_CHANNELS)
        server = Server(given.host, given.port, Simulator(workspace, public=given.public.rstrip("/")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"slack-simulator: {error}: choose another --port, or another folder for --data", file=sys.stderr)
        return 78
    # The first process of a container has no default way of ending on a signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.stop).start())
    connection = {"conn_type": "slack", "password": "xoxb-simulator", "extra": {"base_url": server.state.url}}
    print(f"what is sent to Slack shows at {given.public or server.state.page_url} (Ctrl+C ends it)")
    print(f"to send there: AIRFLOW_CONN_SLACK_CONN='{json.dumps(connection)}'", flush=True)
    with server:
        server.serve_forever(poll_interval=0.2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
