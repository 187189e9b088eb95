"""What the threads of the server share: the workspace, what was received, and what shall go wrong."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from slack_simulator import web_api
from slack_simulator.faults import Fault, parsed
from slack_simulator.workspace import Message, Workspace


@dataclass
class Simulator:
    """A stand-in. `public` is the address at which people find the page; empty: the request's own."""

    workspace: Workspace
    public: str = ""
    scopes: tuple[str, ...] = web_api.SCOPES
    pending: list[Fault] = field(default_factory=list)
    received: list[dict[str, Any]] = field(default_factory=list)
    down: bool = False
    page_url: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """Slack's address here, for a client's `base_url`."""
        return f"{self.page_url}api/"

    def faults(self, *asked: dict[str, Any]) -> None:
        """Makes the next calls go wrong: see Fault. Raises FaultWrong."""
        self.pending += parsed(list(asked))

    def channel(self, name: str) -> list[Message]:
        """What the channel of that name shows, the oldest first; nothing where there is none."""
        with self.workspace.lock:
            found = self.workspace.find_channel(name)
            return self.workspace.in_channel(found) if found else []

    def calls(self, method: str) -> list[dict[str, Any]]:
        """The requests that called `method`, in order."""
        return [one for one in self.received if one["method"] == method]

    def record(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Notes a request; how it was answered is filled in later. The token is never noted."""
        shown = {name: value for name, value in arguments.items() if name != "token"}
        entry = {"time": time.time(), "method": method, "arguments": shown, "status": None, "error": None}
        with self.workspace.lock:
            self.received.append(entry)
        return entry

    def reset(self) -> None:
        """Forgets everything, faults and scopes too."""
        with self.workspace.lock:
            self.workspace.reset()
            self.pending.clear()
            self.received.clear()
            self.scopes, self.down = web_api.SCOPES, False
