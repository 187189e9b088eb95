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
def test_no_lock_contains_a_cuda_build(lock: Path) -> None:
    names = [pin.partition("==")[0] for pin in read_pins(lock)]
    assert not [name for name in names if re.match(r"nvidia|cuda|triton", name)]
    torch = [pin for pin in read_pins(lock) if pin.startswith("torch==")]
    assert all("+cpu" in pin for pin in torch if "linux" in pin)
    assert all("darwin" in pin for pin in torch if "+cpu" not in pin)


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


def test_the_contract_imports_only_the_standard_library_and_fsspec() -> None:
    imported = set()
    for file in (ROOT / "images" / "contract").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).partition(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"fsspec", "step_contract"}
