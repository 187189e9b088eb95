"""Installs what a lock pins, hashes checked, with uv; torch on its own, from the index that has its CPU build.

    python scripts/packages.py venv images/trainer/requirements.lock /venv         # makes a virtual environment
    python scripts/packages.py prefix images/airflow/requirements.lock ~/.local    # adds to what is installed there
    python scripts/packages.py own /program images/contract images/trainer         # our own packages, into a folder

uv is taken from the PATH, or else installed by pip into a folder beside. What pip is configured to use here (indexes,
find-links, certificate) is handed on to uv. The environments on this machine and those in the images are made by this.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent
UV = SCRIPTS.parent / ".venvs" / "uv"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
ADVICE = "the installation failed: see above; the packages come from the index that pip is configured to use"


class SetupError(Exception):
    """Set-up cannot go on; the message says what to do."""


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
    """The uv to use: the one on the PATH, or one that pip puts there."""
    local = UV / "bin" / "uv"
    if found := shutil.which("uv"):
        return found
    if not local.exists():
        say(f"uv, by pip, into {UV}")
        lock = SCRIPTS / "uv.lock"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--target", str(UV)]
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
    done = subprocess.run(command, env=environment, input=input, capture_output=True, text=True)
    if done.returncode:
        raise SetupError("\n".join([*(done.stdout + done.stderr).strip().splitlines()[-20:], advice]))


def say(what: str) -> None:
    print(f"set-up: {what}", file=sys.stderr, flush=True)


def install(lock: Path, venv: Path) -> None:
    """Makes the virtual environment `venv` hold what `lock` pins and nothing else; raises SetupError where that fails."""
    uv, environment = uv_program(), uv_environment()
    run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(venv)], environment, ADVICE)
    # Torch on its own: its index is asked for nothing else, and what is there already the lock finds satisfied.
    if entry := torch_entry(lock):
        torch = torch_environment(uv, entry, environment)
        missing = "torch cannot be had from there: set TORCH_INDEX to an index of CPU builds that this machine reaches"
        command = [uv, "pip", "install", "--no-deps", "--require-hashes", "--python", str(venv), "-r", "-"]
        run(command, torch, missing, input=entry)
    run([uv, "pip", "sync", "--require-hashes", "--python", str(venv), str(lock)], environment, ADVICE)


def install_into_prefix(lock: Path, prefix: Path) -> None:
    """Adds what `lock` pins to the packages below `prefix`; raises SetupError where that fails."""
    command = [uv_program(), "pip", "install", "--require-hashes", "--python", sys.executable, "--prefix", str(prefix)]
    run([*command, "-r", str(lock)], uv_environment(), ADVICE)


def install_own(sources: list[str], where: list[str]) -> None:
    """Installs the project's own packages, without what they depend on; raises SetupError where that fails."""
    run([uv_program(), "pip", "install", "--no-deps", *where, *sources], uv_environment(), ADVICE)


def main(what: str, *rest: str) -> int:
    """Installs what the arguments name; 1 and one message where that fails."""
    try:
        if what == "venv":
            install(Path(rest[0]), Path(rest[1]))
        elif what == "prefix":
            install_into_prefix(Path(rest[0]), Path(rest[1]))
        elif what == "own":
            install_own(list(rest[1:]), ["--python", sys.executable, "--target", rest[0]])
        else:
            raise SetupError(f"{what!r} is not known: it must be venv, prefix or own")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
