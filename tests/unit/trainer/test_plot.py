from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import cast

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from step_contract import paths
from step_contract.commit import Content, commit, open_artifact
from step_contract.manifest import Manifest
from step_contract.store import Store
from trainer.evaluation import Evaluation, IntervalScores, Score
from trainer.figure import PlotData, build_figure, load_style, render_png
from trainer.forecast_history import select_plottable
from trainer.scores import IntervalScore
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
    shown = pd.Series([days[day] for day in sessions], pd.DatetimeIndex(sessions))
    return PlotData(shown, forecast, past, True, "No improvement.")


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
@pytest.mark.parametrize(("symbol", "baselines"), [("KS11", 0), ("A" * 32, 0), ("KS11", 60)])
@pytest.mark.filterwarnings("error")
def test_no_text_is_clipped_overlaps_or_lacks_glyphs(
    language: str, level: float, symbol: str, baselines: int, caplog: pytest.LogCaptureFixture
) -> None:
    """With the longest texts: shares of 100 %, all horizons, a long symbol, and an index of any size."""
    texts = LANGUAGES[language]
    closes = list(level * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.02, 60))))
    intervals = dict.fromkeys(IntervalScores.__annotations__, dict.fromkeys(IntervalScore.__annotations__, 1.0))
    last = {**dict.fromkeys(Score.__annotations__, 1.0), "horizon": 5, "forecasts": 2331, "intervals": intervals}
    overall = [cast(Score, last)]
    horizons = [1, 2, 3, 4, 5]
    evaluation = Evaluation(folds=[], overall=overall, significant_horizons=horizons, uncalibrated_forecasts=2331)
    summary = summarize_evaluation(evaluation, 0.8, texts)
    data = replace(make_plot_data(closes, symbol), evaluation=summary, issued=baselines > 0, baselines=baselines)
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


def test_issued_forecasts_are_plotted_without_overlap_and_before_models(trained: StepResult, trainer: Run) -> None:
    """A forecast that was issued on a session takes precedence over that of a model that was trained on it."""
    for session in ("2025-12-01", "2025-12-15"):
        trainer("train", "--session", session)
    for day in (9, 10, 11, 12, 15, 16, 17):
        trainer("forecast", "--session", f"2025-12-{day:02}")
    manifest, _ = open_artifact(str(trainer(*PLOT)[2]["manifest"]))
    # Three sessions ahead each: the model of 1 December, and the forecasts issued on 9, 12 and 17 December.
    assert manifest.facts["past_forecasts"] == 4


def test_a_plot_as_of_a_time_shows_the_forecasts_that_were_issued_by_then(trained: StepResult, trainer: Run) -> None:
    issued = trainer("forecast", "--session", "2025-12-22")[2]
    time = open_artifact(str(issued["manifest"]))[0].created.isoformat()
    trainer("forecast", "--session", "2026-01-02")
    trainer("train", "--session", "2026-01-15", "--as-of", time)
    past = [
        open_artifact(str(trainer(*PLOT, *as_of)[2]["manifest"]))[0].facts["past_forecasts"]
        for as_of in ((), ("--as-of", time))
    ]
    assert past == [2, 1]


def make_forecasts(starts: list[int], days: list[date]) -> list[dict[str, object]]:
    return [make_forecast(days[start], 1000.0) for start in starts]


@pytest.mark.parametrize(
    ("starts", "selected"),
    [
        (list(range(10)), [1, 3, 5, 7]),
        ([0, 1, 2], [0, 2]),
        ([1, 8], [1, 8]),
        ([8], [8]),
        ([9], []),
        ([], []),
    ],
)
def test_the_forecasts_of_a_plot_do_not_overlap(starts: list[int], selected: list[int]) -> None:
    """Two sessions ahead each, of ten sessions; of the last, the outcome one session ahead is known."""
    days = list(on_weekdays([1000.0] * 10))
    shown = [
        days.index(date.fromisoformat(str(past["last_session"])))
        for past in select_plottable(make_forecasts(starts, days), days)
    ]
    assert shown == selected


