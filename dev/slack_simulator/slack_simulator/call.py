"""A call of one of Slack's methods: its arguments, read as Slack reads them, and its refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slack_simulator.workspace import Channel, Workspace

APP, BOT, USER, TEAM = "A0MARKETDAY", "B0MARKETDAY", "U0MARKETDAY", "T0STANDIN00"
BOT_NAME = "market-daily"
# Channels of these names refuse as Slack does where there is none, and where the bot was not invited.
NO_SUCH, NOT_IN = "no-such", "not-in"
# Lower case, and so never an ID; that of other scripts has no case.
CHANNEL_NAME = re.compile(r"(?:(?![A-Z])[\w-]){1,80}")
CHANNEL_ID = re.compile(r"[CGDZ][A-Z0-9]{8,}")

Answer = dict[str, Any]


class Refused(Exception):
    """Slack's answer to a call that it does not carry out: its `error`, and what it says besides."""

    def __init__(self, error: str, **more: Any) -> None:
        super().__init__(error)
        self.answer: Answer = {"ok": False, "error": error} | more


@dataclass(frozen=True)
class Call:
    """A call of a method. `address` is where files are uploaded to, `public` where people find the page; no slash ends them."""

    workspace: Workspace
    arguments: Mapping[str, Any]
    address: str
    public: str

    def text(self, name: str) -> str:
        """The argument as text; empty where it was not given."""
        value = self.arguments.get(name)
        return "" if value is None else str(value)

    def parsed(self, name: str) -> Any:
        """The argument as JSON, in which a form brings it as text; None where it was not given. Raises Refused."""
        value = self.arguments.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise Refused("invalid_blocks_format" if name == "blocks" else f"invalid_{name}_format") from None

    def flag(self, name: str) -> bool:
        """Whether the argument says yes."""
        return self.text(name).lower() in ("1", "true")

    def required(self, *names: str) -> None:
        """Raises Refused as Slack does where arguments are missing."""
        if missing := [name for name in names if not self.text(name)]:
            raise invalid(*(f"missing required field: {name}" for name in missing))

    def channel(self, *, by_name: bool = False) -> Channel:
        """The channel that the call names: by ID or, where the method takes that, by name. Raises Refused."""
        given = self.text("channel")
        name = given.removeprefix("#")
        found = self.workspace.channels.get(given)
        if not found and by_name and CHANNEL_NAME.fullmatch(name) and not name.startswith(NO_SUCH):
            found = self.workspace.open_channel(name)
        if not found:
            raise Refused("channel_not_found")
        if found.name.startswith(NOT_IN):
            raise Refused("not_in_channel")
        return found


def invalid(*messages: str) -> Refused:
    """The refusal of arguments that are not of the method's form."""
    return Refused("invalid_arguments", response_metadata={"messages": [f"[ERROR] {message}" for message in messages]})
