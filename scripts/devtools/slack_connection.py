"""The Airflow connection to Slack, as JSON for the variable AIRFLOW_CONN_SLACK_CONN."""

from __future__ import annotations

import json
import os

# The simulator accepts any token that begins with xoxb-.
SIMULATOR_TOKEN = "xoxb-simulator"  # noqa: S105
SIMULATOR_URL = "http://slack:8081/api/"  # in a cluster


def make_connection(token: str, base_url: str = "") -> str:
    """Return a connection with this token; `base_url` replaces the address of Slack's API."""
    return json.dumps({"conn_type": "slack", "password": token} | ({"extra": {"base_url": base_url}} if base_url else {}))


def read_connection() -> str:
    """Return the connection from SLACK_TOKEN or AIRFLOW_CONN_SLACK_CONN; empty if neither is set."""
    token = os.environ.get("SLACK_TOKEN")
    return make_connection(token) if token else os.environ.get("AIRFLOW_CONN_SLACK_CONN", "")
