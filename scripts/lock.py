"""Renews every lock from its requirements: all platforms, hashes for every file, and no index host in the text.

python scripts/lock.py                     # keep what is pinned unless the requirements ask for another version
python scripts/lock.py --upgrade # the newest versions that the requirements allow
"""

from __future__ import annotations

import sys
from pathlib import Path

import environments
import packages


def compile_lock(lock: Path, sources: list[Path], constraint: Path | None, options: list[str]) -> None:
    """Writes `lock` from `sources`; with `constraint`, no version differs from that lock's."""
    packages.say(str(lock.relative_to(environments.ROOT)))
    uv, environment = packages.uv_program(), packages.uv_environment()
    # A machine's own extra indexes may hold one platform's file of a package: the lock would name that one alone.
    # Torch's CPU build is the exception, as no public default index has it.
    environment.pop("UV_INDEX", None)
    if environments.lock_of("trainer").with_suffix(".in") in sources:
        torch = packages.torch_environment(uv, packages.torch_entry(sources[0]), environment)
        environment |= {"UV_INDEX": torch["UV_DEFAULT_INDEX"]} if torch is not environment else {}
    else:
        environment.pop("UV_FIND_LINKS", None)
    command = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--python-version", "3.11", "--output-file", str(lock), *options]
    command += [str(source) for source in sources] + (["--constraint", str(constraint)] if constraint else [])
    packages.run(command, environment, f"{lock} could not be renewed: see above")


def main(options: list[str]) -> int:
    """Renews all locks; 1 and one message where that fails."""
    scripts, tests = environments.ROOT / "scripts", environments.ROOT / "tests"
    try:
        for name in ("uv", *environments.PROGRAMS):
            compile_lock(scripts / f"{name}.lock", [scripts / f"{name}.in"], None, options)
        browser = tests / "e2e" / "browser" / "requirements.lock"
        compile_lock(browser, [browser.with_suffix(".in")], None, options)
        for image in environments.IMAGES:
            source, lock = environments.lock_of(image).with_suffix(".in"), environments.lock_of(image)
            compile_lock(lock, [source], None, options)
            own = [tests / f"{image}.in"] if (tests / f"{image}.in").exists() else []
            compile_lock(environments.lock_of(f"{image}-test"), [source, tests / "requirements.in", *own], lock, options)
        collector = environments.lock_of("collector")
        sources = [collector.with_suffix(".in"), tests / "bench.in"]
        compile_lock(environments.lock_of(environments.BENCH), sources, collector, options)
    except packages.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
