from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from collector.cli import make_parser
from step_contract.program import run

ROOT = Path(__file__).resolve().parents[3]
REAL = ROOT / "data" / "krx" / "index" / "year_ks11"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A copy of the source's real files of 2025 and 2026, to be changed by the test."""
    folder = tmp_path / "mirror" / "year_ks11"
    folder.mkdir(parents=True)
    for year in (2025, 2026):
        (folder / f"{year}.csv").write_bytes((REAL / f"{year}.csv").read_bytes())
    return folder


Run = Callable[..., tuple[int, str, dict[str, object]]]


@pytest.fixture
def collector(
    tmp_path: Path,
    mirror: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Run:
    """Runs the program on the mirror: its exit code, what it printed, and the result that it handed over."""
    for name in ("SESSION", "SYMBOL", "FEEDS", "OVERRIDES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    monkeypatch.setenv("STEP_RESULT", str(tmp_path / "result.json"))
    monkeypatch.setenv("PRICES_URL", f"file://{mirror.parent}/year_{{symbol}}/{{year}}.csv")
    caplog.set_level("INFO")

    def program(*arguments: str) -> tuple[int, str, dict[str, object]]:
        (tmp_path / "result.json").unlink(missing_ok=True)
        caplog.clear()
        code = run(make_parser, arguments)
        printed = capsys.readouterr()
        return code, printed.out + printed.err + caplog.text, json.loads((tmp_path / "result.json").read_bytes())

    return program
