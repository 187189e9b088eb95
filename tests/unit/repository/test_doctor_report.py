"""The report of make doctor: its lines, its JSON and its exit code; and the checks of this machine."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checks import laptop
from checks.report import Report, format_finding, run_checks
from devtools import bucket_policy, slack_connection
from devtools.commands import ROOT, ToolError
from step_contract import paths
from step_contract.checks.findings import Finding, error, ok, warning

FINDINGS = (ok("a", "fine"), warning("b", "careful", "look at it", "scheduler"), error("c", "broken", "repair it"))


@pytest.mark.parametrize(("number", "code", "strict"), [(0, 0, 0), (1, 0, 0), (2, 0, 1), (3, 1, 1)])
def test_the_exit_code_follows_the_worst_line(number: int, code: int, strict: int) -> None:
    report = Report("staging", FINDINGS[:number])
    assert (report.exit_code(), report.exit_code(strict=True)) == (code, strict)


def test_the_json_has_every_line_and_what_was_not_checked() -> None:
    content = json.loads(Report("staging", FINDINGS, ["secrets"], 1.25).to_json())
    assert content["status"] == "error" and content["skipped"] == ["secrets"] and content["subject"] == "staging"
    assert content["findings"][1] == {
        "check": "b",
        "status": "warning",
        "message": "careful",
        "advice": "look at it",
        "where": "scheduler",
    }


def test_a_line_shows_status_place_message_and_advice_within_the_width() -> None:
    text = format_finding(error("secrets", "word " * 40, "do this", "scheduler"), width=80)
    assert text.startswith("error   secrets (scheduler): word") and text.rstrip().endswith("-> do this")
    assert max(map(len, text.splitlines())) <= 80


def test_checks_run_side_by_side_and_are_printed_in_their_order() -> None:
    import threading

    barrier = threading.Barrier(2, timeout=10)

    def wait(name: str) -> list[Finding]:
        barrier.wait()
        return [ok(name, "")]

    def fail() -> list[Finding]:
        raise ToolError("kubectl … failed:\nError from server (Forbidden): pods is forbidden")

    found = list(run_checks({"first": lambda: wait("first"), "failed": fail, "second": lambda: wait("second")}))
    assert [(finding.check, finding.status.value) for finding in found] == [
        ("first", "ok"),
        ("failed", "warning"),
        ("second", "ok"),
    ]


def test_the_documentation_describes_each_line() -> None:
    files = [*(ROOT / "scripts" / "checks").glob("*.py"), ROOT / "scripts" / "doctor.py"]
    files += [ROOT / "images" / name for name in ("airflow/airflow_steps/doctor.py", "airflow/airflow_monitor/slack_check.py")]
    files += [ROOT / "images" / name for name in ("collector/collector/check.py", "trainer/trainer/check.py")]
    files += [path for path in (ROOT / "images/contract/step_contract").glob("*.py") if path.name != "verification.py"]
    text = "".join(file.read_text() for file in files)
    used = set(re.findall(r'\b(?:ok|warning|error|grade)\)?\(\s*"([a-z-]+)"', text)) | {"clock", "bucket"}
    documented = set(re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "docs" / "doctor.md").read_text(), re.MULTILINE))
    assert used - documented == set(), "docs/doctor.md does not describe a line"
    assert len(used) > 25


@pytest.mark.parametrize(
    ("connection", "problem"),
    [
        ('{"conn_type": "slack", "password": "xoxb-1-a"}', ""),
        ("slack://:xoxb-1-a@", ""),
        ('{"conn_type": "slack"}', "no password"),
        ('{"conn_type": "slack", "password": "xoxb-1 a"}', "must begin with xoxb-"),
        ("[]", "neither JSON"),
        ("  ", "is empty"),
    ],
)
def test_the_form_of_a_slack_connection_is_judged(connection: str, problem: str) -> None:
    found = slack_connection.find_problem(connection)
    assert problem in found and bool(problem) == bool(found)


def test_the_steps_key_may_write_and_delete_the_objects_of_the_check() -> None:
    path = f"{paths.store_check('0123')}/object"
    assert path.partition("/")[0] in bucket_policy.STEP_PREFIXES
    assert any(fnmatch.fnmatchcase(path, pattern) for pattern in bucket_policy.DELETED_PATTERNS)


def write_program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_old_missing_and_broken_programs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    write_program(tmp_path, "git", "echo git version 2.43.0")
    write_program(tmp_path, "helm", "echo v3.2.1+g0123")
    write_program(tmp_path, "docker", "echo cannot connect >&2; exit 1")
    found = {(finding.where, finding.status.value): finding for finding in laptop.check_programs(laptop.FOR_KIND)}
    assert "3.2.1 is older than 3.10" in found["helm", "warning"].message
    assert "cannot connect" in found["docker", "error"].message and "start Docker" in found["docker", "error"].advice
    assert "https://" in found["kubectl", "error"].advice and found["", "ok"].message == "git 2.43.0"


def test_without_an_environment_only_this_machine_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(tmp_path, "git", "echo git version 2.43.0")
    write_program(tmp_path, "kubectl", f"touch {tmp_path}/called; exit 1")
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLACK_TOKEN": "xapp-1-do-not-show"}
    program = "import doctor; from checks import laptop; laptop.list_programs = lambda: []; doctor.main([])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "scripts", env=environment, capture_output=True, text=True
    )
    assert "git 2.43.0" in done.stdout and "must begin with xoxb-" in " ".join(done.stdout.split()), done.stderr
    assert "do-not-show" not in done.stdout and not (tmp_path / "called").exists()
