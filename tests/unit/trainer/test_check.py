"""The command `check` of the trainer."""

from __future__ import annotations

from collections.abc import Callable

from step_contract.checks.findings import Finding, Status
from trainer.cli import build_parser

from ...conftest import Run


def test_store_and_torch_are_checked(run_program: Callable[..., Run]) -> None:
    code, output, _ = run_program(build_parser)("check", "--format", "json")
    found = {finding.check: finding.status for line in output.splitlines() if (finding := Finding.parse(line))}
    assert code == 0 and found == dict.fromkeys(("commit", "platform", "bucket", "clock", "torch"), Status.OK)


def test_a_store_that_cannot_be_used_does_not_hide_torch(run_program: Callable[..., Run]) -> None:
    code, output, result = run_program(build_parser)("check", "--format", "json", "--artifacts", "file:///proc/none")
    found = {finding.check: finding.status for line in output.splitlines() if (finding := Finding.parse(line))}
    assert code == 78 and (found["bucket"], found["torch"]) == (Status.ERROR, Status.OK)
    assert "errors in bucket" in str(result["error"])