def test_the_legend_says_how_many_forecasts_a_baseline_made() -> None:
    data = replace(make_plot_data([1000.0 + i for i in range(60)]), baselines=2)
    for language, label in (("en", "past forecasts (2 baseline)"), ("ko", "과거 예측(기준선 2건)")):
        with mpl.rc_context(load_style(language)):
            [axes] = build_figure(data, LANGUAGES[language]).axes
        legend = axes.get_legend()
        assert legend and label in [text.get_text() for text in legend.get_texts()]


def test_damaged_or_incompatible_earlier_models_are_skipped(trained: StepResult, trainer: Run, tmp_path: Path) -> None:
    for session in ("2025-12-01", "2025-12-15", "2026-01-02"):
        trainer("train", "--session", session)
    models = tmp_path / "artifacts" / "models" / "symbol=KS11"
    [damaged] = (models / "session=2025-12-01").rglob("forecast.json")
    damaged.write_text("{}")
    incompatible = set_schema_version(models / "session=2025-12-15", 99)
    code, output, result = trainer(*PLOT)
    assert (code, open_artifact(str(result["manifest"]))[0].facts["past_forecasts"]) == (0, 1)
    assert f"Skipping a past forecast: file://{damaged}" in output
    assert f"Skipping a past forecast: file://{incompatible} has schema version 99, this program reads 2 and 3" in output


def test_forecasts_of_schema_version_2_are_plotted(trained: StepResult, trainer: Run, store: Store, tmp_path: Path) -> None:
    earlier = date(2025, 12, 15)
    forecast = json.loads(open_artifact(str(trainer("train", "--session", str(earlier))[2]["manifest"]))[1]["forecast.json"])
    for point in forecast["forecast"]:
        del point["low_raw"], point["high_raw"]
    shutil.rmtree(tmp_path / "artifacts" / "models" / "symbol=KS11" / f"session={earlier}")
    content = Content({"forecast.json": json.dumps(forecast).encode()}, 1, 2, {})
    commit(store, paths.model("KS11", earlier, "old"), step="train", session=earlier, inputs={}, content=content)
    code, output, result = trainer(*PLOT)
    assert (code, open_artifact(str(result["manifest"]))[0].facts["past_forecasts"]) == (0, 1)
    assert "Skipping" not in output


def set_schema_version(folder: Path, version: int) -> Path:
    [path] = folder.rglob("manifest.json")
    manifest = Manifest.from_json(path.read_bytes(), str(path))
    path.write_bytes(replace(manifest, schema_version=version).to_json())
    return path


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (99, "this program supports 3: upgrade the program"),
        (2, "this program supports 3: run trainer train --session 2026-01-15 --symbol KS11 --remake REASON"),
    ],
)
def test_model_of_another_schema_version_exits_65_with_advice(
    version: int, advice: str, trained: StepResult, trainer: Run, tmp_path: Path
) -> None:
    set_schema_version(tmp_path / "artifacts" / "models", version)
    code, output, _ = trainer(*PLOT)
    assert (code, f"has schema version {version}, {advice}" in output) == (65, True)


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


def test_prices_of_the_model_that_are_missing_or_altered_exit_65(trained: StepResult, trainer: Run, store: Store) -> None:
    path = "prices/symbol=KS11/session=2026-01-15/manifest.json"
    data = store.read(path) or b""
    store.replace(path, replace(Manifest.from_json(data, path), reason="altered").to_json())
    code, output, _ = trainer(*PLOT)
    assert (code, f"{store.uri(path)} was altered since it was used" in output) == (65, True)
    store.remove_folder("prices/symbol=KS11/session=2026-01-15")
    code, output, _ = trainer(*PLOT)
    assert (code, f"{store.uri(path)} is missing: restore it" in output) == (65, True)


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
