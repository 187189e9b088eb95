"""Makes the environments that the targets need, one an image, each from its own lock. Says nothing when they are there.

    python scripts/environments.py images                      # every image's; or some: collector trainer
    python scripts/environments.py collector-test tools        # an image's environment with its tests' needs; ruff and S3
    python scripts/environments.py collector-bench             # the collector's with what it is measured against

An environment is made again when its lock or the way it is made changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import sys
import time
from pathlib import Path

import packages

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venvs"
# Every folder with requirements is an image with an environment of its own.
IMAGES = tuple(sorted(file.parent.name for file in (ROOT / "images").glob("*/requirements.in")))
GROUPS = {"images": IMAGES, "tests": tuple(f"{image}-test" for image in IMAGES)}
BENCH = "collector-bench"
# Programs that the targets call: ruff and the like; MkDocs.
PROGRAMS = ("tools", "docs")
# Not in the image: on this machine the tests and make run speak to it.
STAND_INS = {"airflow": ("slack",)}


def lock_of(name: str) -> Path:
    """The lock file that the environment `name` is made from."""
    if name in IMAGES:
        return ROOT / "images" / name / "requirements.lock"
    if name in PROGRAMS:
        return ROOT / "scripts" / f"{name}.lock"
    image, _, kind = name.partition("-")
    if image in IMAGES and kind == "test":
        return ROOT / "tests" / "locks" / f"{image}.lock"
    if name == BENCH:
        return ROOT / "tests" / "locks" / f"{name}.lock"
    known = f"{', '.join(IMAGES)}, each also with -test, {BENCH}, {', '.join(PROGRAMS)}; images and tests for all of these"
    raise packages.SetupError(f"there is no environment {name!r}: choose from {known}")


def own_packages(name: str) -> list[Path]:
    """The project's own packages that the environment `name` holds."""
    image = name.partition("-")[0]
    if image not in IMAGES:
        return []
    own = ["contract", image, *STAND_INS.get(image, ())]
    return [ROOT / "images" / package for package in own]


def stamp_of(name: str) -> str:
    """What the environment `name` must have been made from to be used as it is."""
    projects = [package / "pyproject.toml" for package in own_packages(name)]
    sources = [lock_of(name), Path(__file__), Path(packages.__file__), *projects]
    return hashlib.sha256(b"\0".join([str(ROOT).encode(), *(source.read_bytes() for source in sources)])).hexdigest()


def make(name: str) -> None:
    """Makes the environment `name` unless it is there, made from what it would be made from now."""
    venv, ready, stamp = VENVS / name, VENVS / name / ".ready", stamp_of(name)
    if ready.exists() and ready.read_text() == stamp:
        return
    started = time.monotonic()
    packages.say(f"environment {name} …")
    ready.unlink(missing_ok=True)
    packages.install(lock_of(name), venv)
    if own := own_packages(name):
        packages.install_own([word for package in own for word in ("-e", str(package))], ["--python", str(venv)])
    ready.write_text(stamp)
    packages.say(f"environment {name}: {time.monotonic() - started:.0f} s")


def main(names: list[str]) -> int:
    """Makes each named environment; 1 and one message where that fails."""
    if sys.version_info[:2] != (3, 11):
        print(f"set-up: this is Python {sys.version.split()[0]}; install Python 3.11 or set PYTHON to it", file=sys.stderr)
        return 1
    VENVS.mkdir(exist_ok=True)
    names = [environment for name in names for environment in GROUPS.get(name, (name,))]
    try:
        for name in names:
            lock_of(name)
        with (VENVS / ".lock").open("w") as exclusive:
            fcntl.flock(exclusive, fcntl.LOCK_EX)
            for name in names:
                make(name)
    except packages.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
