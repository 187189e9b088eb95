"""The program: python -m slack_simulator --port 8081 --data FOLDER."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from slack_simulator.server import Server
from slack_simulator.workspace import DEFAULT_CHANNELS, Workspace

EXIT_INVALID_CONFIGURATION = 78


def make_parser() -> argparse.ArgumentParser:
    """Return the program's parser."""
    parser = argparse.ArgumentParser("slack-simulator", description="Run a simulator of Slack and show what was sent to it.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on [default: %(default)s]")
    parser.add_argument("--port", type=int, default=8081, help="the port to listen on [default: %(default)s]")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="where to keep messages and files across restarts")
    parser.add_argument("--channel", action="append", metavar="NAME", help="a channel that exists from the start; repeatable")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code."""
    options = make_parser().parse_args(arguments)
    try:
        server = Server(options.host, options.port, Workspace(options.data, options.channel or DEFAULT_CHANNELS))
    except (OSError, ValueError, LookupError, TypeError) as error:
        print(f"slack-simulator: {error}: choose another --port, or another folder for --data", file=sys.stderr)
        return EXIT_INVALID_CONFIGURATION
    # A container's first process ignores signals that it does not handle.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.stop).start())
    connection = {"conn_type": "slack", "password": "xoxb-simulator", "extra": {"base_url": server.simulator.url}}
    print(f"Slack simulator: {server.simulator.page_url} (Ctrl+C stops it)")
    print(f"to send messages to it, set AIRFLOW_CONN_SLACK_CONN='{json.dumps(connection)}'", flush=True)
    with server:
        server.serve_forever(poll_interval=0.2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
