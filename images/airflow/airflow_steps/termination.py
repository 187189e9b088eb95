"""What a step is to Airflow: a program's step with its options. How it is run is no matter here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from step_contract.errors import Termination
from step_contract.result import PLATFORM_PREFIX


@dataclass(frozen=True)
class Ended:
    """How a step's process or container ended.

    `code` is its exit code (negative: the signal; None: it never ended by itself), `result` what it handed over,
    `last_lines` the end of what it printed, `reason` what the cluster says of it, such as `OOMKilled`; `cause` is given where
    code and reason do not tell it. `machine` is what the step said of the processor it ran on.
    """

    code: int | None
    result: bytes
    last_lines: tuple[str, ...]
    reason: str | None = None
    cause: Termination | None = None
    machine: str | None = None

    def to_event(self) -> dict[str, Any]:
        """This as the payload of a trigger's event."""
        told = self.result.decode(errors="replace")
        event = {"code": self.code, "result": told, "last_lines": list(self.last_lines), "reason": self.reason}
        return event | {"cause": self.cause and self.cause.value, "machine": self.machine}

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Ended:
        """What `to_event` made an event of."""
        # An event of the version before this one has no cause and no machine.
        cause, machine = Termination(event["cause"]) if event.get("cause") else None, event.get("machine")
        return cls(event["code"], event["result"].encode(), tuple(event["last_lines"]), event["reason"], cause, machine)


def command_line(step: str, options: Mapping[str, str | None]) -> list[str]:
    """The arguments that a program's `step` is called with; options that are None are left to the step's default."""
    given = ((f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None)
    return [step, *(word for pair in given for word in pair)]


def machine_in(line: str) -> str | None:
    """What a line of a step's log says of the processor; None where it says something else."""
    return line.rstrip().removeprefix(PLATFORM_PREFIX) if line.startswith(PLATFORM_PREFIX) else None


def last_of(lines: Sequence[str]) -> str | None:
    """The last line that says something, other than on which processor."""
    return next((line.strip() for line in reversed(lines) if line.strip() and machine_in(line) is None), None)
