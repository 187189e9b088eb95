"""Airflow's internals are used in `airflow_internals` only: imports and private names of the other modules and of the DAGs."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ROOT / "images" / "airflow"
ADAPTER = PACKAGES / "airflow_steps" / "airflow_internals"
# Airflow's public interface, as far as it is used: what a module of it documents, and what a package re-exports.
PUBLIC_MODULES = {
    "airflow.sdk",
    "airflow.sdk.configuration",
    "airflow.sdk.exceptions",
    "airflow.plugins_manager",
    "airflow.timetables.base",
    "airflow.triggers.base",
    "airflow.providers.cncf.kubernetes.operators.pod",
    "airflow.providers.slack.hooks.slack",
    "airflow.providers.standard.operators.empty",
    "kubernetes.client",
    "kubernetes.client.exceptions",
    "kubernetes.utils.quantity",
    "kubernetes_asyncio",
}
LIBRARIES = ("airflow", "kubernetes", "kubernetes_asyncio")
NAMED_TUPLE = {"_replace", "_asdict", "_fields"}


def list_modules() -> list[Path]:
    paths = [*PACKAGES.glob("airflow_*/**/*.py"), *(ROOT / "dags").glob("*.py")]
    return sorted(path for path in paths if ADAPTER not in path.parents)


def find_internals(tree: ast.Module) -> Iterator[str]:
    """Yield each import of a module that is not public, and each private name that this module does not define itself."""
    own = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            own.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for module in modules:
            if module.split(".")[0] in LIBRARIES and module not in PUBLIC_MODULES:
                yield f"line {node.lineno}: imports {module}"  # type: ignore[attr-defined]
        if isinstance(node, ast.ImportFrom):
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            yield from (f"line {node.lineno}: imports {name}" for name in private)
        name = node.attr if isinstance(node, ast.Attribute) else ""
        if name.startswith("_") and not name.endswith("__") and name not in own | NAMED_TUPLE:
            yield f"line {node.lineno}: uses {ast.unparse(node)}"  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", list_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_uses_airflows_internals_through_the_adapter(path: Path) -> None:
    found = list(find_internals(ast.parse(path.read_text())))
    assert not found, f"{path.relative_to(ROOT)}: use airflow_steps.airflow_internals, or extend it and its contract tests"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from airflow.models.dagrun import DagRun", "line 1: imports airflow.models.dagrun"),
        ("import airflow.settings", "line 1: imports airflow.settings"),
        ("def f(op):\n    from airflow.utils.state import State", "line 2: imports airflow.utils.state"),
        ("operator._cached_logger = None", "line 1: uses operator._cached_logger"),
        ("class A(B):\n    def f(self):\n        return self._timezone", "line 3: uses self._timezone"),
        ("from airflow.sdk import _internal", "line 1: imports _internal"),
    ],
)
def test_a_use_of_an_internal_is_found(code: str, expected: str) -> None:
    assert list(find_internals(ast.parse(code))) == [expected]


def list_private_names(tree: ast.ClassDef) -> set[str]:
    """Return the private names that a class defines, or sets on its objects."""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    stored = (node for node in ast.walk(tree) if isinstance(getattr(node, "ctx", None), ast.Store))
    names |= {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in stored}
    return {name for name in names if name.startswith("_") and not name.endswith("__")}


def test_no_class_hides_a_private_name_of_airflow() -> None:
    """A class of this project that is derived from one of Airflow's defines no private name that the latter has."""
    for path in list_modules():
        if path.parent == ROOT / "dags" or path.name == "__main__.py":
            continue
        name = ".".join(path.relative_to(PACKAGES).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(name)
        for tree in (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)):
            for base in getattr(module, tree.name).__mro__[1:]:
                if base.__module__.split(".")[0] in LIBRARIES:
                    hidden = list_private_names(tree) & {*vars(base), *inspect.get_annotations(base)}
                    assert not hidden, f"{name}.{tree.name} hides {sorted(hidden)} of {base.__module__}.{base.__name__}"


def test_the_page_about_upgrades_lists_every_module_of_the_adapter() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "upgrade.md").read_text(), re.MULTILINE))
    assert rows == {path.stem for path in ADAPTER.glob("*.py")} - {"__init__"}
