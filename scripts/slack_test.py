"""Send a test message to Slack: from this machine if a connection is given, otherwise from the monitor of an environment.

SLACK_TOKEN=xoxb-… SLACK_CHANNEL=workflows python scripts/slack_test.py kind
python scripts/slack_test.py staging
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from deploy import find_deployment
from devtools.commands import ROOT, ToolError, print_error, require_programs
from devtools.slack_connection import read_connection

PROGRAM = ["-m", "airflow_monitor", "slack-check"]


def main(arguments: list[str]) -> int:
    """Send the message; return 0 if Slack accepted all of it."""
    parser = argparse.ArgumentParser(prog="slack_test.py", description="Send a test message to Slack.")
    parser.add_argument("environment")
    environment = parser.parse_args(arguments).environment
    if connection := read_connection():
        subprocess.run([sys.executable, str(ROOT / "scripts" / "virtualenvs.py"), "airflow"], check=True)
        variables = {"AIRFLOW_CONN_SLACK_CONN": connection, "AIRFLOW_HOME": str(ROOT / ".run" / "airflow")}
        return subprocess.run([ROOT / ".venvs/airflow/bin/python", *PROGRAM], env=os.environ | variables).returncode
    try:
        require_programs("kubectl")
        command = ("exec", "deployment/monitor", "--", "python", *PROGRAM)
        print(find_deployment(environment).kubectl(*command, timeout=120), end="")
    except ToolError as error:
        return print_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
