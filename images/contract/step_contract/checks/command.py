"""The command `check` of a program: what `make doctor` runs in a pod like a step's, and a person with scripts/step."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping

from step_contract.checks.findings import Finding, Status, ok, print_findings, run_check, warning
from step_contract.cli import Parser
from step_contract.errors import ConfigurationError
from step_contract.facts import SummaryFacts
from step_contract.result import Result, describe_platform

# The finding whose message is the commit that the image was built from, and nothing else.
COMMIT_CHECK = "commit"
Checks = Mapping[str, Callable[[], Iterable[Finding]]]


def add_format(parser: Parser) -> None:
    """Add the option of the form in which findings are printed."""
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how each finding is printed, as one line")


def check_platform() -> Iterable[Finding]:
    """Yield the image's commit, and whether its architecture is the node's."""
    yield ok(COMMIT_CHECK, os.environ.get("GIT_COMMIT") or "unknown")
    platform = describe_platform()
    if "emulated" in platform:
        advice = (
            "emulated code is several times slower and may crash: set the program's node selector to the image's architecture"
        )
        yield warning("platform", platform, advice)
    else:
        yield ok("platform", platform)


def run_checks(options: argparse.Namespace, checks: Checks) -> Result:
    """Run the checks one after another and print what they find; a check that raises does not stop the others.

    Raises ConfigurationError, which names them, if a check found an error.
    """
    found = (finding for name, check in checks.items() for finding in run_check(name, check))
    findings = list(print_findings(found, as_json=options.format == "json"))
    failed = sorted({finding.check for finding in findings if finding.status is Status.ERROR})
    if failed:
        raise ConfigurationError(f"errors in {', '.join(failed)}: see the lines above and docs/doctor.md")
    warnings = sum(finding.status is Status.WARNING for finding in findings)
    return Result(facts=SummaryFacts(f"{len(findings)} findings, {warnings} warnings").to_facts())
