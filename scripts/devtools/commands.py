"""Runs the programs that the targets call: each within a bound, quiet unless it fails, its time shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WHERE = {
    "docker": "https://docs.docker.com/get-docker/",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
    "helm": "https://helm.sh/docs/intro/install/",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/",
    "git": "https://git-scm.com/downloads",
}
LAST_LINES = 30
LONGEST_LINE = 500
NO_TESTS = 5  # pytest's exit code where the options leave no test


class ToolError(Exception):
    """A program failed or took too long; the message is for a person."""


def run(command: Sequence[str], *, seconds: float, input: str | None = None, more: Mapping[str, str] | None = None) -> str:
    """What `command` prints. Raises ToolError with its last lines when it fails, or takes longer than `seconds`."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, input=input, capture_output=True, text=True, timeout=seconds, env=os.environ | dict(more or {})
        )
    except subprocess.TimeoutExpired as late:
        raise ToolError(f"{' '.join(command[:4])} … took longer than {seconds:.0f} s and was stopped") from late
    except FileNotFoundError as missing:
        raise ToolError(f"{command[0]} is not installed: {WHERE.get(command[0], '')}") from missing
    if done.returncode:
        said = "\n".join(line[:LONGEST_LINE] for line in (done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:])
        raise ToolError(f"{' '.join(command[:6])} … failed:\n{said}")
    return done.stdout


def need(*programs: str) -> None:
    """Raises ToolError naming every program that is missing and where it is to be had."""
    if missing := [program for program in programs if not shutil.which(program)]:
        lines = "\n".join(f"  {program}: {WHERE[program]}" for program in missing)
        raise ToolError(f"not installed, and needed here:\n{lines}")
    if "docker" in programs and subprocess.run(["docker", "info"], capture_output=True).returncode:
        raise ToolError("docker is installed and its engine does not answer: start it (docker info says more)")


def choose_parts(names: str, known: Iterable[str]) -> list[str]:
    """Return the parts that `names` lists, separated by commas, in the order of `known`; all where it is empty.

    Raises ToolError for an unknown one.
    """
    chosen, known = names.replace(",", " ").split(), list(known)
    if unknown := sorted(set(chosen) - set(known)):
        raise ToolError(
            f"invalid PART: {', '.join(unknown)}; must be one of {', '.join(known)}, or several separated by commas"
        )
    return [part for part in known if part in chosen] or known


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Says what is done, and how long it took."""
    started = time.monotonic()
    print(f"{what} …", flush=True)
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


def fail(error: ToolError) -> int:
    """Tells the failure; returns the exit code."""
    print(f"\n{error}", file=sys.stderr)
    return 1
