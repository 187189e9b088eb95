from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from step_contract.commit import open_artifact
from step_contract.store import Store
from trainer.figure import draw

from .conftest import Run, put, weekdays

PLOT = ("plot", "--session", "2026-01-15")


@pytest.fixture
def trained(store: Store, trainer: Run) -> dict[str, object]:
    for session, close in weekdays([1000.0 * np.exp(0.01 * np.sin(i)) for i in range(150)]).items():
        put(store, session, close)
    return trainer("train", "--session", "2026-01-15")[2]


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_the_plot_is_one_picture_of_a_phones_width(trained: dict[str, object], trainer: Run) -> None:
    code, _, result = trainer(*PLOT)
    _, files = open_artifact(str(result["manifest"]))
    assert (code, list(files)) == (0, ["forecast.png"])
    assert size(files["forecast.png"]) == (1080, 1215)


def test_the_same_forecast_gives_the_same_bytes_and_another_gives_others() -> None:
    days = weekdays([1000.0 + i for i in range(60)])
    point = {name: {"points": value, "log_return": 0.0} for name, value in (("low", 990), ("middle", 1060), ("high", 1100))}
    forecast = {
        "symbol": "KS11",
        "session": "2026-01-15",
        "last_session": "2026-01-15",
        "last_close": 1059.0,
        "model": "tcn",
        "interval": 0.8,
        "in_words": "It does not beat that reliably.",
        "forecast": [point | {"horizon": horizon} for horizon in (1, 2)],
    }
    one = draw(list(days), np.array(list(days.values())), forecast)
    assert draw(list(days), np.array(list(days.values())), forecast) == one
    assert draw(list(days), np.array(list(days.values())), forecast | {"in_words": "Better."}) != one


def test_a_rerun_returns_the_plot(trained: dict[str, object], trainer: Run) -> None:
    first = trainer(*PLOT)[2]
    code, shown, second = trainer(*PLOT)
    assert (code, second["manifest"], "committed before" in shown) == (0, first["manifest"], True)


def test_without_a_model_it_is_65_and_says_how_to_train_one(trainer: Run) -> None:
    code, shown, _ = trainer(*PLOT, "--symbol", "KQ11")
    assert code == 65
    assert "trainer train --session 2026-01-15 --symbol KQ11" in shown


def test_a_damaged_model_is_65_and_its_object_is_named(trained: dict[str, object], trainer: Run, tmp_path: Path) -> None:
    [file] = (tmp_path / "artifacts" / "models").rglob("forecast.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"last_close": 1.0}))
    code, shown, _ = trainer(*PLOT)
    assert (code, str(file) in shown) == (65, True)


def test_a_model_that_was_trained_on_other_prices_is_65_and_says_to_train_again(
    trained: dict[str, object], trainer: Run, store: Store
) -> None:
    store.remove_folder("prices/symbol=KS11/session=2026-01-15")
    code, shown, _ = trainer(*PLOT)
    assert code == 65
    assert "was trained up to 2026-01-15 at" in shown and "the prices now end with 2026-01-14" in shown
    assert "trainer train --session 2026-01-15" in shown


def test_later_sessions_change_no_byte_of_the_plot(
    trained: dict[str, object], trainer: Run, store: Store, tmp_path: Path
) -> None:
    before = open_artifact(str(trainer(*PLOT)[2]["manifest"]))[1]
    put(store, date(2026, 1, 16), 2000.0)
    (tmp_path / "artifacts" / "plots").rename(tmp_path / "elsewhere")
    assert open_artifact(str(trainer(*PLOT)[2]["manifest"]))[1] == before


@pytest.mark.parametrize(
    ("arguments", "absent"), [(["plot", "--session", "2026-01-15", "--artifacts", "/nowhere"], "torch"), (["--help"], "numpy")]
)
def test_a_program_loads_only_what_its_step_needs(arguments: list[str], absent: str) -> None:
    code = f"""
import sys
sys.argv[1:] = {arguments!r}
from trainer.cli import main
try:
    main()
except SystemExit:
    pass
assert {absent!r} not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
