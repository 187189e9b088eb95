"""docs/settings.md names every setting that the code reads, and none that it does not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import yaml
from commands import ROOT

READERS = ("setting", "count", "_one_of", "_pairs", "_as_set", "number")
IMAGES = ("AIRFLOW", "COLLECTOR", "TRAINER")
PROGRAMS = ("COLLECTOR", "TRAINER")


def is_environment(node: ast.expr) -> bool:
    return ast.unparse(node) in ("os.environ", "environment", "environ")


def names(argument: ast.expr) -> list[str]:
    """The settings that an argument names: a constant, or one a program or image."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return [argument.value]
    if isinstance(argument, ast.JoinedStr) and isinstance(argument.values[-1], ast.Constant):
        first, rest = ast.unparse(argument.values[0]), str(argument.values[-1].value).lstrip("_")
        return [f"{own}_{rest}" for own in (IMAGES if "image" in first else PROGRAMS)]
    return []


def read_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.endswith((".environ.get", "environment.get")) and node.args:
                yield from names(node.args[0])
            elif called in READERS and node.args:
                yield from (name for one in node.args[:2] for name in names(one))
            elif called == "option" and len(node.args) > 1:
                yield from (name.upper().replace("-", "_") for name in names(node.args[1]))
        elif isinstance(node, ast.Subscript) and is_environment(node.value):
            yield from names(node.slice)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BASES":
            yield from ast.literal_eval(node.value)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VARIABLE":
            yield ast.literal_eval(node.value)


def in_code() -> set[str]:
    files = [*ROOT.glob("scripts/*.py"), *ROOT.glob("images/*/*/*.py"), *ROOT.glob("dags/*.py")]
    found = {name for file in files for name in read_in(ast.parse(file.read_text()))}
    makefile = (ROOT / "Makefile").read_text()
    return {name for name in found if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)} | set(
        re.findall(r"^([A-Z]+) \?= (?=kind)", makefile, re.M)
    )


def in_table() -> set[str]:
    page = (ROOT / "docs" / "settings.md").read_text()
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    prose = "".join(line for line in page.splitlines(keepends=True) if not line.startswith("|"))
    named = re.findall(r"`([A-Z][A-Z0-9_]+)`", " ".join(cells) + prose)
    return set(named)


def test_the_table_of_settings_has_every_one_and_no_other() -> None:
    assert len(in_code()) > 50
    assert {"missing": in_code() - in_table(), "gone": in_table() - in_code()} == {"missing": set(), "gone": set()}


def test_what_the_values_set_is_in_the_table() -> None:
    told = in_table()
    page = (ROOT / "docs" / "settings.md").read_text()
    for file in ROOT.glob("helm/values*.yaml"):
        values = yaml.safe_load(file.read_text())
        assert {name.upper() for name in values.get("config", {}).get("market_daily", {})} <= told
        assert [end for end in values.get("network", {}) if f"`network.{end}`" not in page] == []
