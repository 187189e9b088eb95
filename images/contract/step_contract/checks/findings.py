"""What a check of an installation found: the form that the programs, Airflow's image and `make doctor` share.

Imports nothing but the standard library: `scripts/doctor.py` runs without an environment of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from step_contract.errors import StepError

MAX_LENGTH = 600  # characters of a message or an advice
MAX_SHOWN = 20  # findings of one check, for a person


class Status(StrEnum):
    """The outcome of a check, from best to worst."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"

    @property
    def severity(self) -> int:
        """A number that is greater the worse the status is."""
        return list(Status).index(self)


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    Attributes:
        check: the check's name, by which docs/doctor.md describes it.
        status: the outcome.
        message: what was found, in one sentence.
        advice: what to do next; empty if nothing is to be done.
        where: the component, node or program that it applies to; empty if there is one only.
    """

    check: str
    status: Status
    message: str
    advice: str = ""
    where: str = ""

    def to_json(self) -> str:
        """Return the finding as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def parse(cls, line: str) -> Finding | None:
        """Return the finding that a line of output holds; None if the line is something else."""
        try:
            content = json.loads(line)
            fields = {name: str(content[name]) for name in ("check", "message", "advice", "where")}
            return cls(status=Status(content["status"]), **fields)
        except (ValueError, KeyError, TypeError):
            return None


def ok(check: str, message: str, where: str = "") -> Finding:
    """Return a finding that needs nothing to be done."""
    return Finding(check, Status.OK, message, where=where)


def warning(check: str, message: str, advice: str, where: str = "") -> Finding:
    """Return a finding that a person should look at."""
    return Finding(check, Status.WARNING, message, advice, where)


def error(check: str, message: str, advice: str, where: str = "") -> Finding:
    """Return a finding that prevents a run."""
    return Finding(check, Status.ERROR, message, advice, where)


def run_check(check: str, function: Callable[[], Iterable[Finding]], where: str = "") -> list[Finding]:
    """Return what `function` finds, each message in one line; an exception becomes a finding with the check's name.

    `where` is set in those findings that do not name a place themselves.
    """
    findings = []
    try:
        for finding in function():
            findings.append(finding)
    except StepError as problem:
        findings.append(error(check, str(problem), "the message names what to correct"))
    except Exception as problem:
        findings.append(
            error(
                check, f"the check failed: {type(problem).__name__}: {problem}", "report a bug with this line, or run it again"
            )
        )
    return [_tidy(finding, where) for finding in findings]


def _tidy(finding: Finding, where: str) -> Finding:
    message, advice = (" ".join(text.split()) for text in (finding.message, finding.advice))
    return replace(finding, message=message[:MAX_LENGTH], advice=advice[:MAX_LENGTH], where=finding.where or where)


def print_findings(findings: Iterable[Finding], as_json: bool) -> Iterator[Finding]:
    """Print each finding on standard output when it is known, as JSON or for a person, and yield it."""
    for finding in findings:
        if as_json:
            print(finding.to_json(), flush=True)
        else:
            advice = f"; {finding.advice}" if finding.advice else ""
            print(f"{finding.status:<8}{finding.check}: {finding.message}{advice}", flush=True)
        yield finding


def abbreviate(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield at most MAX_SHOWN findings of each check, then how many more there are."""
    seen: dict[str, int] = {}
    for finding in findings:
        seen[finding.check] = seen.get(finding.check, 0) + 1
        if seen[finding.check] <= MAX_SHOWN:
            yield finding
    for check, count in seen.items():
        if count > MAX_SHOWN:
            yield warning(check, f"and {count - MAX_SHOWN} more", "as JSON, all are printed")
