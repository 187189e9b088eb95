"""docs/settings.md and the schema of helm/foundation name every setting that the code reads, and none that it does not."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import environments
import yaml
from commands import ROOT

READERS = ("get_setting", "get_int", "get_choice", "_get_pairs", "_override_delay", "_override_attempts", "number")
IMAGES = tuple(image.upper().replace("-", "_") for image in environments.IMAGES)
PROGRAMS = tuple(image for image in IMAGES if image != "AIRFLOW")
# Read by the liveness probe; a setting of Airflow itself.
SET_BY_AIRFLOW = {"AIRFLOW_HOME"}
# Set for the watcher by helm/foundation, in no values file.
SET_BY_FOUNDATION = {"AIRFLOW_URL", "AIRFLOW_USER", "AIRFLOW_PASSWORD", "ALIVE_FILE"}
SCHEMA = json.loads((ROOT / "helm" / "foundation" / "values.schema.json").read_text())["definitions"]


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
            elif called == "add_option" and len(node.args) > 1:
                yield from (name.upper().replace("-", "_") for name in names(node.args[1]))
        elif isinstance(node, ast.Subscript) and is_environment(node.value):
            yield from names(node.slice)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and ast.unparse(node.targets[0]) == "BASES":
            yield from (name for key in node.value.keys if key for name in names(key))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RESULT_VARIABLE":
            yield ast.literal_eval(node.value)


def in_code() -> set[str]:
    files = [*ROOT.glob("scripts/*.py"), *ROOT.glob("images/*/*/*.py"), *ROOT.glob("dags/*.py")]
    files.append(ROOT / "tests" / "helm" / "conftest.py")
    found = {name for file in files for name in read_in(ast.parse(file.read_text()))}
    makefile = (ROOT / "Makefile").read_text()
    names_in_makefile = set(re.findall(r"^([A-Z]+) \?= (?=kind)", makefile, re.M))
    return {name for name in found if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)} - SET_BY_AIRFLOW | names_in_makefile


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


def cluster_settings() -> dict[str, ast.Call]:
    """The settings that Airflow's image reads from its configuration, each with the call that reads it."""
    trees = [ast.parse(file.read_text()) for file in ROOT.glob("images/airflow/*/*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    reading = [call for call in calls if ast.unparse(call.func) in READERS]
    found = {name: call for call in reading for argument in call.args[:2] for name in names(argument)}
    return {name: call for name, call in found.items() if name not in SET_BY_FOUNDATION}


def in_schema(name: str) -> list[dict[str, Any]]:
    """The schemas that hold for the setting `name` in `config.market_daily`, references resolved."""
    name, settings = name.lower(), SCHEMA["settings"]
    found = [settings["properties"][name]] if name in settings["properties"] else []
    found += [schema for pattern, schema in settings["patternProperties"].items() if re.search(pattern, name)]
    return [SCHEMA[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema for schema in found]


def test_the_schema_has_every_cluster_setting_and_no_other() -> None:
    read = set(cluster_settings())
    assert len(read) > 35
    assert {name: len(in_schema(name)) for name in read} == dict.fromkeys(read, 1)
    assert {name.upper() for name in SCHEMA["settings"]["properties"]} - read == set()
    unused = [
        pattern
        for pattern in SCHEMA["settings"]["patternProperties"]
        if not any(re.search(pattern, name.lower()) for name in read)
    ]
    assert unused == []


def test_the_table_says_which_are_cluster_settings() -> None:
    section = (ROOT / "docs" / "settings.md").read_text().split("\n## ")[1]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `") and "no cluster setting" not in line]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(cluster_settings())


def test_the_schema_takes_the_values_that_the_code_takes() -> None:
    for name, call in cluster_settings().items():
        [schema], reader = in_schema(name), ast.unparse(call.func)
        if reader in ("get_int", "_override_delay", "_override_attempts"):
            assert schema["type"] == ["integer", "string"], name
        elif reader == "get_choice":
            assert {str(value).lower() for value in schema["enum"]} == set(ast.literal_eval(call.args[2])), name
    words = ast.parse((ROOT / "images" / "trainer" / "trainer" / "words.py").read_text())
    [languages] = [node.value for node in words.body if ast.unparse(node).startswith("LANGUAGES = ")]  # type: ignore[attr-defined]
    assert [ast.literal_eval(key) for key in languages.keys] == in_schema("PLOT_LANGUAGE")[0]["enum"]


def test_settings_that_scripts_set_are_in_the_schema() -> None:
    files = [*ROOT.glob("scripts/*.py"), *ROOT.glob("tests/e2e/**/*.py")]
    given = {name for file in files for name in re.findall(r"config\.market_daily\.(\w+)=", file.read_text())}
    assert len(given) > 3
    assert [name for name in given if not in_schema(name)] == []
