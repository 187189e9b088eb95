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
from trainer.figure import PlotData, build_figure, render_png, style
from trainer.texts import LANGUAGES, in_words

from .conftest import Run, StepResult, put, weekdays

PLOT = ("plot", "--session", "2026-01-15")


@pytest.fixture
def trained(store: Store, trainer: Run) -> StepResult:
    for session, close in weekdays([1000.0 * np.exp(0.01 * np.sin(i)) for i in range(150)]).items():
        put(store, session, close)
    return trainer("train", "--session", "2026-01-15")[2]


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_the_plot_is_one_picture_of_a_phones_width(trained: StepResult, trainer: Run) -> None:
    code, _, result = trainer(*PLOT)
    _, files = open_artifact(str(result["manifest"]))
    assert (code, list(files)) == (0, ["forecast.png"])
    assert size(files["forecast.png"]) == (1080, 1296)


def forecast_of(session: date, close: float, change: float = 0.01, symbol: str = "KS11") -> dict[str, object]:
    names = (("low", change - 0.05), ("middle", change), ("high", change + 0.05))
    point = {name: {"points": close * (1 + by), "log_return": 0.0} for name, by in names}
    about = {"symbol": symbol, "session": "2026-01-15", "model": "tcn", "interval": 0.8}
    points = [point | {"horizon": horizon} for horizon in (1, 2)]
    return about | {"last_session": session.isoformat(), "last_close": close, "forecast": points}


def picture(closes: list[float], symbol: str = "KS11") -> PlotData:
    """A picture of the last 60 of `closes` with every kind of text in it."""
    days = weekdays(closes)
    sessions = list(days)[-60:]
    past = [forecast_of(day, days[day]) for day in sessions[-20:-2:3]]
    forecast = forecast_of(sessions[-1], days[sessions[-1]], symbol=symbol)
    return PlotData(sessions, np.array([days[day] for day in sessions]), forecast, past, True, "It is not better.")


