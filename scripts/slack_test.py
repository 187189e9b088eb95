"""Sends a test message to Slack: from this machine with a token that is given, or else from an environment's watcher.

SLACK_TOKEN=xoxb-… SLACK_CHANNEL=workflows python scripts/slack_test.py kind
python scripts/slack_test.py staging
"""

from __future__ import annotations

import os
import subprocess
import sys

from deploy import target_of
from devtools import slack_connection
from devtools.commands import ROOT, ToolError, fail, need

PROGRAM = ["-m", "airflow_watcher", "slack-test"]


def main(environment: str) -> int:
    """Does so; returns 0 where Slack took everything."""
    if connection := slack_connection.given():
        subprocess.run([sys.executable, str(ROOT / "scripts" / "virtualenvs.py"), "airflow"], check=True)
        here = {"AIRFLOW_CONN_SLACK_CONN": connection, "AIRFLOW_HOME": str(ROOT / ".run" / "airflow")}
        return subprocess.run([ROOT / ".venvs/airflow/bin/python", *PROGRAM], env=os.environ | here).returncode
    try:
        need("kubectl")
        print(target_of(environment).kubectl("exec", "deployment/watcher", "--", "python", *PROGRAM, seconds=120), end="")
    except ToolError as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
