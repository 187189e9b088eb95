"""Run external programs with a timeout, and report progress and errors on the terminal."""

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
INSTALL_URLS = {
    "docker": "https://docs.docker.com/get-docker/",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
    "helm": "https://helm.sh/docs/intro/install/",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/",
    "git": "https://git-scm.com/downloads",
}
MAX_LINES = 30
MAX_LINE_LENGTH = 500
NO_TESTS_COLLECTED = 5  # pytest's exit code


class ToolError(Exception):
    """A command failed, timed out or cannot run; the message is for the person who called the program."""


def run(command: Sequence[str], *, timeout: float, input: str | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run `command` in the repository's root and return its standard output.

    Args:
        timeout: seconds after which the command is killed.
        env: variables in addition to those of this process.

    Raises:
        ToolError: the command is not installed, timed out, or failed; then with the last lines of its output.
    """
    try:
        completed = subprocess.run(
            command, cwd=ROOT, input=input, capture_output=True, text=True, timeout=timeout, env=os.environ | dict(env or {})
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{' '.join(command[:4])} … timed out after {timeout:.0f} s") from error
    except FileNotFoundError as error:
        raise ToolError(f"{command[0]} is not installed: {INSTALL_URLS.get(command[0], '')}") from error
    if completed.returncode:
        lines = (completed.stdout + completed.stderr).strip().splitlines()[-MAX_LINES:]
        output = "\n".join(line[:MAX_LINE_LENGTH] for line in lines)
        raise ToolError(f"{' '.join(command[:6])} … failed:\n{output}")
    return completed.stdout


def require_programs(*programs: str) -> None:
    """Raise ToolError that lists each program that is not installed, or if Docker does not respond."""
    if missing := [program for program in programs if not shutil.which(program)]:
        lines = "\n".join(f"  {program}: {INSTALL_URLS[program]}" for program in missing)
        raise ToolError(f"required programs are not installed:\n{lines}")
    if "docker" in programs and subprocess.run(["docker", "info"], capture_output=True).returncode:
        raise ToolError("cannot connect to the Docker daemon: start Docker, or run docker info for details")


def select_parts(names: str, known: Iterable[str]) -> list[str]:
    """Return the parts that `names` lists, separated by commas, in the order of `known`; all of them if it is empty.

    Raises ToolError for an unknown part.
    """
    selected, known = names.replace(",", " ").split(), list(known)
    if unknown := sorted(set(selected) - set(known)):
        raise ToolError(
            f"invalid PART: {', '.join(unknown)}; must be one of {', '.join(known)}, or several separated by commas"
        )
    return [part for part in known if part in selected] or known


@contextmanager
def progress(activity: str) -> Iterator[None]:
    """Print `activity` when the block begins, and its duration when it succeeds."""
    started = time.monotonic()
    print(f"{activity} …", flush=True)
    yield
    print(f"{activity}: {time.monotonic() - started:.0f} s", flush=True)


def print_error(error: ToolError) -> int:
    """Print the error on standard error; return the exit code 1."""
    print(f"\nError: {error}", file=sys.stderr)
    return 1
