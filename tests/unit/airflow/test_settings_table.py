"""docs/settings.md and the schema of helm/namespace-policies name exactly the settings that the code reads."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from devtools.commands import ROOT
from devtools.container_images import IMAGES as IMAGE_NAMES

READERS = (
    "get_setting",
    "get_int",
    "get_choice",
    "get_list",
    "get_pairs",
    "get_tolerations",
    "get_variables",
    "_override_delay",
    "_override_attempts",
    "read_int",
)
IMAGES = tuple(image.upper().replace("-", "_") for image in IMAGE_NAMES)
PROGRAMS = tuple(image for image in IMAGES if image != "AIRFLOW")
# Read by the liveness probe; a setting of Airflow itself.
SET_BY_AIRFLOW = {"AIRFLOW_HOME"}
# Set for the monitor by helm/namespace-policies, in no values file.
SET_BY_CHART = {"AIRFLOW_URL", "AIRFLOW_USER", "AIRFLOW_PASSWORD", "HEARTBEAT_FILE"}
SCHEMA = json.loads((ROOT / "helm" / "namespace-policies" / "values.schema.json").read_text())["definitions"]


def is_environment(node: ast.expr) -> bool:
    return ast.unparse(node) in ("os.environ", "environment", "environ")


def get_names(argument: ast.expr) -> list[str]:
    """Return the settings that an argument names: a constant, or one for each program or image."""
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return [argument.value]
    if isinstance(argument, ast.JoinedStr) and isinstance(argument.values[-1], ast.Constant):
        first, rest = ast.unparse(argument.values[0]), str(argument.values[-1].value).lstrip("_")
        return [f"{prefix}_{rest}" for prefix in (IMAGES if "image" in first else PROGRAMS)]
    return []


def find_settings(tree: ast.Module) -> Iterator[str]:
    """Yield the settings that the module reads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.endswith((".environ.get", "environment.get")) and node.args:
                yield from get_names(node.args[0])
            elif called in READERS and node.args:
                yield from (name for argument in node.args[:2] for name in get_names(argument))
            elif called == "add_option" and len(node.args) > 1:
                yield from (name.upper().replace("-", "_") for name in get_names(node.args[1]))
        elif isinstance(node, ast.Subscript) and is_environment(node.value):
            yield from get_names(node.slice)
        elif (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Dict)
            and ast.unparse(node.targets[0]) == "BUILD_ARGUMENTS"
        ):
            yield from (name for key in node.value.keys if key for name in get_names(key))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RESULT_VARIABLE":
            yield ast.literal_eval(node.value)


def list_settings_in_code() -> set[str]:
    files = [*ROOT.glob("scripts/**/*.py"), *ROOT.glob("images/*/*/**/*.py"), *ROOT.glob("dags/*.py")]
    files.append(ROOT / "tests" / "helm" / "conftest.py")
    found = {name for file in files for name in find_settings(ast.parse(file.read_text()))}
    makefile = (ROOT / "Makefile").read_text()
    names_in_makefile = set(re.findall(r"^([A-Z]+) \?= (?=kind)", makefile, re.M))
    return {name for name in found if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)} - SET_BY_AIRFLOW | names_in_makefile


def list_settings_in_docs() -> set[str]:
    page = (ROOT / "docs" / "settings.md").read_text()
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    prose = "".join(line for line in page.splitlines(keepends=True) if not line.startswith("|"))
    return set(re.findall(r"`([A-Z][A-Z0-9_]+)`", " ".join(cells) + prose))


def test_the_docs_name_exactly_the_settings_of_the_code() -> None:
    code, docs = list_settings_in_code(), list_settings_in_docs()
    assert len(code) > 50
    assert {"missing": code - docs, "unused": docs - code} == {"missing": set(), "unused": set()}


def test_the_docs_name_all_settings_of_the_values_files() -> None:
    documented = list_settings_in_docs()
    page = (ROOT / "docs" / "settings.md").read_text()
    for file in ROOT.glob("helm/values*.yaml"):
        values = yaml.safe_load(file.read_text())
        assert {name.upper() for name in values.get("config", {}).get("market_daily", {})} <= documented
        assert [end for end in values.get("network", {}) if f"`network.{end}`" not in page] == []


def find_cluster_settings() -> dict[str, ast.Call]:
    """Return the settings that Airflow's image reads from its configuration, each with the call that reads it."""
    trees = [ast.parse(file.read_text()) for file in ROOT.glob("images/airflow/*/**/*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    reads = [call for call in calls if ast.unparse(call.func) in READERS]
    settings = {name: call for call in reads for argument in call.args[:2] for name in get_names(argument)}
    return {name: call for name, call in settings.items() if name not in SET_BY_CHART}


def find_schemas(name: str) -> list[dict[str, Any]]:
    """Return the schemas of the setting `name` in `config.market_daily`, with references resolved."""
    name, settings = name.lower(), SCHEMA["settings"]
    schemas = [settings["properties"][name]] if name in settings["properties"] else []
    schemas += [schema for pattern, schema in settings["patternProperties"].items() if re.search(pattern, name)]
    return [SCHEMA[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema for schema in schemas]


def test_the_schema_has_exactly_the_cluster_settings() -> None:
    names = set(find_cluster_settings())
    assert len(names) > 35
    assert {name: len(find_schemas(name)) for name in names} == dict.fromkeys(names, 1)
    assert {name.upper() for name in SCHEMA["settings"]["properties"]} - names == set()
    unused = [
        pattern
        for pattern in SCHEMA["settings"]["patternProperties"]
        if not any(re.search(pattern, name.lower()) for name in names)
    ]
    assert unused == []


def test_the_docs_mark_the_settings_that_are_no_cluster_settings() -> None:
    section = (ROOT / "docs" / "settings.md").read_text().split("\n## ")[1]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `") and "no cluster setting" not in line]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(find_cluster_settings())


def test_the_schema_accepts_the_values_that_the_code_accepts() -> None:
    for name, call in find_cluster_settings().items():
        [schema], reader = find_schemas(name), ast.unparse(call.func)
        if reader in ("get_int", "_override_delay", "_override_attempts"):
            assert schema["type"] == ["integer", "string"], name
        elif reader == "get_choice":
            assert {str(value).lower() for value in schema["enum"]} == set(ast.literal_eval(call.args[2])), name
    words = ast.parse((ROOT / "images" / "trainer" / "trainer" / "texts.py").read_text())
    [languages] = [node.value for node in words.body if ast.unparse(node).startswith("LANGUAGES = ")]  # type: ignore[attr-defined]
    assert [ast.literal_eval(key) for key in languages.keys] == find_schemas("PLOT_LANGUAGE")[0]["enum"]


def test_settings_that_scripts_set_are_in_the_schema() -> None:
    files = [*ROOT.glob("scripts/**/*.py"), *ROOT.glob("tests/e2e/**/*.py")]
    names = {name for file in files for name in re.findall(r"config\.market_daily\.(\w+)=", file.read_text())}
    assert len(names) > 3
    assert [name for name in names if not find_schemas(name)] == []
