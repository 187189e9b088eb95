"""Create the virtual environments that the targets need, below .venvs/, each from its own lock.

    python scripts/virtualenvs.py images                      # one for each image; or some: collector trainer
    python scripts/virtualenvs.py collector-test tools        # an image's with its tests' requirements; linters
    python scripts/virtualenvs.py collector-bench             # the collector's with the benchmark's requirements

An environment is created again when its lock or its installation has changed. Prints nothing if all are up to date.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import time
from pathlib import Path

import packages
from devtools.commands import ROOT
from devtools.container_images import IMAGES, PROGRAMS

VENVS = ROOT / ".venvs"
GROUPS = {"images": IMAGES, "programs": PROGRAMS, "tests": tuple(f"{image}-test" for image in IMAGES)}
BENCH = "collector-bench"
# Linters and the like, and MkDocs.
TOOLS = ("tools", "docs")
# Not in the image; Airflow's tests and make run import it.
SLACK_SIMULATOR = ROOT / "dev" / "slack_simulator"


def lock_of(name: str) -> Path:
    """Return the lock file of the environment `name`. Raises packages.SetupError if there is no such environment."""
    if name in IMAGES:
        return ROOT / "images" / name / "requirements.lock"
    if name in TOOLS:
        return ROOT / "scripts" / f"{name}.lock"
    image, _, kind = name.partition("-")
    if image in IMAGES and kind == "test":
        return ROOT / "tests" / "locks" / f"{image}.lock"
    if name == BENCH:
        return ROOT / "tests" / "locks" / f"{name}.lock"
    known = (
        f"{', '.join(IMAGES)}, each also with -test, {BENCH}, {', '.join(TOOLS)}, or images, programs or tests for all of these"
    )
    raise packages.SetupError(f"unknown environment {name!r}; must be one of {known}")


def list_own_packages(name: str) -> list[Path]:
    """Return the folders of the project's packages that the environment `name` contains."""
    image = name.partition("-")[0]
    if image not in IMAGES:
        return []
    packages = [ROOT / "images" / package for package in ("contract", image)]
    return [*packages, SLACK_SIMULATOR] if image == "airflow" else packages


def compute_stamp(name: str) -> str:
    """Return a digest of everything that the environment `name` is created from."""
    projects = [package / "pyproject.toml" for package in list_own_packages(name)]
    sources = [lock_of(name), Path(__file__), Path(packages.__file__), *projects]
    return hashlib.sha256(b"\0".join([str(ROOT).encode(), *(source.read_bytes() for source in sources)])).hexdigest()


def write_bytecode(venv: Path) -> None:
    """Write the bytecode of what importing pandas imports: without it, the import takes 3 s instead of half a second.

    The images have it. Where PYTHONDONTWRITEBYTECODE is set, each step would otherwise compile pandas again.
    """
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    packages.run([str(venv / "bin" / "python"), "-c", "import pandas"], environment, f"cannot import pandas from {venv}")


def is_current(name: str) -> bool:
    """Return whether the environment `name` exists and is up to date."""
    ready = VENVS / name / ".ready"
    return ready.exists() and ready.read_text() == compute_stamp(name)


def create(name: str) -> None:
    """Create the environment `name` unless it is up to date."""
    venv, ready = VENVS / name, VENVS / name / ".ready"
    if is_current(name):
        return
    started = time.monotonic()
    packages.print_progress(f"environment {name} …")
    ready.unlink(missing_ok=True)
    packages.install_lock(lock_of(name), venv)
    if own := list_own_packages(name):
        editable = [word for package in own for word in ("-e", str(package))]
        packages.install_own(editable, ["--python", str(venv)])
    if name in PROGRAMS:
        write_bytecode(venv)
    ready.write_text(compute_stamp(name))
    packages.print_progress(f"environment {name}: {time.monotonic() - started:.0f} s")


def main(names: list[str]) -> int:
    """Create each named environment; return the exit code."""
    if sys.version_info[:2] != (3, 11):
        version = sys.version.split()[0]
        print(f"setup: Python 3.11 is required, this is {version}: install it or set PYTHON to its path", file=sys.stderr)
        return 1
    VENVS.mkdir(exist_ok=True)
    names = [environment for name in names for environment in GROUPS.get(name, (name,))]
    try:
        for name in names:
            lock_of(name)
        with (VENVS / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name in names:
                create(name)
    except packages.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
