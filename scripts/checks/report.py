"""Run checks side by side, print what they find in their order, and derive the exit code."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

from devtools.commands import ToolError
from step_contract.checks.findings import Finding, Status, error, run_check, warning

Check = Callable[[], Iterable[Finding]]
WORKERS = 8  # most of a check is waiting
EXIT_ERROR = 1
CHECK_WIDTH = 20
COLORS = {Status.OK: "32", Status.WARNING: "33", Status.ERROR: "31"}


def explain_tool_error(check: str, problem: ToolError) -> Finding:
    """Return a finding for a command that failed: what a person may not do is a warning, anything else an error."""
    lines = [line for line in str(problem).splitlines() if line.strip()]
    last = lines[-1].removeprefix("Error from server ") if lines else "no output"
    if "(Forbidden)" in str(problem) or "is forbidden" in str(problem):
        return warning(
            check, f"not checked, as you may not do it: {last}", "ask for the permission, or let someone who has it run this"
        )
    if "timed out" in str(problem):
        return error(check, last, "run it again; if it recurs, the API server, the node or the pod is overloaded")
    return error(check, last if last == lines[0] else f"{lines[0]} {last}", "run the command by hand to see all of its output")


def _guard(check: str, function: Check) -> Iterator[Finding]:
    try:
        yield from function()
    except ToolError as problem:
        yield explain_tool_error(check, problem)


def run_checks(checks: Mapping[str, Check], workers: int = WORKERS) -> Iterator[Finding]:
    """Run the checks side by side; yield what each finds, in their order, as soon as it and those before it have finished.

    A check that raises becomes an error that names it.
    """
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(run_check, name, partial(_guard, name, check)) for name, check in checks.items()]
        for future in running:
            yield from future.result()


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        subject: what was checked.
        findings: in the order of the checks.
        skipped: the checks that were not run because of an error before them.
        seconds: the duration.
    """

    subject: str
    findings: Sequence[Finding]
    skipped: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def status(self) -> Status:
        """The worst status of a finding."""
        return max((finding.status for finding in self.findings), key=lambda status: status.severity, default=Status.OK)

    def exit_code(self, strict: bool = False) -> int:
        """Return 1 if there is an error, and with `strict` also if there is a warning; otherwise 0."""
        failed = (Status.ERROR, Status.WARNING) if strict else (Status.ERROR,)
        return EXIT_ERROR if self.status in failed else 0

    def to_json(self) -> str:
        """Return the report as JSON."""
        content = {
            "subject": self.subject,
            "status": self.status,
            "seconds": round(self.seconds, 1),
            "findings": [asdict(finding) for finding in self.findings],
            "skipped": list(self.skipped),
        }
        return json.dumps(content, indent=2, ensure_ascii=False)

    def summarize(self) -> str:
        """Return the last lines for a terminal: the counts, and what was not checked."""
        counts = Counter(finding.status for finding in self.findings)
        lines = [f"not checked because of the errors above: {', '.join(self.skipped)}"] if self.skipped else []
        names = ((Status.ERROR, "errors"), (Status.WARNING, "warnings"), (Status.OK, "ok"))
        parts = ", ".join(f"{counts[status]} {name}" for status, name in names)
        lines.append(f"{self.subject}: {parts}; {self.seconds:.0f} s. Each line is explained in docs/doctor.md.")
        return "\n".join(lines)


def format_finding(finding: Finding, width: int = 0, color: bool = False) -> str:
    """Return the lines of a finding for a terminal of `width` characters; 0 is the terminal's own width."""
    width = max(width or shutil.get_terminal_size((120, 24)).columns, 60)
    name = f"{finding.check} ({finding.where})" if finding.where else finding.check
    status = f"{finding.status:<8}"
    indent = " " * (len(status) + CHECK_WIDTH)
    head = f"{status}{name + ':':<{CHECK_WIDTH}}"
    gap = "" if head.endswith(" ") else " "
    text = textwrap.fill(f"{head}{gap}{finding.message}", width, subsequent_indent=indent, break_on_hyphens=False)
    if finding.advice:
        text += "\n" + textwrap.fill(finding.advice, width, initial_indent=f"{indent}-> ", subsequent_indent=f"{indent}   ")
    return text.replace(status, f"\033[{COLORS[finding.status]}m{status}\033[0m", 1) if color else text
