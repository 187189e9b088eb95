"""What `make run` and the targets for a cluster need on this machine."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace

import virtualenvs
from devtools import container_images, slack_connection
from devtools.commands import INSTALL_URLS, ROOT, ToolError, run
from step_contract.checks.findings import Finding, error, ok, warning

# Each program with the command that prints its version and the lowest that is known to work.
VERSIONS: Mapping[str, tuple[list[str], tuple[int, int]]] = {
    "git": (["git", "--version"], (2, 20)),
    "kubectl": (["kubectl", "version", "--client", "--output=json"], (1, 27)),
    "helm": (["helm", "version", "--short"], (3, 10)),
    "kind": (["kind", "version"], (0, 20)),
    "docker": (["docker", "version", "--format", "{{.Server.Version}}"], (20, 10)),
}
FOR_RUN = ("git",)
FOR_CLUSTER = ("git", "kubectl", "helm")
FOR_KIND = (*FOR_CLUSTER, "kind", "docker")
VERSION_TIMEOUT_SECONDS = 15
PROGRAM_TIMEOUT_SECONDS = 120
MIN_FREE_BYTES = 3 * 2**30  # environments, images and a run's artifacts


def check_programs(names: tuple[str, ...]) -> Iterator[Finding]:
    """Yield the version of each program, or where to get it."""
    found = []
    for name in names:
        command, minimum = VERSIONS[name]
        if not shutil.which(name):
            yield error("programs", f"{name} is not installed", f"install it: {INSTALL_URLS[name]}", name)
            continue
        try:
            output = run(command, timeout=VERSION_TIMEOUT_SECONDS)
        except ToolError as problem:
            advice = (
                "start Docker; docker info has the details" if name == "docker" else f"install it again: {INSTALL_URLS[name]}"
            )
            last = str(problem).splitlines()[-1]
            yield error("programs", f"{name} does not work: {last}", advice, name)
            continue
        match = re.search(r"v?(\d+)\.(\d+)(\.\d+)?", output)
        version = match[0].lstrip("v") if match else "of an unknown version"
        if match and (int(match[1]), int(match[2])) < minimum:
            lowest = ".".join(map(str, minimum))
            yield warning("programs", f"{name} {version} is older than {lowest}", f"upgrade it: {INSTALL_URLS[name]}", name)
        else:
            found.append(f"{name} {version}")
    if found:
        yield ok("programs", ", ".join(found))


def check_python() -> Iterator[Finding]:
    """Yield whether this is the Python that the environments need."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != (3, 11):
        yield error("python", f"{sys.executable} is Python {version}", "install Python 3.11, or set PYTHON to its path")
    else:
        yield ok("python", f"Python {version}")


def check_environments() -> Iterator[Finding]:
    """Yield whether the environments of make run exist; the next run creates those that do not."""
    missing = [name for name in container_images.IMAGES if not virtualenvs.is_current(name)]
    if missing:
        message = f"{', '.join(missing)}: missing or outdated; make run creates them, with up to 400 MB of downloads"
        yield warning(
            "environments", message, "run make run, or python scripts/virtualenvs.py images, with a package index in reach"
        )
    else:
        yield ok("environments", f"{', '.join(container_images.IMAGES)} are up to date")


def check_disk() -> Iterator[Finding]:
    """Yield the free space of the repository's disk."""
    free = shutil.disk_usage(ROOT).free
    message = f"{free / 2**30:.1f} GiB free at {ROOT}"
    if free < MIN_FREE_BYTES:
        yield warning("disk", message, "free some space: environments take 1.5 GiB, images of a cluster 4 GiB")
    else:
        yield ok("disk", message)


def check_slack_token() -> Iterator[Finding]:
    """Yield whether SLACK_TOKEN or AIRFLOW_CONN_SLACK_CONN, if set, is a connection with a bot's token."""
    if connection := slack_connection.read_connection():
        if problem := slack_connection.find_problem(connection):
            yield error("slack-token", problem, "use the Bot User OAuth Token (docs/slack.md), or unset the variable")
        else:
            yield ok("slack-token", "the token has the form of a bot's")


def list_programs() -> list[str]:
    """Return the programs that have a command check."""
    return [name for name in container_images.PROGRAMS if (ROOT / "images" / name / name / "check.py").exists()]


def run_program(program: str) -> Iterator[Finding]:
    """Yield what the program's own command `check` finds, in the environment and with the settings of make run."""
    if not virtualenvs.is_current(program):
        return
    command = [str(ROOT / "scripts" / "step"), program, "check", "--format", "json"]
    command += ["--scheduled", "false"] if program == "collector" else []
    # A shell, as the program's exit code is 78 if it found an error.
    output = run(["sh", "-c", '"$@" || [ $? = 78 ]', "sh", *command], timeout=PROGRAM_TIMEOUT_SECONDS)
    findings = [finding for line in output.splitlines() if (finding := Finding.parse(line))]
    if not findings:
        yield error(f"run-{program}", f"{' '.join(command[:3])} printed nothing", "run it by hand")
    yield from (replace(finding, where=program) for finding in findings if finding.check != "commit")
