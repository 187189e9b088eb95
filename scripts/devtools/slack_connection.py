"""The Airflow connection to Slack, as JSON for the variable AIRFLOW_CONN_SLACK_CONN."""

from __future__ import annotations

import json
import os
import re
import urllib.parse

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


def find_problem(connection: str) -> str:
    """Return why the connection is none with a bot's token, without showing any of it; empty if it is one."""
    if not connection.strip():
        return "the connection to Slack is empty"
    try:
        content = json.loads(connection)
        token = content["password"] if isinstance(content, dict) else None
    except ValueError:  # the other form of a connection: slack://:TOKEN@
        address = urllib.parse.urlsplit(connection.strip())
        token = urllib.parse.unquote(address.password or "") if address.scheme == "slack" else None
    except KeyError:
        return "the connection to Slack has no password, which is the token"
    if not isinstance(token, str):
        return (
            'the connection to Slack is neither JSON, {"conn_type": "slack", "password": "xoxb-…"}, nor a URI slack://:xoxb-…@'
        )
    if not re.fullmatch(r"xoxb-[\w-]+", token):
        return "the token of the connection to Slack is not a bot's: it must begin with xoxb-, without blanks"
    return ""
