"""Run the tests that need no cluster: each part in its image's environment, as many parts side by side as there are cores.

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

from devtools.commands import NO_TESTS, ROOT, ToolError, choose_parts, fail

SLOWEST = 12
NEITHER_FAILED = (0, NO_TESTS)


@dataclass(frozen=True)
class Part:
    """Some tests and the environment that they run in."""

    environment: str
    paths: tuple[str, ...]
    options: tuple[str, ...] = ()


# The longest first: the last part to end decides how long all of it takes.
PARTS = {
    "runs": Part("airflow", ("tests/dags/test_runs.py",)),
    "dags": Part("airflow", ("tests/dags",), ("--ignore=tests/dags/test_runs.py",)),
    "trainer": Part("trainer", ("tests/unit/trainer",)),
    "airflow": Part("airflow", ("tests/unit/airflow",)),
    "collector": Part("collector", ("tests/unit/collector",)),
    "helm": Part("airflow", ("tests/helm",)),
    "contract": Part("collector", ("tests/unit/contract",)),
    "slack": Part("airflow", ("tests/unit/slack",)),
    "repository": Part("collector", ("tests/unit/repository",)),
}


@dataclass
class Outcome:
    """What came of a part: pytest's exit code and output, the seconds it took, and each test's seconds by name."""

    name: str
    code: int
    output: str
    seconds: float
    tests: dict[str, float] = field(default_factory=dict)


def read_seconds(report: Path) -> Iterator[tuple[str, float]]:
    """Yield each test's name and seconds, set-up included, from pytest's JUnit report."""
    if not report.exists():
        return
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 written by pytest, a moment ago
        yield f"{case.get('classname')}::{case.get('name')}", float(case.get("time") or 0)


def run_part(name: str, options: Sequence[str], folder: Path) -> Outcome:
    """Run a part to its end."""
    part, report = PARTS[name], folder / f"{name}.xml"
    pytest = ROOT / ".venvs" / f"{part.environment}-test" / "bin" / "pytest"
    command = [str(pytest), *part.paths, *part.options, f"--junit-xml={report}", "-rs", *options]
    # Airflow and torch take twice as long to import when their bytecode may not be kept.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return Outcome(name, done.returncode, done.stdout, time.monotonic() - started, dict(read_seconds(report)))


def report(outcome: Outcome) -> None:
    """Print a part's result as soon as it is known: its last line and what was skipped, or everything where it failed."""
    lines = [line for line in outcome.output.splitlines() if line.strip()]
    if outcome.code not in NEITHER_FAILED:
        print(f"\n== {outcome.name}\n{outcome.output}", flush=True)
    summary = next((line for line in reversed(lines) if " in " in line), "no result")
    print(f"{outcome.name:<12}{outcome.seconds:6.0f} s  {summary.strip('= ')}", flush=True)
    for line in lines:
        if line.startswith("SKIPPED") and outcome.code in NEITHER_FAILED:
            print(f"{'':<20}  {line}", flush=True)


def main(options: list[str]) -> int:
    """Run the parts that PART names, or all; return 1 where a test failed."""
    try:
        names = choose_parts(os.environ.get("PART") or "", PARTS)
    except ToolError as error:
        return fail(error)
    if os.environ.get("FAST", "").lower() not in ("", "0", "false"):
        options = ["-m", "not slow", *options]
    started, outcomes = time.monotonic(), list[Outcome]()
    lanes = max(2, os.cpu_count() or 2)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(lanes) as pool:
        for future in as_completed([pool.submit(run_part, name, options, Path(folder)) for name in names]):
            outcomes.append(future.result())
            report(outcomes[-1])
    tests = {name: seconds for outcome in outcomes for name, seconds in outcome.tests.items()}
    failed = [outcome.name for outcome in outcomes if outcome.code not in NEITHER_FAILED]
    if not tests and not failed:
        print("no test was run: the options leave none", file=sys.stderr)
        return 1
    print(f"\nthe slowest of {len(tests)} tests, set-up of shared parts included:")
    for name in sorted(tests, key=tests.__getitem__, reverse=True)[:SLOWEST]:
        print(f"{tests[name]:6.1f} s  {name}")
    print(f"\n{'FAILED: ' + ', '.join(failed) if failed else 'passed'}, {time.monotonic() - started:.0f} s on {lanes} lanes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
