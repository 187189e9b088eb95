"""A column, a feature, or the logic of a step changes in the middle of a history: copies of the programs with small patches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from step_contract.commit import verify_artifact
from step_contract.manifest import Manifest

from ...conftest import SMALL_CONFIG

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("contract", "collector", "trainer")
PRICES_URL = f"file://{ROOT}/data/krx/index/year_{{symbol}}/{{year}}.csv"
Patch = Mapping[str, tuple[tuple[str, str], ...]]

# What an engineer changes to collect another column and to forecast from it.
COLUMN_AND_FEATURE: Patch = {
    "contract/step_contract/schemas.py": (
        (
            '    file="prices.parquet",\n    version=1,',
            '    file="prices.parquet",\n    version=2,',
        ),
        (
            '        Column("market_cap", "Int64"',
            '        Column("gap", "float64", "ratio", "open over the previous close, less 1", nullable=True, since=2),\n'
            '        Column("market_cap", "Int64"',
        ),
    ),
    "collector/collector/year_file.py": (
        (
            "    check_rows(rows, location, year)\n",
            '    check_rows(rows, location, year)\n    rows["gap"] = rows["open"] / rows["close"].shift() - 1\n',
        ),
    ),
    "trainer/trainer/dataset.py": (
        (
            "FEATURES: tuple[Feature, ...] = ()\n",
            'FEATURES: tuple[Feature, ...] = (Feature("gap", ("gap",), lambda prices: prices["gap"]),)\n',
        ),
    ),
}
# The turnover becomes a number of another dtype and unit, under the same name.
UNIT: Patch = {
    "contract/step_contract/schemas.py": (
        (
            '    file="prices.parquet",\n    version=1,',
            '    file="prices.parquet",\n    version=2,\n'
            '    removed=(Column("amount", "Int64", "KRW", "the turnover", nullable=True, until=1),),',
        ),
        (
            'Column("amount", "Int64", "KRW", "the turnover", nullable=True, ge=0, le=MAX_COUNT)',
            'Column("amount", "float64", "millions of KRW", "the turnover", nullable=True, ge=0, since=2, '
            'derive=lambda prices: prices["amount"] / 10**6)',
        ),
    ),
    "collector/collector/year_file.py": (
        (
            '"Amount": PRICES["amount"]',
            '"Amount": Column("amount", "Int64", "KRW", "", nullable=True, ge=0, le=MAX_COUNT)',
        ),
        (
            "    check_rows(rows, location, year)\n",
            '    check_rows(rows, location, year)\n    rows["amount"] = rows["amount"].astype("float64") / 10**6\n',
        ),
    ),
}
# The turnover is rounded to millions of KRW from now on.
LOGIC: Patch = {
    "collector/collector/year_file.py": (
        (
            "    check_rows(rows, location, year)\n",
            '    check_rows(rows, location, year)\n    rows["amount"] = rows["amount"] // 10**6 * 10**6\n',
        ),
    ),
    "collector/collector/prices.py": (("code_version=1, schema_version=PRICES", "code_version=2, schema_version=PRICES"),),
}


@dataclass
class Programs:
    """The programs of a folder with the layout of images/, and the artifacts that they write."""

    images: Path
    folder: Path

    def run(self, program: str, *arguments: str, code: int = 0) -> tuple[str, dict[str, Any]]:
        """Run a step; return its output and its result."""
        result = self.folder / "result.json"
        result.unlink(missing_ok=True)
        (self.folder / "model.toml").write_text(SMALL_CONFIG)
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {
            "PYTHONPATH": ":".join(str(self.images / package) for package in PACKAGES),
            "ARTIFACTS": f"file://{self.folder}/artifacts",
            "PRICES_URL": PRICES_URL,
            "MODEL_CONFIG": str(self.folder / "model.toml"),
            "STEP_RESULT": str(result),
        }
        command = [str(ROOT / ".venvs" / program / "bin" / "python"), "-m", f"{program}.cli", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=self.folder)
        output = done.stdout + done.stderr
        assert done.returncode == code, output
        return output, json.loads(result.read_bytes())

    def patched(self, patch: Patch) -> Programs:
        """Return copies of the programs with the patch."""
        images = self.folder / "patched"
        for package in PACKAGES:
            shutil.copytree(self.images / package, images / package, ignore=shutil.ignore_patterns("__pycache__"))
        for path, changes in patch.items():
            text = (images / path).read_text()
            for old, new in changes:
                assert text.count(old) == 1, f"{path}: {old}"
                text = text.replace(old, new)
            (images / path).write_text(text)
        return Programs(images, self.folder)

    def manifests(self, kind: str = "*") -> dict[str, Manifest]:
        """Return all manifests by their path below the artifacts, each artifact verified."""
        root = self.folder / "artifacts"
        found = list(root.glob(f"{kind}/**/manifest.json"))
        return {str(path.relative_to(root)): verify_artifact(f"file://{path}") for path in sorted(found)}


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(ROOT / "images", tmp_path)


@pytest.mark.timeout(300)
def test_a_column_and_a_feature_are_four_files_and_no_old_artifact_is_lost(programs: Programs) -> None:
    assert len(COLUMN_AND_FEATURE) <= 4
    programs.run("collector", "fetch-prices", "--from", "2025-01-02", "--to", "2025-12-30")
    programs.run("trainer", "train", "--session", "2025-12-30")
    before = programs.manifests()
    changed = programs.patched(COLUMN_AND_FEATURE)

    new = changed.run("collector", "fetch-prices", "--from", "2025-12-29", "--to", "2026-01-15")[0]
    assert "10 sessions committed, 2 already committed; 2 of another version, such as 2025-12-29" in new
    output, result = changed.run("collector", "fetch-prices", "--session", "2025-12-30")
    assert "closed at 4214.17 (already committed; made by code version 1 with schema version 1" in output
    assert "has corrected" not in new + output and "corrected" not in result["facts"]

    trained = changed.run("trainer", "train", "--session", "2026-01-15")[1]
    files = verify_artifact(trained["manifest"])
    weights = Path(trained["manifest"].removeprefix("file://")).parent / files.file("model.safetensors").path
    assert b'\\"features\\": {\\"gap\\"' in weights.read_bytes()
    assert files.rows == len(programs.manifests("prices"))
    assert changed.run("trainer", "plot", "--session", "2026-01-15")[1]["facts"]["past_forecasts"] == 1, "the old model's"

    assert (
        "has schema version 2, this program reads 1 to 1: upgrade the program"
        in (programs.run("trainer", "train", "--session", "2026-01-15", code=65)[0])
    )
    remake = ("fetch-prices", "--from", "2025-01-02", "--to", "2026-01-15", "--remake", "the column gap")
    assert (
        f"0 sessions committed, {files.rows} already committed, {files.rows} made anew"
        in (changed.run("collector", *remake)[0])
    )
    output, retrained = changed.run("trainer", "train", "--session", "2026-01-15")
    assert "revision 2: the history changed: prices: committed" in output
    assert retrained["manifest"].endswith("/revision=2/manifest.json")
    assert before.items() <= programs.manifests().items(), "every old artifact is there and valid"


def test_a_column_of_another_unit_is_no_correction_and_is_remade(programs: Programs) -> None:
    span = ("fetch-prices", "--from", "2026-03-16", "--to", "2026-03-18")
    programs.run("collector", *span)
    before = programs.manifests()
    changed = programs.patched(UNIT)
    assert "1 sessions committed, 3 already committed" in changed.run("collector", *span[:3], "--to", "2026-03-19")[0]
    output = changed.run("collector", "fetch-prices", "--session", "2026-03-18")[0]
    assert "made by code version 1 with schema version 1" in output
    assert "has corrected" not in output and "would be others" not in output
    assert "3 made anew" in changed.run("collector", *span, "--remake", "in millions")[0]
    assert "already committed)" in changed.run("collector", "fetch-prices", "--session", "2026-03-18")[0]
    assert before.items() <= programs.manifests().items()


def test_a_change_of_logic_in_the_middle_of_a_history_is_reported_and_remade(programs: Programs) -> None:
    programs.run("collector", "fetch-prices", "--from", "2026-03-16", "--to", "2026-03-18")
    before = programs.manifests()
    changed = programs.patched(LOGIC)
    changed.run("collector", "fetch-prices", "--session", "2026-03-19")
    output, result = changed.run("collector", "fetch-prices", "--session", "2026-03-18")
    assert "made by code version 1 with schema version 1; this program has 2 and 1" in output
    assert "Its values would be others: amount " in output and "000000" in result["facts"]["summary"]
    span = ("fetch-prices", "--from", "2026-03-16", "--to", "2026-03-20")
    output = changed.run("collector", *span)[0]
    assert "1 sessions committed, 4 already committed; 3 of another version, such as 2026-03-16" in output
    assert "run collector fetch-prices --from 2026-03-16 --to 2026-03-18 --symbol KS11 --remake REASON" in output
    output = changed.run("collector", "fetch-prices", "--from", "2026-03-16", "--to", "2026-03-18", "--remake", "in millions")[
        0
    ]
    assert "3 made anew" in output
    assert "of another version" not in changed.run("collector", *span)[0]
    after = programs.manifests("prices")
    assert sorted(manifest.code_version for manifest in after.values()) == [1] * 3 + [2] * 5
    assert before.items() <= after.items()
