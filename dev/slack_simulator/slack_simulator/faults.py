"""Faults on demand: which of the next calls go wrong, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

KINDS = ("status", "error", "hang", "drop")


class FaultWrong(ValueError):
    """A fault that was asked for cannot be had; the message says why."""


@dataclass
class Fault:
    """What the next `times` calls of `method` ("*": of any) meet: exactly one of `KINDS`.

    `status`: that HTTP status, with `retry_after` seconds for a 429, and nothing is done. `error`: Slack's refusal of that
    name, and nothing is done. `hang`: done, and answered so many seconds later. `drop`: done, and not answered at all.
    """

    method: str = "*"
    times: int = 1
    status: int = 0
    retry_after: int = 1
    error: str = ""
    hang: float = 0
    drop: bool = False


def parsed(asked: Any) -> list[Fault]:
    """The faults of a JSON list; raises FaultWrong where it is none."""
    if not isinstance(asked, list) or not all(isinstance(one, dict) for one in asked):
        raise FaultWrong('faults are a JSON list of objects, such as [{"method": "chat.postMessage", "status": 429}]')
    return [_one(one) for one in asked]


def _one(asked: dict[str, Any]) -> Fault:
    try:
        fault = Fault(**asked)
    except TypeError:
        known = ", ".join(Fault.__dataclass_fields__)
        raise FaultWrong(f"{', '.join(map(str, asked))}: a fault has {known} and nothing else") from None
    kinds = [kind for kind in KINDS if getattr(fault, kind)]
    if len(kinds) != 1:
        raise FaultWrong(f"a fault is one of {', '.join(KINDS)}, not {' and '.join(kinds) or 'none'}")
    for name in ("times", "status", "retry_after", "hang"):
        value = getattr(fault, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise FaultWrong(f"{name}: a number that is not negative, not {value!r}")
    if fault.status and not 400 <= fault.status <= 599:
        raise FaultWrong(f"status: 400 to 599, not {fault.status}")
    return fault


def take(faults: list[Fault], method: str) -> Fault | None:
    """The fault that a call of `method` meets, counted down; None where it meets none."""
    for fault in faults:
        if fault.times > 0 and fault.method in ("*", method):
            fault.times -= 1
            return fault
    return None
