"""Read the Slack simulator's messages by Slack's own API methods."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

from devtools.slack_connection import SIMULATOR_TOKEN

from .conftest import CLUSTER

SIMULATOR_URL = f"http://127.0.0.1:{CLUSTER.slack_port}"
Message = dict[str, Any]


def call_slack(method: str, **arguments: str) -> Any:
    """Call a method of Slack's API as a bot; return its response."""
    data, headers = urllib.parse.urlencode(arguments).encode(), {"Authorization": f"Bearer {SIMULATOR_TOKEN}"}
    with urllib.request.urlopen(urllib.request.Request(f"{SIMULATOR_URL}/api/{method}", data, headers), timeout=10) as response:  # noqa: S310
        return json.load(response)


def set_down(down: bool) -> None:
    """Let the simulator refuse all requests, or accept them again."""
    request = urllib.request.Request(f"{SIMULATOR_URL}/control/down", json.dumps(down).encode(), method="POST")  # noqa: S310
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


def to_json(message: object) -> str:
    return json.dumps(message, ensure_ascii=False)


def get_messages(channel: str = "workflows") -> list[Message]:
    """Return the messages of the channel without replies, the latest first; none if the channel does not exist."""
    channels = call_slack("conversations.list")["channels"]
    [channel_id] = [info["id"] for info in channels if info["name"] == channel] or [""]
    if not channel_id:
        return []
    messages: list[Message] = call_slack("conversations.history", channel=channel_id, limit="999", include_all_metadata="true")[
        "messages"
    ]
    return [
        {"channel": channel_id} | message for message in messages if message.get("thread_ts", message["ts"]) == message["ts"]
    ]


def get_run_messages(dag_id: str, run_id: str) -> list[Message]:
    """Return the messages about a run without replies."""
    suffix = f"dag={dag_id}/run={urllib.parse.quote(run_id, safe='')}/run"
    return [
        message
        for message in get_messages()
        if message.get("metadata", {}).get("event_payload", {}).get("id", "").endswith(suffix)
    ]


def get_replies(dag_id: str, run_id: str) -> list[Message]:
    """Return the replies to a run's message."""
    [root] = get_run_messages(dag_id, run_id)
    messages: list[Message] = call_slack("conversations.replies", channel=root["channel"], ts=root["ts"], limit="999")[
        "messages"
    ]
    return [message for message in messages if message["ts"] != root["ts"]]


def get_run_text(dag_id: str, run_id: str) -> str:
    """Return the text of a run's message; empty if there is none."""
    messages = get_run_messages(dag_id, run_id)
    return messages[0]["text"] if messages else ""


def get_alerts(dag_id: str, run_id: str) -> list[str]:
    """Return the texts of the replies that are also shown in the channel."""
    return [reply["text"] for reply in get_replies(dag_id, run_id) if reply.get("subtype") == "thread_broadcast"]


def get_incidents(title: str = "Airflow's triggerer is unhealthy") -> list[str]:
    """Return the texts of the messages about an incident, the latest first; one empty text if there are none."""
    return [message["text"] for message in get_messages() if title in message["text"]] or [""]
