"""How a step's container or process terminated, and the classification of that by the table in `step_contract.errors`."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from step_contract.errors import ExitCode, Termination, classify_exit_code
from step_contract.result import PLATFORM_PREFIX

MAX_LAST_LINES = 20  # lines of a step's log that an exit status keeps
# Signals that an invalid instruction or memory access raises, for example in a library built for another processor.
CRASH_SIGNALS = (signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)
# Messages of container runtimes if the program is missing from the image or is not executable.
PROGRAM_MISSING = re.compile("no such file or directory|executable file not found|permission denied|not a directory")
# runc's message if the program was built for another architecture and the node has no emulator for it.
WRONG_ARCHITECTURE = re.compile(r"^exec \S+: exec format error", re.MULTILINE)


@dataclass(frozen=True)
class ExitStatus:
    """How a step's container or process terminated.

    Attributes:
        code: the exit code; negative for a signal, None if the container never terminated by itself.
        result: the termination message: the step's result, or the end of its log.
        last_lines: the end of the log.
        reason: the cluster's reason, such as `OOMKilled`; None if it only repeats the exit code.
        termination: the class, if code and reason do not determine it.
        platform: the architectures of image and node, as the step logged them.
    """

    code: int | None
    result: bytes
    last_lines: tuple[str, ...]
    reason: str | None = None
    termination: Termination | None = None
    platform: str | None = None

    def to_event(self) -> dict[str, Any]:
        """Serialize the status as the payload of a trigger event, without null characters: Postgres stores none in JSON."""
        return {
            "code": self.code,
            "result": _replace_nulls(self.result.decode(errors="replace")),
            "last_lines": [_replace_nulls(line) for line in self.last_lines],
            "reason": self.reason and _replace_nulls(self.reason),
            "termination": self.termination and self.termination.value,
            "platform": self.platform and _replace_nulls(self.platform),
        }

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> ExitStatus:
        """Parse the payload of a trigger event."""
        termination = Termination(event["termination"]) if event["termination"] else None
        lines = tuple(event["last_lines"])
        return cls(event["code"], event["result"].encode(), lines, event["reason"], termination, event["platform"])


def _replace_nulls(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def classify_termination(status: ExitStatus) -> ExitCode | Termination:
    """Return why the step terminated."""
    if status.termination:
        return status.termination
    reason = status.reason or ""
    if reason.startswith("OOMKilled"):
        return Termination.OOM_KILLED
    if reason.startswith("DeadlineExceeded"):
        return Termination.TIMED_OUT
    # A pod that is evicted because of its own usage would be evicted from any other node as well.
    if reason.startswith("Evicted") and "exceeds" in reason:
        return Termination.ERROR
    output = "\n".join([status.result.decode(errors="replace"), *status.last_lines])
    if reason.startswith("StartError") and PROGRAM_MISSING.search(output):
        return Termination.START_FAILED
    if status.code is None or reason:
        return Termination.EVICTED
    if status.code and WRONG_ARCHITECTURE.search(output):
        return Termination.CRASHED
    if get_signal(status.code) in CRASH_SIGNALS:
        return Termination.CRASHED
    return classify_exit_code(status.code)


def describe_exit_status(status: ExitStatus) -> str:
    """Describe the termination in a few words: signal and architectures, or exit code, and the cluster's reason."""
    code = "" if status.code is None else f"exit code {status.code}"
    if status.code is not None and (signal_number := get_signal(status.code)) and not status.reason:
        code = f"signal {signal_number.name}"
        if signal_number in CRASH_SIGNALS:
            code += f"; {status.platform or 'platform unknown'}"
    return "; ".join(filter(None, (code, status.reason)))


def get_signal(code: int) -> signal.Signals | None:
    """Return the signal that terminated a process; a container's exit code is then 128 plus the signal's number."""
    number = -code if code < 0 else code - 128
    return signal.Signals(number) if number in set(signal.Signals) else None


def parse_platform(line: str) -> str | None:
    """Return the architectures that a line of a step's log names; None if it is another line."""
    return line.rstrip().removeprefix(PLATFORM_PREFIX) if line.startswith(PLATFORM_PREFIX) else None


def get_last_line(lines: Sequence[str]) -> str | None:
    """Return the last line that is neither empty nor the platform's."""
    return next((line.strip() for line in reversed(lines) if line.strip() and parse_platform(line) is None), None)
