"""The state of a simulator, which the threads of its server share: the workspace, the calls received, the faults to inject."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from slack_simulator import web_api
from slack_simulator.workspace import Message, Workspace

FAULTS = ("status", "error", "hang", "drop")


@dataclass
class Fault:
    """A fault of the next `times` calls of `method`. Exactly one of status, error, hang and drop is set.

    Attributes:
        method: a method of the Web API, "upload", or "*" for every call.
        times: how many calls it affects.
        status: an HTTP status to respond with instead of executing the call.
        retry_after: seconds in the header Retry-After of status 429.
        error: an error of Slack to respond with instead of executing the call.
        hang: seconds to wait before responding, after executing the call.
        drop: close the connection without a response after executing the call.
    """

    method: str = "*"
    times: int = 1
    status: int = 0
    retry_after: int = 1
    error: str = ""
    hang: float = 0
    drop: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError if the fault is invalid."""
        kinds = [kind for kind in FAULTS if getattr(self, kind)]
        if len(kinds) != 1:
            raise ValueError(f"invalid fault: set exactly one of {', '.join(FAULTS)}, not {' and '.join(kinds) or 'none'}")
        for name in ("times", "status", "retry_after", "hang"):
            if not isinstance(getattr(self, name), int | float):
                raise ValueError(f"invalid fault: {name} must be a number")
        if self.status and not 400 <= self.status <= 599:
            raise ValueError(f"invalid fault: status must be 400 to 599, not {self.status}")


@dataclass
class Simulator:
    """A simulator of Slack.

    Attributes:
        workspace: what was sent.
        scopes: the scopes of every token.
        received: the calls in order, each with method, arguments (without the token), and the status and error of the response.
        down: close every connection without executing the call.
        page_url: the address of the page, with a slash at the end.
        stopping: set when the server stops; ends every wait of a fault.
    """

    workspace: Workspace
    scopes: tuple[str, ...] = web_api.SCOPES
    received: list[dict[str, Any]] = field(default_factory=list)
    down: bool = False
    page_url: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)
    _faults: list[Fault] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The address of the Web API, for a client's `base_url`."""
        return f"{self.page_url}api/"

    def channel(self, name: str) -> list[Message]:
        """Return the messages that the channel with this name shows, oldest first."""
        with self.workspace.lock:
            channel = self.workspace.find_channel(name)
            return self.workspace.in_channel(channel) if channel else []

    def calls(self, method: str) -> list[dict[str, Any]]:
        """Return the received calls of `method`, in order."""
        return [call for call in self.received if call["method"] == method]

    def faults(self, *faults: dict[str, Any]) -> None:
        """Inject faults, each given by the fields of Fault. Raises ValueError if one is invalid."""
        try:
            added = [Fault(**fields) for fields in faults]
        except TypeError as error:
            raise ValueError(f"invalid fault: an object with {', '.join(Fault.__dataclass_fields__)}: {error}") from None
        with self.workspace.lock:
            self._faults += added

    def take_fault(self, method: str) -> Fault | None:
        """Return the fault of a call of `method` and count it, or None if there is none."""
        with self.workspace.lock:
            fault = next((fault for fault in self._faults if fault.times > 0 and fault.method in ("*", method)), None)
            if fault:
                fault.times -= 1
            return fault

    def record(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Record a call; return the record; status and error are filled in with the response."""
        shown = {name: value for name, value in arguments.items() if name != "token"}
        call = {"method": method, "arguments": shown, "status": None, "error": None}
        with self.workspace.lock:
            self.received.append(call)
        return call
