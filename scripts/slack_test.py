"""Sends a test message to Slack: from this machine with a token that is given, or else from an environment's monitor.

SLACK_TOKEN=xoxb-… SLACK_CHANNEL=workflows python scripts/slack_test.py kind
python scripts/slack_test.py staging
"""

from __future__ import annotations

import os
import subprocess
import sys

import slack_connection
from commands import ROOT, Failed, fail, need
from deploy import target_of

PROGRAM = ["-m", "airflow_monitor", "slack-check"]


def main(environment: str) -> int:
    """Does so; returns 0 where Slack took everything."""
    if connection := slack_connection.given():
        subprocess.run([sys.executable, str(ROOT / "scripts" / "environments.py"), "airflow"], check=True)
        here = {"AIRFLOW_CONN_SLACK_CONN": connection, "AIRFLOW_HOME": str(ROOT / ".run" / "airflow")}
        return subprocess.run([ROOT / ".venvs/airflow/bin/python", *PROGRAM], env=os.environ | here).returncode
    try:
        need("kubectl")
        print(target_of(environment).kubectl("exec", "deployment/monitor", "--", "python", *PROGRAM, seconds=120), end="")
    except Failed as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
