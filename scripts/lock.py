"""Compile every lock from its requirements, for all platforms, with hashes and without index URLs.

python scripts/lock.py              # keep pinned versions that satisfy the requirements
python scripts/lock.py --upgrade    # use the newest versions that the requirements allow
"""

from __future__ import annotations

import sys
from pathlib import Path

import packages
import virtualenvs
from devtools.commands import ROOT
from devtools.container_images import IMAGES


def compile_lock(lock: Path, sources: list[Path], constraint: Path | None, options: list[str]) -> None:
    """Write `lock` from the requirements `sources`; versions that the lock `constraint` pins are the same."""
    packages.print_progress(str(lock.relative_to(ROOT)))
    uv, environment = packages.find_uv(), packages.make_uv_environment()
    # An extra index may have a package for one platform only, and the lock would contain only that file. Torch's CPU build
    # is an exception, as the default index does not have it.
    environment.pop("UV_INDEX", None)
    if virtualenvs.lock_of("trainer").with_suffix(".in") in sources:
        torch = packages.make_torch_environment(uv, packages.read_torch_entry(sources[0]), environment)
        environment |= {"UV_INDEX": torch["UV_DEFAULT_INDEX"]} if torch is not environment else {}
    else:
        environment.pop("UV_FIND_LINKS", None)
    command = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--python-version", "3.11", "--output-file", str(lock), *options]
    command += [str(source) for source in sources] + (["--constraint", str(constraint)] if constraint else [])
    packages.run(command, environment, f"cannot compile {lock}: see above")


def main(options: list[str]) -> int:
    """Compile all locks; return the exit code."""
    scripts, tests = ROOT / "scripts", ROOT / "tests"
    try:
        for name in ("uv", *virtualenvs.TOOLS):
            compile_lock(scripts / f"{name}.lock", [scripts / f"{name}.in"], None, options)
        browser = tests / "e2e" / "browser" / "requirements.lock"
        compile_lock(browser, [browser.with_suffix(".in")], None, options)
        for image in IMAGES:
            source, lock = virtualenvs.lock_of(image).with_suffix(".in"), virtualenvs.lock_of(image)
            compile_lock(lock, [source], None, options)
            own = [tests / f"{image}.in"] if (tests / f"{image}.in").exists() else []
            compile_lock(virtualenvs.lock_of(f"{image}-test"), [source, tests / "requirements.in", *own], lock, options)
        collector = virtualenvs.lock_of("collector")
        sources = [collector.with_suffix(".in"), tests / "bench.in"]
        compile_lock(virtualenvs.lock_of(virtualenvs.BENCH), sources, collector, options)
    except packages.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
