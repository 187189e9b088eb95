"""Install the packages that a lock pins, with uv; torch separately, from the index that has the build in the lock.

    python scripts/packages.py venv images/trainer/requirements.lock /venv         # into a new virtual environment
    python scripts/packages.py prefix images/airflow/requirements.lock ~/.local    # into a prefix, beside existing packages
    python scripts/packages.py own /program images/contract images/trainer         # the project's packages, into a folder

Hashes are verified. uv is taken from the PATH, or installed by pip, and uses pip's configuration: indexes, find-links,
certificate. The images' builds copy only this file, so it imports only the standard library.
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
ADVICE = "installation failed, see above; packages are downloaded from the index that pip is configured to use"


class SetupError(Exception):
    """The installation failed; the message says what to do."""


def read_pip_settings() -> dict[str, str]:
    """Return pip's settings by name. Environment variables take precedence over configuration files."""
    listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    settings: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        scope, _, name = key.rpartition(".")
        if name in settings and scope != ":env:":
            continue
        settings[name] = str(ast.literal_eval(value)) if value else ""
    return settings


def make_uv_environment() -> dict[str, str]:
    """Return the environment variables for uv: those of this process, which take precedence, and pip's settings."""
    pip = read_pip_settings()
    settings = {
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INDEX": pip.get("extra-index-url", ""),
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INSECURE_HOST": pip.get("trusted-host", ""),
        "UV_HTTP_TIMEOUT": pip.get("default-timeout", ""),
        "SSL_CERT_FILE": pip.get("cert", ""),
        # As pip: the best version of all indexes. The locks' hashes prevent another file.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "" if sys.stderr.isatty() else "1",
    }
    # uv must not install into a virtual environment that the user has activated.
    own = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    return {key: value for key, value in settings.items() if value} | own


def find_uv() -> str:
    """Return the path of uv: the one on the PATH, or one that pip installs."""
    local = UV / "bin" / "uv"
    if path := shutil.which("uv"):
        return path
    if not local.exists():
        print_progress(f"installing uv into {UV} with pip")
        lock = SCRIPTS / "uv.lock"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--target", str(UV)]
        run([*pip, "-r", str(lock)], dict(os.environ), "pip cannot install uv: install it yourself (docs.astral.sh/uv)")
    return str(local)


def read_torch_entry(lock: Path) -> str:
    """Return the lock's entries for torch, with their hashes; empty if it has none."""
    entry, inside = "", False
    for line in lock.read_text().splitlines(keepends=True):
        inside = line.startswith("torch==") or (inside and line.startswith(" "))
        entry += line if inside else ""
    return entry


def make_torch_environment(uv: str, entry: str, environment: dict[str, str]) -> dict[str, str]:
    """Return `environment` with the index for torch: TORCH_INDEX, the configured ones if they have it, or PyTorch's own."""
    index = environment.get("TORCH_INDEX", "")
    if not index:
        query = [uv, "pip", "compile", "--quiet", "--no-deps", "--python", sys.executable, "-"]
        if subprocess.run(query, input=entry, env=environment, capture_output=True, text=True).returncode == 0:
            return environment
        index = TORCH_INDEX
    return {name: value for name, value in environment.items() if name != "UV_INDEX"} | {"UV_DEFAULT_INDEX": index}


def run(command: list[str], environment: dict[str, str], advice: str, input: str | None = None) -> None:
    """Run `command`. Raises SetupError with the last lines of its output and `advice` if it fails."""
    completed = subprocess.run(command, env=environment, input=input, capture_output=True, text=True)
    if completed.returncode:
        raise SetupError("\n".join([*(completed.stdout + completed.stderr).strip().splitlines()[-20:], advice]))


def print_progress(message: str) -> None:
    """Print the message on standard error."""
    print(f"setup: {message}", file=sys.stderr, flush=True)


def install_lock(lock: Path, venv: Path) -> None:
    """Create the virtual environment `venv` with exactly the packages that `lock` pins. Raises SetupError on failure."""
    uv, environment = find_uv(), make_uv_environment()
    run([uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(venv)], environment, ADVICE)
    # Torch is installed first, as its index must not serve other packages; uv pip sync then finds it installed.
    if entry := read_torch_entry(lock):
        torch = make_torch_environment(uv, entry, environment)
        advice = "cannot install torch: set TORCH_INDEX to an index of the build in the lock that this machine can reach"
        command = [uv, "pip", "install", "--no-deps", "--require-hashes", "--python", str(venv), "-r", "-"]
        run(command, torch, advice, input=entry)
    run([uv, "pip", "sync", "--require-hashes", "--python", str(venv), str(lock)], environment, ADVICE)


def install_into_prefix(lock: Path, prefix: Path) -> None:
    """Install the packages that `lock` pins below `prefix`, beside existing ones. Raises SetupError on failure."""
    command = [find_uv(), "pip", "install", "--require-hashes", "--python", sys.executable, "--prefix", str(prefix)]
    run([*command, "-r", str(lock)], make_uv_environment(), ADVICE)


def install_own(sources: list[str], target: list[str]) -> None:
    """Install the project's packages without dependencies; `target` are uv's options. Raises SetupError on failure."""
    run([find_uv(), "pip", "install", "--no-deps", *target, *sources], make_uv_environment(), ADVICE)


def main(command: str, *rest: str) -> int:
    """Run the command that the arguments name; return the exit code."""
    try:
        if command == "venv":
            install_lock(Path(rest[0]), Path(rest[1]))
        elif command == "prefix":
            install_into_prefix(Path(rest[0]), Path(rest[1]))
        elif command == "own":
            install_own(list(rest[1:]), ["--python", sys.executable, "--target", rest[0]])
        else:
            raise SetupError(f"invalid command {command!r}; must be one of venv, prefix, own")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
