"""Makes the environments that the targets need, one an image, each from its own lock. Says nothing when they are there.

    python scripts/environments.py collector trainer airflow   # as in the images
    python scripts/environments.py collector-test tools        # an image's environment with its tests' needs; ruff and S3

An environment is made again when its lock or this file changes. uv is taken from the PATH, or else installed by pip into
.venvs/uv. What pip is configured to use on this machine (indexes, find-links, certificate) is handed on to uv.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".venvs"
IMAGES = ("airflow", "collector", "trainer")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


class SetupError(Exception):
    """Set-up cannot go on; the message says what to do."""


def lock_of(name: str) -> Path:
    """The lock file that the environment `name` is made from."""
    if name in IMAGES:
        return ROOT / "images" / name / "requirements.lock"
    if name == "tools":
        return ROOT / "scripts" / "tools.lock"
    image, _, kind = name.partition("-")
    if image in IMAGES and kind == "test":
        return ROOT / "tests" / "locks" / f"{image}.lock"
    raise SetupError(f"there is no environment {name!r}: choose from {', '.join(IMAGES)}, each also with -test, and tools")


def own_packages(name: str) -> list[Path]:
    """The project's own packages that the environment `name` holds."""
    image = name.removesuffix("-test")
    return [ROOT / "images" / "contract", ROOT / "images" / image] if image in IMAGES else []


def stamp_of(name: str) -> str:
    """What the environment `name` must have been made from to be used as it is."""
    sources = [lock_of(name), Path(__file__), *(package / "pyproject.toml" for package in own_packages(name))]
    return hashlib.sha256(b"\0".join([str(ROOT).encode(), *(source.read_bytes() for source in sources)])).hexdigest()


def pip_settings() -> dict[str, str]:
    """pip's settings on this machine, environment variables first, by their names in pip's configuration files."""
    listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    found: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        scope, _, name = key.rpartition(".")
        if name in found and scope != ":env:":
            continue
        found[name] = str(ast.literal_eval(value)) if value else ""
    return found


def uv_environment() -> dict[str, str]:
    """The environment for uv: this process's own, filled up with what pip is configured to use."""
    pip = pip_settings()
    offered = {
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INDEX": pip.get("extra-index-url", ""),
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INSECURE_HOST": pip.get("trusted-host", ""),
        "UV_HTTP_TIMEOUT": pip.get("default-timeout", ""),
        "SSL_CERT_FILE": pip.get("cert", ""),
        # As pip does: the best version of all indexes. The hashes in the locks say which file it must be.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "" if sys.stderr.isatty() else "1",
    }
    # An activated virtual environment of the user's is not ours to touch.
    own = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    return {key: value for key, value in offered.items() if value} | own


def uv_program() -> str:
    """The uv to use: the one on the PATH, or one that pip puts into .venvs/uv."""
    local = VENVS / "uv" / "bin" / "uv"
    if found := shutil.which("uv"):
        return found
    if not local.exists():
        say("uv, by pip, into .venvs/uv")
        lock = ROOT / "scripts" / "uv.lock"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--target", str(VENVS / "uv")]
        run([*pip, "-r", str(lock)], dict(os.environ), "pip could not install uv: install it (docs.astral.sh/uv) and try again")
    return str(local)


def torch_entry(lock: Path) -> str:
    """The lock's entries for torch, with their hashes; empty where it has none."""
    entry, inside = "", False
    for line in lock.read_text().splitlines(keepends=True):
        inside = line.startswith("torch==") or (inside and line.startswith(" "))
        entry += line if inside else ""
    return entry


def torch_environment(uv: str, entry: str, environment: dict[str, str]) -> dict[str, str]:
    """`environment` for installing torch alone: from TORCH_INDEX, or from what is configured here, or from PyTorch's index."""
    index = environment.get("TORCH_INDEX", "")
    if not index:
        look = [uv, "pip", "compile", "--quiet", "--no-deps", "--python", sys.executable, "-"]
        if subprocess.run(look, input=entry, env=environment, capture_output=True, text=True).returncode == 0:
            return environment
        index = TORCH_INDEX
    return {name: value for name, value in environment.items() if name != "UV_INDEX"} | {"UV_DEFAULT_INDEX": index}


def run(command: list[str], environment: dict[str, str], advice: str, input: str | None = None) -> None:
    """Runs `command`; raises SetupError with its last lines and `advice` when it fails."""
    done = subprocess.run(command, env=environment, cwd=ROOT, input=input, capture_output=True, text=True)
    if done.returncode:
        raise SetupError("\n".join([*(done.stdout + done.stderr).strip().splitlines()[-20:], advice]))


def say(what: str) -> None:
    print(f"set-up: {what}", file=sys.stderr, flush=True)


def make(name: str) -> None:
    """Makes the environment `name` unless it is there, made from what it would be made from now."""
    venv, ready, stamp = VENVS / name, VENVS / name / ".ready", stamp_of(name)
    if ready.exists() and ready.read_text() == stamp:
        return
    started = time.monotonic()
    say(f"environment {name} …")
    uv, lock = uv_program(), lock_of(name)
    environment = uv_environment()
    advice = f"set-up of {name} failed: see above; the packages come from the index that pip is configured to use"
    ready.unlink(missing_ok=True)
    run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(venv)], environment, advice)
    # Torch on its own: its index is asked for nothing else, and what is there already the lock finds satisfied.
    if entry := torch_entry(lock):
        torch = torch_environment(uv, entry, environment)
        missing = "torch cannot be had from there: set TORCH_INDEX to an index of CPU builds that this machine reaches"
        install = [uv, "pip", "install", "--no-deps", "--require-hashes", "--python", str(venv), "-r", "-"]
        run(install, torch, missing, input=entry)
    run([uv, "pip", "sync", "--require-hashes", "--python", str(venv), str(lock)], environment, advice)
    if own := own_packages(name):
        editable = [word for package in own for word in ("-e", str(package))]
        run([uv, "pip", "install", "--no-deps", "--python", str(venv), *editable], environment, advice)
    ready.write_text(stamp)
    say(f"environment {name}: {time.monotonic() - started:.0f} s")


def main(names: list[str]) -> int:
    """Makes each named environment; 1 and one message where that fails."""
    if sys.version_info[:2] != (3, 11):
        print(f"set-up: this is Python {sys.version.split()[0]}; install Python 3.11 or set PYTHON to it", file=sys.stderr)
        return 1
    VENVS.mkdir(exist_ok=True)
    try:
        for name in names:
            lock_of(name)
        with (VENVS / ".lock").open("w") as exclusive:
            fcntl.flock(exclusive, fcntl.LOCK_EX)
            for name in names:
                make(name)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
