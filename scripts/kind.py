"""Create, inspect or delete a kind cluster with the whole pipeline.

    python scripts/kind.py up        # create or upgrade it, then run the DAG for SESSION
    python scripts/kind.py status    # show its pods and what is wrong with them
    python scripts/kind.py down      # delete it

CLUSTER, UI_PORT, SLACK_PORT, SESSION, SLACK_TOKEN, KIND_NODE_IMAGE: see docs/settings.md.
"""

from __future__ import annotations

import argparse
import os
import sys

from devtools.commands import ToolError, print_error, require_programs
from devtools.kind_cluster import DEFAULT_SESSION, KindCluster
from devtools.slack_connection import read_connection


def main(arguments: list[str]) -> int:
    """Run the command that the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="kind.py", description="Create, inspect or delete a kind cluster.")
    parser.add_argument("command", choices=("up", "status", "down"))
    command = parser.parse_args(arguments).command
    cluster = KindCluster.from_environment()
    try:
        if command == "up":
            cluster.deploy(os.environ.get("SESSION") or DEFAULT_SESSION, read_connection())
        elif command == "status":
            require_programs("docker", "kind", "kubectl")
            cluster.print_status()
        else:
            require_programs("docker", "kind")
            cluster.delete()
    except ToolError as error:
        return print_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
