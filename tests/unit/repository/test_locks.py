from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from devtools.container_images import IMAGES

ROOT = Path(__file__).resolve().parents[3]
LOCKS = [*ROOT.glob("images/*/*.lock"), *ROOT.glob("tests/locks/*.lock"), *ROOT.glob("scripts/*.lock")]


def read_pins(lock: Path) -> dict[str, list[str]]:
    """Return the lock's entries: each pinned version, with its platform, and its hashes."""
    entries: dict[str, list[str]] = {}
    for line in lock.read_text().splitlines():
        if line.startswith(" "):
            entries[list(entries)[-1]].append(line.strip(" \\"))
        else:
            entries[line.rstrip(" \\")] = []
    return entries


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_pin_has_hashes_and_no_index_host(lock: Path) -> None:
    for pin, hashes in read_pins(lock).items():
        assert re.match(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==\S+( ; .+)?$", pin), pin
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", option) for option in hashes), pin
    assert "://" not in lock.read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_only_the_required_build_of_torch_is_locked(lock: Path) -> None:
    """The CPU build, unless the requirements name another one: then CUDA packages belong to it."""
    required = (ROOT / "images" / "trainer" / "requirements.in").read_text()
    builds = set(re.findall(r"^torch==[\w.]+(\+\w+) ; sys_platform == 'linux'", required, re.MULTILINE))
    assert len(builds) == 1, "images/trainer/requirements.in must name one build of torch for Linux, such as +cpu"
    names = [pin.partition("==")[0] for pin in read_pins(lock)]
    has_torch = "torch" in names
    if not has_torch or builds == {"+cpu"}:
        assert not [name for name in names if re.match(r"nvidia|cuda|triton", name)]
    torch = [pin.partition(" ")[0] for pin in read_pins(lock) if pin.startswith("torch==") and "'linux'" in pin]
    assert {version.partition("+")[2] for version in torch} == ({build[1:] for build in builds} if has_torch else set())


@pytest.mark.parametrize("image", IMAGES)
def test_tests_use_the_versions_of_the_image(image: str) -> None:
    tested = read_pins(ROOT / "tests" / "locks" / f"{image}.lock")
    assert {pin: tested.get(pin) for pin in read_pins(ROOT / "images" / image / "requirements.lock")} == read_pins(
        ROOT / "images" / image / "requirements.lock"
    )


def test_only_the_trainer_has_torch_and_airflow_no_pandas() -> None:
    names = {
        image: {pin.partition("==")[0] for pin in read_pins(ROOT / "images" / image / "requirements.lock")} for image in IMAGES
    }
    assert not names["airflow"] & {"pandas", "numpy", "torch"}
    assert [image for image in IMAGES if "torch" in names[image]] == ["trainer"]


def list_imports(file: Path) -> set[str]:
    """Return the modules of other packages, and of the contract, that a file imports."""
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module)
            imported.add(module if module.startswith("step_contract.") else module.partition(".")[0])
    return imported - set(sys.stdlib_module_names)


def test_the_contract_imports_only_fsspec_apart_from_its_tables() -> None:
    """Airflow's image has neither pandas nor a reader of Parquet, and `decide` does not wait for them."""
    package = ROOT / "images" / "contract" / "step_contract"
    imported = {str(file.relative_to(package)): list_imports(file) for file in package.rglob("*.py")}
    tables = imported.pop("tables.py")
    names = set().union(*imported.values())
    assert {name for name in names if not name.startswith("step_contract")} == {"fsspec"}
    assert "step_contract.tables" not in names
    assert tables == {"arro3", "numpy", "pandas", "step_contract.errors", "step_contract.schemas"}


def test_airflow_does_not_import_the_tables() -> None:
    files = [*(ROOT / "images" / "airflow").rglob("*.py"), *(ROOT / "dags").rglob("*.py")]
    assert [file for file in files if "step_contract.tables" in list_imports(file)] == []
