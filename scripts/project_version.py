"""The project's version: VERSION holds it, and every package and chart of the repository repeats it.

python scripts/project_version.py          # print it; exit code 1 if a file differs
python scripts/project_version.py 1.1.0    # write it to VERSION, every package and every chart
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from devtools.commands import ROOT

PACKAGE_VERSION = re.compile(r'^version = "([^"]*)"', re.MULTILINE)
PATTERNS = {
    "images/*/pyproject.toml": PACKAGE_VERSION,
    "dev/*/pyproject.toml": PACKAGE_VERSION,
    "helm/*/Chart.yaml": re.compile(r"^version: *(\S*)", re.MULTILINE),
}
SEMANTIC_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


def read_version(root: Path = ROOT) -> str:
    """Return the version that VERSION holds."""
    return (root / "VERSION").read_text().strip()


def versioned_files(root: Path = ROOT) -> dict[Path, re.Pattern[str]]:
    """Return every file that repeats the version, with the pattern that finds it there."""
    return {file: pattern for glob, pattern in PATTERNS.items() for file in sorted(root.glob(glob))}


def find_differences(root: Path = ROOT) -> list[str]:
    """Return one message for each file whose version is missing or differs from VERSION."""
    expected, messages = read_version(root), []
    for file, pattern in versioned_files(root).items():
        match = pattern.search(file.read_text())
        if not match or match[1] != expected:
            stated = f"states version {match[1]}" if match else "states no version"
            messages.append(
                f"{file.relative_to(root)} {stated}, VERSION holds {expected}: "
                f"to set one version everywhere, run python scripts/project_version.py {expected}"
            )
    return messages


def write_version(version: str, root: Path = ROOT) -> list[Path]:
    """Write `version` to VERSION and to every file that repeats it; return the files that changed.

    Raises:
        ValueError: `version` is not MAJOR.MINOR.PATCH, or a file has no line for it.
    """
    if not SEMANTIC_VERSION.fullmatch(version):
        raise ValueError(f"invalid version {version!r}: it must be MAJOR.MINOR.PATCH, for example 1.2.0")
    texts = {root / "VERSION": f"{version}\n"}
    for file, pattern in versioned_files(root).items():
        text = file.read_text()
        match = pattern.search(text)
        if not match:
            raise ValueError(f"{file.relative_to(root)} has no line that matches {pattern.pattern}: add one")
        texts[file] = text[: match.start(1)] + version + text[match.end(1) :]
    changed = [file for file, text in texts.items() if file.read_text() != text]
    for file in changed:
        file.write_text(texts[file])
    return changed


def main(arguments: list[str]) -> int:
    """Print the version, or set it; return the exit code."""
    try:
        if arguments:
            [version] = arguments
            changed = write_version(version)
            print("\n".join(str(file.relative_to(ROOT)) for file in changed) or f"the version is {version} already")
            return 0
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(read_version())
    differences = find_differences()
    print("".join(f"{message}\n" for message in differences), end="", file=sys.stderr)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
