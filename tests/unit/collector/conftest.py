from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from collector.cli import build_parser

from ...conftest import Run as Run

ROOT = Path(__file__).resolve().parents[3]
REAL = ROOT / "data" / "krx" / "index" / "year_ks11"
HEADER = "Date,Close,UpDown,Comp,Change,Open,High,Low,Volume,Amount,MarCap\n"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A copy of the source's real files of 2025 and 2026, which the test may change."""
    folder = tmp_path / "mirror" / "year_ks11"
    folder.mkdir(parents=True)
    for year in (2025, 2026):
        (folder / f"{year}.csv").write_bytes((REAL / f"{year}.csv").read_bytes())
    return folder


@pytest.fixture
def collector(run_program: Callable[..., Run], mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs a step of the collector on the mirror."""
    monkeypatch.setenv("PRICES_URL", f"file://{mirror.parent}/year_{{symbol}}/{{year}}.csv")
    return run_program(build_parser)
