from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import cast

import matplotlib as mpl
import numpy as np
import pytest
from step_contract.commit import open_artifact
from step_contract.manifest import Manifest
from step_contract.store import Store
from trainer.evaluation import Evaluation, Score
from trainer.figure import PlotData, build_figure, load_style, render_png
from trainer.texts import LANGUAGES, summarize_evaluation

from .conftest import Run, StepResult, commit_price, on_weekdays

PLOT = ("plot", "--session", "2026-01-15")


@pytest.fixture
def trained(store: Store, trainer: Run) -> StepResult:
    for session, close in on_weekdays([1000.0 * np.exp(0.01 * np.sin(i)) for i in range(150)]).items():
        commit_price(store, session, close)
    return trainer("train", "--session", "2026-01-15")[2]


def image_size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_plot_is_one_png_1080_pixels_wide(trained: StepResult, trainer: Run) -> None:
    code, _, result = trainer(*PLOT)
    _, files = open_artifact(str(result["manifest"]))
    assert (code, list(files)) == (0, ["forecast.png"])
    assert image_size(files["forecast.png"]) == (1080, 1296)


def make_forecast(session: date, close: float, change: float = 0.01, symbol: str = "KS11") -> dict[str, object]:
    changes = (("low", change - 0.05), ("middle", change), ("high", change + 0.05))
    values = {name: {"points": close * (1 + value), "log_return": 0.0} for name, value in changes}
    header = {"symbol": symbol, "session": "2026-01-15", "model": "tcn", "interval": 0.8}
    points = [values | {"horizon": horizon} for horizon in (1, 2)]
    return header | {"last_session": session.isoformat(), "last_close": close, "forecast": points}


def make_plot_data(closes: list[float], symbol: str = "KS11") -> PlotData:
    """Return the data of a plot of the last 60 of `closes` with every kind of text."""
    days = on_weekdays(closes)
    sessions = list(days)[-60:]
    past = [make_forecast(day, days[day]) for day in sessions[-20:-2:3]]
    forecast = make_forecast(sessions[-1], days[sessions[-1]], symbol=symbol)
    return PlotData(sessions, np.array([days[day] for day in sessions]), forecast, past, True, "No improvement.")


