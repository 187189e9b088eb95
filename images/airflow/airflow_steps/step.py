"""What a step is to Airflow: a program's step with its options. How it is run is no matter here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ended:
    """How a step's process or container ended: its exit code (negative: the signal), its result and its last lines."""

    code: int
    result: bytes
    last_lines: tuple[str, ...]


def command_line(step: str, options: Mapping[str, str | None]) -> list[str]:
    """The arguments that a program's `step` is called with; options that are None are left to the step's default."""
    given = ((f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None)
    return [step, *(word for pair in given for word in pair)]
