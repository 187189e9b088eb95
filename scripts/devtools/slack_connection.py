"""Airflow's connection to Slack as its variables hold one."""

from __future__ import annotations

import json
import os


def connection(token: str, base_url: str = "") -> str:
    """The connection with this token; `base_url` is the address of what stands in for Slack."""
    return json.dumps({"conn_type": "slack", "password": token} | ({"extra": {"base_url": base_url}} if base_url else {}))


def given() -> str:
    """The connection that was given as SLACK_TOKEN or AIRFLOW_CONN_SLACK_CONN; empty where none was."""
    token = os.environ.get("SLACK_TOKEN")
    return connection(token) if token else os.environ.get("AIRFLOW_CONN_SLACK_CONN", "")
