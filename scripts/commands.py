"""Runs the programs that the targets call: each within a bound, quiet unless it fails, its time shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHERE = {
    "docker": "https://docs.docker.com/get-docker/",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
    "helm": "https://helm.sh/docs/intro/install/",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/",
    "git": "https://git-scm.com/downloads",
}
LAST_LINES = 30
LONGEST_LINE = 500


class Failed(Exception):
    """A program failed or took too long; the message is for a person."""


def run(command: Sequence[str], *, seconds: float, input: str | None = None, more: Mapping[str, str] | None = None) -> str:
    """What `command` prints. Raises Failed with its last lines when it fails, or takes longer than `seconds`."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, input=input, capture_output=True, text=True, timeout=seconds, env=os.environ | dict(more or {})
        )
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{' '.join(command[:4])} … took longer than {seconds:.0f} s and was stopped") from late
    except FileNotFoundError as missing:
        raise Failed(f"{command[0]} is not installed: {WHERE.get(command[0], '')}") from missing
    if done.returncode:
        said = "\n".join(line[:LONGEST_LINE] for line in (done.stdout + done.stderr).strip().splitlines()[-LAST_LINES:])
        raise Failed(f"{' '.join(command[:6])} … failed:\n{said}")
    return done.stdout


def need(*programs: str) -> None:
    """Raises Failed naming every program that is missing and where it is to be had."""
    if missing := [program for program in programs if not shutil.which(program)]:
        lines = "\n".join(f"  {program}: {WHERE[program]}" for program in missing)
        raise Failed(f"not installed, and needed here:\n{lines}")
    if "docker" in programs and subprocess.run(["docker", "info"], capture_output=True).returncode:
        raise Failed("docker is installed and its engine does not answer: start it (docker info says more)")


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Says what is done, and how long it took."""
    started = time.monotonic()
    print(f"{what} …", flush=True)
    yield
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)


def fail(error: Failed) -> int:
    """Tells the failure; returns the exit code."""
    print(f"\n{error}", file=sys.stderr)
    return 1
