"""What the stand-in for Slack was told, as Slack's own methods say it."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

from devtools import kind_cluster

ADDRESS = f"http://127.0.0.1:{kind_cluster.SLACK_PORT}"
Message = dict[str, Any]


def ask(method: str, **arguments: str) -> Any:
    """Slack's own methods, as a bot may call them."""
    data, login = urllib.parse.urlencode(arguments).encode(), {"Authorization": "Bearer xoxb-stand-in"}
    with urllib.request.urlopen(urllib.request.Request(f"{ADDRESS}/api/{method}", data, login), timeout=10) as answer:  # noqa: S310
        return json.load(answer)


def down(is_down: bool) -> None:
    request = urllib.request.Request(f"{ADDRESS}/control/down", json.dumps(is_down).encode(), method="POST")  # noqa: S310
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310


def said(message: Message) -> str:
    return json.dumps(message, ensure_ascii=False)


def channel(name: str = "workflows") -> list[Message]:
    """The messages of the channel that are no replies, the latest first; none where there is no such channel."""
    [id] = [one["id"] for one in ask("conversations.list")["channels"] if one["name"] == name] or [""]
    if not id:
        return []
    found: list[Message] = ask("conversations.history", channel=id, limit="999", include_all_metadata="true")["messages"]
    return [{"channel": id} | one for one in found if one.get("thread_ts", one["ts"]) == one["ts"]]


def about(dag: str, run: str) -> list[Message]:
    """The messages about a run that are no replies."""
    wanted = f"dag={dag}/run={urllib.parse.quote(run, safe='')}/run"
    return [one for one in channel() if one.get("metadata", {}).get("event_payload", {}).get("id", "").endswith(wanted)]


def thread(dag: str, run: str) -> list[Message]:
    """The replies to a run's message."""
    [root] = about(dag, run)
    found: list[Message] = ask("conversations.replies", channel=root["channel"], ts=root["ts"], limit="999")["messages"]
    return [one for one in found if one["ts"] != root["ts"]]


def line(dag: str, run: str) -> str:
    found = about(dag, run)
    return found[0]["text"] if found else ""


def alerts(dag: str, run: str) -> list[str]:
    return [one["text"] for one in thread(dag, run) if one.get("subtype") == "thread_broadcast"]


def unwell(what: str = "Airflow's triggerer is unhealthy") -> list[str]:
    """What the channel says of a trouble, the latest first."""
    return [one["text"] for one in channel() if what in one["text"]] or [""]
