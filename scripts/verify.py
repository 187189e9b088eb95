"""Verify the artifacts of this machine, or of an environment; with --repair, make anew what is damaged or missing.

    python scripts/verify.py                  # those that make run has made: ARTIFACTS
    python scripts/verify.py staging          # in a pod like a step's
    python scripts/verify.py staging --repair

FROM, TO, JSON, DRY_RUN, CONTEXT, NAMESPACE: see docs/settings.md. The exit code is 1 if something is missing or damaged.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from checks.program_pods import PodRunner, Runner
from deploy import find_deployment
from devtools.commands import ROOT, ToolError, print_error, require_programs
from step_contract.checks.findings import Finding, Status, abbreviate, print_findings
from step_contract.repair import plan_repairs


class LocalRunner:
    """Runs steps in the programs' environments on this machine, on the artifacts that ARTIFACTS names."""

    def run(self, program: str, arguments: Sequence[str]) -> tuple[int, list[str]]:
        """Return the exit code and the lines of the program's output."""
        command = [str(ROOT / "scripts" / "step"), program, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout.splitlines()


def verify(runner: Runner) -> list[Finding]:
    """Return what the program finds. Raises ToolError with its output if it does not end as it should."""
    options = [word for name in ("FROM", "TO") if (day := os.environ.get(name)) for word in (f"--{name.lower()}", day)]
    code, lines = runner.run("collector", ["verify", "--format", "json", *options])
    findings = [finding for line in lines if (finding := Finding.parse(line))]
    if code not in (0, 65) or not findings:
        raise ToolError("\n".join(lines[-10:]) or f"verify ended with exit code {code}")
    return findings


def show(findings: Sequence[Finding]) -> bool:
    """Print the findings and how many there are; return whether there is an error."""
    as_json = os.environ.get("JSON") == "1"
    list(print_findings(findings if as_json else abbreviate(findings), as_json))
    errors, warnings = (sum(finding.status is status for finding in findings) for status in (Status.ERROR, Status.WARNING))
    if not as_json:
        print(f"{errors} errors, {warnings} warnings")
    return bool(errors)


def repair(runner: Runner, findings: Sequence[Finding]) -> bool:
    """Run what repairs the errors, and verify again; return whether everything is in order. With DRY_RUN=1, only print it."""
    plan = plan_repairs(findings)
    for finding, reason in plan.remaining:
        print(f"not repaired: {finding.where or finding.message}: {reason}")
    is_dry_run, failed = os.environ.get("DRY_RUN") == "1", 0
    for step in plan.repairs:
        print(f"{'would run' if is_dry_run else 'run'}: {step.program} {shlex.join(step.arguments)}", flush=True)
        if is_dry_run:
            continue
        code, lines = runner.run(step.program, step.arguments)
        if code:
            failed += 1
            print("\n".join(f"  {line}" for line in lines[-3:]))
    if is_dry_run or not plan.repairs:
        return not plan.remaining and not plan.repairs
    print(f"{len(plan.repairs) - failed} of {len(plan.repairs)} repaired; verifying again", flush=True)
    return not show(verify(runner))


def main(arguments: list[str]) -> int:
    """Verify, and with --repair repair; return the exit code."""
    parser = argparse.ArgumentParser(prog="verify.py", description="Verify the artifacts, and repair them.")
    parser.add_argument("environment", nargs="?")
    parser.add_argument("--repair", action="store_true")
    options = parser.parse_args(arguments)
    try:
        runner: Runner = LocalRunner()
        if options.environment:
            require_programs("kubectl", "helm")
            runner = PodRunner(find_deployment(options.environment))
        findings = verify(runner)
        has_errors = show(findings)
        if options.repair:
            has_errors = not repair(runner, findings)
        return 1 if has_errors else 0
    except ToolError as error:
        return print_error(error)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
