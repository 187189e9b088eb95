"""Documentation: the files, targets, settings, steps and options that a page names exist."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from devtools.commands import ROOT, run

# CHANGELOG.md also names what no longer exists.
PAGES = sorted({*ROOT.glob("*.md"), ROOT / "data" / "README.md", *ROOT.glob("docs/**/*.md")} - {ROOT / "CHANGELOG.md"})
# Made by the reader of CONTRIBUTING, "A step".
EXAMPLE = "extremes"
# Made by the targets: not in git.
GENERATED = r"docs/reference/|site/|\.run/|\.venvs/|artifacts/"
# Of other programs: nothing here uses them. `data/index/…` is in the sample's source.
FOREIGN = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "--atomic",
    "airflow_ti_failures",
    "airflow_pool_starving_tasks",
    "data/index/year_ks11/YEAR.csv",
}
PLACEHOLDER = r"[A-Z]{2,}|…|<\w+>"


def by_path(page: Path) -> str:
    return str(page.relative_to(ROOT))


pages = pytest.mark.parametrize("page", PAGES, ids=by_path)


@cache
def list_files() -> frozenset[str]:
    """Return the files of the repository, and their folders, relative to its root."""
    files = run(["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"], timeout=30).splitlines()
    return frozenset(files) | {str(folder) for file in files for folder in Path(file).parents if str(folder) != "."}


@cache
def list_words() -> frozenset[str]:
    """Return the words of all code and configuration, and those in capitals that docs/settings.md lists for them.

    Another test compares that page with the code.
    """
    suffixes = (".md", ".lock", ".csv", ".png", ".xml")
    code = [ROOT / file for file in list_files() if not file.endswith(suffixes) and (ROOT / file).is_file()]
    text = "\n".join([*(file.read_text(errors="replace") for file in code), (ROOT / "docs" / "settings.md").read_text()])
    words = set(re.findall(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*|--[a-z][a-z-]+", text))
    return frozenset(words | {word.lower() for word in words if word.isupper()})


def read_spans(page: Path) -> list[str]:
    """Return the page's code in backticks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"(?s)```.*?```", "", page.read_text()))


def read_commands(page: Path) -> list[str]:
    """Return the page's commands: code in backticks and the lines of code blocks, without comments."""
    blocks = re.findall(r"(?s)```\w*\n(.*?)```", page.read_text())
    lines = [line.strip().partition(" #")[0] for block in blocks for line in block.splitlines()]
    return [*read_spans(page), *lines]


def exists(path: str) -> bool:
    """Return whether the repository has the path; capitals, `…` and `*` stand for any name, a relative path for any folder."""
    pattern = re.sub(PLACEHOLDER, "*", path.rstrip("/"))
    return any(fnmatch.fnmatchcase(f"/{file}", f"*/{pattern}") for file in list_files())


def is_path(span: str) -> bool:
    """Return whether the span looks like a path of the repository rather than of an artifact, an object or a URL."""
    top = span.partition("/")[0]
    if not re.fullmatch(r"[\w.*…-]+(/[\w.*…<>-]+)*/?", span) or re.match(GENERATED, span):
        return False
    return ("/" in span and top in list_files()) or bool(re.search(r"\w\.(py|toml|csv|in|lock|yml)$", span))


@pages
def test_files_that_a_page_names_exist(page: Path) -> None:
    paths = [span for span in read_spans(page) if is_path(span) and span not in FOREIGN]
    assert [path for path in paths if not exists(path) and EXAMPLE not in path] == []


@pages
def test_targets_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [name for command in read_commands(page) for name in re.findall(r"(?:^|[\s;&])make ([a-z][\w-]*)", command)]
    assert [name for name in named if name not in targets] == []


def find_unknown(names: Iterable[str]) -> list[str]:
    """Return the names that occur nowhere in the code; `…` stands for any words."""
    unknown = [name for name in names if name not in list_words() | FOREIGN]
    return [name for name in unknown if "…" not in name or not fnmatch.filter(list_words(), name.replace("…", "*"))]


@pages
def test_settings_and_names_that_a_page_names_occur_in_the_code(page: Path) -> None:
    settings = [
        match[1] for span in read_spans(page) if (match := re.fullmatch(r"((?:[A-Za-z0-9…]+_)+[A-Za-z0-9…]+)(=.*)?", span))
    ]
    settings += [match[1] for span in read_spans(page) if (match := re.fullmatch(r"([a-z]+(?:_[a-z]+)+): .*", span))]
    commands = [command for command in read_commands(page) if re.search(r"\bmake |scripts/", command)]
    settings += [name for command in commands for name in re.findall(r"(?:^|\s)([A-Z][A-Z_]+)=", command)]
    assert find_unknown(settings) == []


def read_command_line(program: str) -> tuple[set[str], set[str]]:
    """Return the steps and the options in a program's command line."""
    contract = ROOT / "images" / "contract" / "step_contract"
    own = (ROOT / "images" / program / program / "cli.py").read_text()
    text = "".join([own, *((contract / name).read_text() for name in ("cli.py", "ranges.py"))])
    steps = set(re.findall(r'add_step\(\s*"([\w-]+)"', text))
    options = set(re.findall(r'"(--[a-z-]+)"', text))
    return steps, options | {f"--{name}" for name in re.findall(r'add_(?:reference_)?option\(\s*\w+,\s*"([a-z-]+)"', text)} | {
        "--help"
    }


@pages
def test_steps_and_options_of_commands_exist(page: Path) -> None:
    wrong = []
    for command in read_commands(page):
        for program, words in re.findall(r"(?:^|scripts/step )(collector|trainer) ([\w-].*)", command):
            steps, options = read_command_line(program)
            named = {word.partition("=")[0] for word in words.split() if word.startswith("--")}
            step = words.split()[0]
            if (named - options) or not (step.startswith("--") or step in (*steps, EXAMPLE)):
                wrong.append(command)
    assert wrong == []


@pages
def test_options_that_a_page_names_occur_in_the_code(page: Path) -> None:
    assert find_unknown(span for span in read_spans(page) if re.fullmatch(r"--[a-z][a-z-]+", span)) == []
