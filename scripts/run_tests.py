"""Run the tests that need no cluster: each part in its virtual environment, one part more in parallel than there are cores.

python scripts/run_tests.py                     # every part; arguments are passed to pytest
PART=collector,contract python scripts/run_tests.py -k damaged
FAST=1 python scripts/run_tests.py              # without the tests that are marked slow
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from devtools.commands import NO_TESTS_COLLECTED, ROOT, ToolError, print_error, select_parts

SLOWEST = 12
PASSED = (0, NO_TESTS_COLLECTED)


@dataclass(frozen=True)
class Part:
    """A group of tests and the virtual environment that they run in."""

    environment: str
    paths: tuple[str, ...]
    options: tuple[str, ...] = ()


# The longest first, to minimize the total duration.
PARTS = {
    "dags": Part("airflow", ("tests/dags",), ("--ignore=tests/dags/test_runs.py",)),
    "airflow": Part("airflow", ("tests/unit/airflow",)),
    "runs": Part("airflow", ("tests/dags/test_runs.py",)),
    "trainer": Part("trainer", ("tests/unit/trainer",)),
    "collector": Part("collector", ("tests/unit/collector",)),
    "contract": Part("collector", ("tests/unit/contract",)),
    "helm": Part("airflow", ("tests/helm",)),
    "repository": Part("collector", ("tests/unit/repository",)),
    "slack_simulator": Part("airflow", ("tests/unit/slack_simulator",)),
}


@dataclass
class Outcome:
    """The outcome of a part.

    Attributes:
        code: pytest's exit code.
        seconds: the part's duration.
        tests: each test's duration in seconds, by name.
    """

    name: str
    code: int
    output: str
    seconds: float
    tests: dict[str, float] = field(default_factory=dict)


def read_seconds(report: Path) -> Iterator[tuple[str, float]]:
    """Yield each test's name and duration in seconds, with its fixtures', from pytest's JUnit report."""
    if not report.exists():
        return
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 written by pytest
        yield f"{case.get('classname')}::{case.get('name')}", float(case.get("time") or 0)


def run_part(name: str, options: Sequence[str], folder: Path) -> Outcome:
    """Run the tests of a part; return the outcome."""
    part, report = PARTS[name], folder / f"{name}.xml"
    pytest = ROOT / ".venvs" / f"{part.environment}-test" / "bin" / "pytest"
    command = [str(pytest), *part.paths, *part.options, f"--junit-xml={report}", "-rs", *options]
    # Without cached bytecode, Airflow and torch take twice as long to import.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    started = time.monotonic()
    completed = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return Outcome(name, completed.returncode, completed.stdout, time.monotonic() - started, dict(read_seconds(report)))


def print_outcome(outcome: Outcome) -> None:
    """Print a part's summary and its skipped tests, or all of its output if it failed."""
    lines = [line for line in outcome.output.splitlines() if line.strip()]
    if outcome.code not in PASSED:
        print(f"\n== {outcome.name}\n{outcome.output}", flush=True)
    summary = next((line for line in reversed(lines) if " in " in line), "no result")
    print(f"{outcome.name:<12}{outcome.seconds:6.0f} s  {summary.strip('= ')}", flush=True)
    for line in lines:
        if line.startswith("SKIPPED") and outcome.code in PASSED:
            print(f"{'':<20}  {line}", flush=True)


def main(options: list[str]) -> int:
    """Run the parts that PART names, or all; return the exit code."""
    try:
        names = select_parts(os.environ.get("PART") or "", PARTS)
    except ToolError as error:
        return print_error(error)
    if os.environ.get("FAST", "").lower() not in ("", "0", "false"):
        options = ["-m", "not slow", *options]
    started, outcomes = time.monotonic(), list[Outcome]()
    workers = max(2, os.cpu_count() or 2) + 1  # a part waits for a third of its duration
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        for future in as_completed([pool.submit(run_part, name, options, Path(folder)) for name in names]):
            outcomes.append(future.result())
            print_outcome(outcomes[-1])
    tests = {name: seconds for outcome in outcomes for name, seconds in outcome.tests.items()}
    failed = [outcome.name for outcome in outcomes if outcome.code not in PASSED]
    if not tests and not failed:
        print("no tests were run: the options select none", file=sys.stderr)
        return 1
    print(f"\nslowest of {len(tests)} tests, with their fixtures:")
    for name in sorted(tests, key=tests.__getitem__, reverse=True)[:SLOWEST]:
        print(f"{tests[name]:6.1f} s  {name}")
    print(
        f"\n{'FAILED: ' + ', '.join(failed) if failed else 'passed'}, {time.monotonic() - started:.0f} s on {workers} workers"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