@pytest.mark.slow
def test_png_is_reproducible_and_depends_on_its_content() -> None:
    data = make_plot_data([1000.0 + i for i in range(60)])
    png = render_png(data, "en")
    assert render_png(data, "en") == png
    others = [
        render_png(replace(data, evaluation="Improvement."), "en"),
        render_png(data, "ko"),
        render_png(replace(data, past=[]), "en"),
    ]
    assert len({png, *others}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("level", [0.8, 100.0, 4800.0, 12_345_678.0])
@pytest.mark.parametrize("symbol", ["KS11", "A" * 32])
@pytest.mark.filterwarnings("error")
def test_no_text_is_clipped_overlaps_or_lacks_glyphs(
    language: str, level: float, symbol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the longest texts: shares of 100 %, all horizons, a long symbol, and an index of any size."""
    texts = LANGUAGES[language]
    closes = list(level * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.02, 60))))
    last: dict[str, float] = dict.fromkeys(Score.__annotations__, 1.0) | {"horizon": 5, "forecasts": 2331}
    evaluation = Evaluation(folds=[], overall=[cast(Score, last)], significant_horizons=[1, 2, 3, 4, 5])
    summary = summarize_evaluation(evaluation, 0.8, texts)
    data = replace(make_plot_data(closes, symbol), evaluation=summary, issued=False)
    render_png(data, language)
    with mpl.rc_context(load_style(language)):
        figure = build_figure(data, texts)
        figure.draw_without_rendering()
        [axes] = figure.axes
        legend = axes.get_legend()
        assert legend is not None
        frame = figure.bbox
        ticks = [label for label in [*axes.get_xticklabels(), *axes.get_yticklabels()] if label.get_text()]
        extents = [text.get_window_extent() for text in [*figure.texts, *ticks]]
        for extent in [*extents, legend.get_window_extent(), axes.get_window_extent()]:
            assert frame.x0 <= extent.x0 < extent.x1 <= frame.x1 and frame.y0 <= extent.y0 < extent.y1 <= frame.y1
        assert legend.get_window_extent().x1 <= axes.get_window_extent().x1
        tight = axes.get_tightbbox()
        assert tight is not None
        boxes = [*(text.get_window_extent() for text in figure.texts), tight]
        assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert len(set(labels)) == len(labels)
    assert not caplog.records


def test_past_forecasts_are_plotted_and_counted(trained: StepResult, trainer: Run) -> None:
    """Without earlier models these are the validation forecasts, later the issued ones."""
    first = open_artifact(str(trainer(*PLOT)[2]["manifest"]))[0]
    validation = json.loads(open_artifact(str(trained["manifest"]))[1]["forecast.json"])["out_of_sample"]
    assert first.facts["past_forecasts"] == len(validation) == 13
    assert validation[-1]["last_session"] == "2026-01-12", "three sessions before the last: its last outcome is just known"
    trainer("train", "--session", "2025-12-15")
    trainer("train", "--session", "2026-01-01")
    second = open_artifact(str(trainer(*PLOT)[2]["manifest"]))[0]
    assert second.facts["past_forecasts"] == 2
    assert second.files != first.files


def test_damaged_or_incompatible_earlier_models_are_skipped(trained: StepResult, trainer: Run, tmp_path: Path) -> None:
    for session in ("2025-12-01", "2025-12-15", "2026-01-02"):
        trainer("train", "--session", session)
    models = tmp_path / "artifacts" / "models" / "symbol=KS11"
    [damaged] = (models / "session=2025-12-01").rglob("forecast.json")
    damaged.write_text("{}")
    set_other_schema_version(models / "session=2025-12-15")
    code, output, result = trainer(*PLOT)
    assert (code, open_artifact(str(result["manifest"]))[0].facts["past_forecasts"]) == (0, 1)
    assert f"Skipping a past forecast: file://{damaged}" in output


def set_other_schema_version(folder: Path) -> None:
    [path] = folder.rglob("manifest.json")
    manifest = Manifest.from_json(path.read_bytes(), str(path))
    path.write_bytes(replace(manifest, schema_version=99).to_json())


def test_model_of_another_schema_version_exits_65_with_advice(trained: StepResult, trainer: Run, tmp_path: Path) -> None:
    set_other_schema_version(tmp_path / "artifacts" / "models")
    code, output, _ = trainer(*PLOT)
    assert code == 65
    assert (
        "has schema version 99, this program supports 2: remove its folder and run trainer train --session 2026-01-15" in output
    )


def test_unknown_language_exits_78(trained: StepResult, trainer: Run) -> None:
    code, output, _ = trainer(*PLOT, "--plot-language", "fr")
    assert (code, "invalid language 'fr': must be one of en, ko" in output) == (78, True)
    korean = open_artifact(str(trainer(*PLOT, "--plot-language", "ko")[2]["manifest"]))[0]
    assert korean.files != open_artifact(str(trainer(*PLOT)[2]["manifest"]))[0].files


def test_rerun_returns_the_committed_plot(trained: StepResult, trainer: Run) -> None:
    first = trainer(*PLOT)[2]
    code, output, second = trainer(*PLOT)
    assert (code, second["manifest"], "already committed" in output) == (0, first["manifest"], True)


def test_missing_model_exits_65_with_the_command_to_train_it(trainer: Run) -> None:
    code, output, _ = trainer(*PLOT, "--symbol", "KQ11")
    assert code == 65
    assert "trainer train --session 2026-01-15 --symbol KQ11" in output


def test_damaged_model_exits_65_naming_its_object(trained: StepResult, trainer: Run, tmp_path: Path) -> None:
    [file] = (tmp_path / "artifacts" / "models").rglob("forecast.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"last_close": 1.0}))
    code, output, _ = trainer(*PLOT)
    assert (code, str(file) in output) == (65, True)


def test_model_trained_on_other_prices_exits_65_with_advice(trained: StepResult, trainer: Run, store: Store) -> None:
    store.remove_folder("prices/symbol=KS11/session=2026-01-15")
    code, output, _ = trainer(*PLOT)
    assert code == 65
    assert "was trained up to 2026-01-15 at" in output and "the prices now end with 2026-01-14" in output
    assert "trainer train --session 2026-01-15" in output


def test_later_sessions_do_not_change_the_plot(trained: StepResult, trainer: Run, store: Store, tmp_path: Path) -> None:
    before = open_artifact(str(trainer(*PLOT)[2]["manifest"]))[1]
    commit_price(store, date(2026, 1, 16), 2000.0)
    (tmp_path / "artifacts" / "plots").rename(tmp_path / "elsewhere")
    assert open_artifact(str(trainer(*PLOT)[2]["manifest"]))[1] == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "absent"), [(["plot", "--session", "2026-01-15", "--artifacts", "/nowhere"], "torch"), (["--help"], "numpy")]
)
def test_program_imports_only_what_its_step_needs(arguments: list[str], absent: str) -> None:
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
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