@pytest.mark.slow
def test_the_same_forecast_gives_the_same_bytes_and_another_gives_others() -> None:
    one = picture([1000.0 + i for i in range(60)])
    drawn = render_png(one, "en")
    assert render_png(one, "en") == drawn
    assert (
        len(
            {
                drawn,
                render_png(replace(one, in_words="It is better."), "en"),
                render_png(one, "ko"),
                render_png(replace(one, past=[]), "en"),
            }
        )
        == 4
    )


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("level", [0.8, 100.0, 4800.0, 12_345_678.0])
@pytest.mark.parametrize("symbol", ["KS11", "A" * 32])
@pytest.mark.filterwarnings("error")
def test_no_text_is_clipped_lies_on_other_text_or_lacks_a_letter(
    language: str, level: float, symbol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The longest texts there can be: figures of 100 %, all horizons, a long symbol, and an index of any size."""
    words = LANGUAGES[language]
    closes = list(level * np.exp(np.cumsum(np.random.default_rng(0).normal(0, 0.02, 60))))
    last: dict[str, float] = dict.fromkeys(Score.__annotations__, 1.0) | {"horizon": 5, "forecasts": 2331}
    evaluation = Evaluation(folds=[], overall=[cast(Score, last)], significant_horizons=[1, 2, 3, 4, 5])
    one = replace(picture(closes, symbol), in_words=in_words(evaluation, 0.8, words), issued=False)
    render_png(one, language)
    with mpl.rc_context(style(language)):
        figure = build_figure(one, words)
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


def test_past_forecasts_are_drawn_beside_what_came_and_counted(trained: StepResult, trainer: Run) -> None:
    """Before any other model there are those of the validation; later those that were issued."""
    first = open_artifact(str(trainer(*PLOT)[2]["manifest"]))[0]
    validation = json.loads(open_artifact(str(trained["manifest"]))[1]["forecast.json"])["out_of_sample"]
    assert first.facts["past_forecasts"] == len(validation) == 13
    assert validation[-1]["last_session"] == "2026-01-12", "three sessions before the last: its last horizon has just come"
    trainer("train", "--session", "2025-12-15")
    trainer("train", "--session", "2026-01-01")
    second = open_artifact(str(trainer(*PLOT)[2]["manifest"]))[0]
    assert second.facts["past_forecasts"] == 2
    assert second.files != first.files


def test_an_earlier_model_that_is_damaged_or_of_another_schema_is_left_out_and_told(
    trained: StepResult, trainer: Run, tmp_path: Path
) -> None:
    for session in ("2025-12-01", "2025-12-15", "2026-01-02"):
        trainer("train", "--session", session)
    models = tmp_path / "artifacts" / "models" / "symbol=KS11"
    [damaged] = (models / "session=2025-12-01").rglob("forecast.json")
    damaged.write_text("{}")
    of_another_schema(models / "session=2025-12-15")
    code, shown, result = trainer(*PLOT)
    assert (code, open_artifact(str(result["manifest"]))[0].facts["past_forecasts"]) == (0, 1)
    assert f"left out of the past forecasts: file://{damaged}" in shown


def of_another_schema(folder: Path) -> None:
    [path] = folder.rglob("manifest.json")
    manifest = Manifest.from_json(path.read_bytes(), str(path))
    path.write_bytes(replace(manifest, schema_version=99).to_json())


def test_a_model_of_another_schema_version_is_65_and_says_what_to_do(trained: StepResult, trainer: Run, tmp_path: Path) -> None:
    of_another_schema(tmp_path / "artifacts" / "models")
    code, shown, _ = trainer(*PLOT)
    assert code == 65
    assert "has schema version 99, this program reads 2: remove its folder and run trainer train --session 2026-01-15" in shown


def test_a_language_that_is_not_spoken_is_78(trained: StepResult, trainer: Run) -> None:
    code, shown, _ = trainer(*PLOT, "--plot-language", "fr")
    assert (code, "'fr' is none of the languages en, ko" in shown) == (78, True)
    one = open_artifact(str(trainer(*PLOT, "--plot-language", "ko")[2]["manifest"]))[0]
    assert one.files != open_artifact(str(trainer(*PLOT)[2]["manifest"]))[0].files


def test_a_rerun_returns_the_plot(trained: StepResult, trainer: Run) -> None:
    first = trainer(*PLOT)[2]
    code, shown, second = trainer(*PLOT)
    assert (code, second["manifest"], "committed before" in shown) == (0, first["manifest"], True)


def test_without_a_model_it_is_65_and_says_how_to_train_one(trainer: Run) -> None:
    code, shown, _ = trainer(*PLOT, "--symbol", "KQ11")
    assert code == 65
    assert "trainer train --session 2026-01-15 --symbol KQ11" in shown


def test_a_damaged_model_is_65_and_its_object_is_named(trained: StepResult, trainer: Run, tmp_path: Path) -> None:
    [file] = (tmp_path / "artifacts" / "models").rglob("forecast.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"last_close": 1.0}))
    code, shown, _ = trainer(*PLOT)
    assert (code, str(file) in shown) == (65, True)


def test_a_model_that_was_trained_on_other_prices_is_65_and_says_to_train_again(
    trained: StepResult, trainer: Run, store: Store
) -> None:
    store.remove_folder("prices/symbol=KS11/session=2026-01-15")
    code, shown, _ = trainer(*PLOT)
    assert code == 65
    assert "was trained up to 2026-01-15 at" in shown and "the prices now end with 2026-01-14" in shown
    assert "trainer train --session 2026-01-15" in shown


def test_later_sessions_change_no_byte_of_the_plot(trained: StepResult, trainer: Run, store: Store, tmp_path: Path) -> None:
    before = open_artifact(str(trainer(*PLOT)[2]["manifest"]))[1]
    put(store, date(2026, 1, 16), 2000.0)
    (tmp_path / "artifacts" / "plots").rename(tmp_path / "elsewhere")
    assert open_artifact(str(trainer(*PLOT)[2]["manifest"]))[1] == before


@pytest.mark.slow
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
