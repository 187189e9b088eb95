"""The figure of a forecast, legible on a phone."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import StrMethodFormatter

from trainer.texts import ENGLISH, LANGUAGES, Texts, format_date, format_past_coverage, label_past_forecasts

# The colorblind-safe palette of Okabe and Ito; the lines also differ in style.
CLOSE_COLOR, FORECAST_COLOR, NAIVE_COLOR, PAST_COLOR = "#000000", "#0072B2", "#D55E00", "#56B4E9"
SIZE_INCHES, DPI = (6.0, 7.2), 180  # 1080 x 1296 pixels
TEXT_LEFT, TEXT_RIGHT = 0.04, 0.96  # the margins of text, as shares of the figure's width
HANGUL_FONTS = ("NanumGothic.ttf", "NanumGothicBold.ttf")


@dataclass(frozen=True)
class PlotData:
    """The content of a figure.

    Attributes:
        closes: in index points, with the sessions as index.
        forecast: the content of forecast.json, made from the last close.
        past: contents of earlier forecast.json, or the validation's forecasts.
        issued: whether the `past` forecasts were issued at their time, rather than made by the validation.
        evaluation: the summary of the evaluation in the figure's language.
        baselines: how many of the `past` forecasts a baseline made.
    """

    closes: pd.Series
    forecast: Mapping[str, Any]
    past: Sequence[Mapping[str, Any]]
    issued: bool
    evaluation: str
    baselines: int = 0


def render_png(data: PlotData, language: str) -> bytes:
    """Return the figure as PNG. The same arguments give the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(load_style(language)):
        build_figure(data, LANGUAGES[language]).savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def load_style(language: str) -> dict[Any, Any]:
    """Return matplotlib's rcParams for `language`, and register the fonts that it needs."""
    style: dict[Any, Any] = {"font.size": 13, "axes.spines.top": False, "axes.spines.right": False}
    if LANGUAGES[language] is not ENGLISH:
        # Importing the package would change the global rcParams, and fails from Python 3.12 on for lack of distutils.
        package = find_spec("koreanize_matplotlib")
        for name in HANGUL_FONTS:
            fontManager.addfont(Path(package.origin if package and package.origin else "").with_name("fonts") / name)
        style |= {"font.family": "NanumGothic"}
    return style


def build_figure(data: PlotData, texts: Texts) -> Figure:
    """Return the figure that `render_png` renders."""
    forecast = data.forecast
    low, middle, high = _quantile_lines(forecast)
    layout = ConstrainedLayoutEngine(rect=(0.03, 0.34, 0.94, 0.52))
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, facecolor="white", layout=layout)
    axes = figure.add_subplot()
    x = np.arange(1 - len(data.closes), 1)
    covered = [_draw_past_forecast(axes, data, past) for past in data.past]
    if covered:
        label = label_past_forecasts(texts, issued=data.issued, baselines=data.baselines)
        axes.fill_between([], [], color=PAST_COLOR, alpha=0.45, linewidth=0, label=label)
    axes.plot(x, data.closes, color=CLOSE_COLOR, linewidth=2, label=texts.close)
    ahead = np.arange(len(middle))
    label = texts.interval.format(interval=forecast["interval"])
    axes.fill_between(ahead, low, high, color=FORECAST_COLOR, alpha=0.25, linewidth=0, label=label)
    axes.plot(ahead, middle, color=FORECAST_COLOR, linewidth=3, label=texts.forecast)
    naive = [middle[0]] * len(ahead)
    axes.plot(ahead, naive, color=NAIVE_COLOR, linewidth=2, linestyle=(0, (2, 1.5)), label=texts.naive)
    axes.plot([0], data.closes.iloc[-1:], "o", color=CLOSE_COLOR, markersize=6)
    ticks = np.linspace(0, len(x) - 1, 4).round().astype(int)
    axes.set_xticks(x[ticks].tolist(), [format_date(data.closes.index[i].date(), texts, year=False) for i in ticks])
    axes.set_xlim(x[0] - 1, ahead[-1] + 1)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.3 * (top - bottom))  # room for the legend above the lines
    decimals = max(0, 1 - math.floor(math.log10(top - bottom)))
    axes.yaxis.set_major_formatter(StrMethodFormatter(f"{{x:,.{decimals}f}}"))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", frameon=False, fontsize=11, ncols=2, borderaxespad=0, columnspacing=1.2, handlelength=1.6)
    _add_texts(figure, data, texts, format_past_coverage(covered, texts, issued=data.issued))
    return figure


def _quantile_lines(forecast: Mapping[str, Any]) -> list[list[float]]:
    """Return the low, middle and high line of a forecast in index points, each starting at the last close."""
    return [
        [forecast["last_close"]] + [point[name]["points"] for point in forecast["forecast"]]
        for name in ("low", "middle", "high")
    ]


def _draw_past_forecast(axes: Axes, data: PlotData, forecast: Mapping[str, Any]) -> bool:
    """Draw a past forecast up to the last close; return whether the interval at its end covers the close there."""
    start = data.closes.index.get_loc(pd.Timestamp(forecast["last_session"]))
    low, middle, high = (line[: len(data.closes) - start] for line in _quantile_lines(forecast))
    end = start + len(middle) - 1
    x = np.arange(start, end + 1) - len(data.closes) + 1
    axes.fill_between(x, low, high, color=PAST_COLOR, alpha=0.45, linewidth=0)
    axes.plot(x, middle, color=FORECAST_COLOR, linewidth=1.5, linestyle=(0, (1, 1)))
    return bool(low[-1] <= data.closes.iloc[end] <= high[-1])


def _add_texts(figure: Figure, data: PlotData, texts: Texts, past_coverage: str) -> None:
    """Add title and subtitle above the axes, headline and caption below, and the footer."""
    forecast = data.forecast
    low, middle, high = _quantile_lines(forecast)
    decimals = 0 if middle[0] >= 100 else 2
    title = texts.title.format(symbol=forecast["symbol"], horizon=len(middle) - 1)
    _add_line(figure, 0.958, title, 20, fontweight=texts.bold)
    last_session = format_date(date.fromisoformat(forecast["last_session"]), texts)
    _add_line(figure, 0.902, texts.subtitle.format(date=last_session, close=f"{middle[0]:,.2f}"), 14, color="#333333")
    points = {name: f"{line[-1]:,.{decimals}f}" for name, line in (("low", low), ("middle", middle), ("high", high))}
    headline = texts.headline.format(change=middle[-1] / middle[0] - 1, interval=forecast["interval"], **points)
    _add_line(figure, 0.3, headline, 16, fontweight=texts.bold, color=FORECAST_COLOR)
    caption = textwrap.fill(f"{data.evaluation} {past_coverage}", width=texts.width)
    figure.text(TEXT_LEFT, 0.27, caption, fontsize=12.5, va="top", linespacing=1.35)
    footer = texts.footer.format(session=forecast["session"], model=forecast["model"])
    _add_line(figure, 0.024, footer, 10.5, color="#555555", right=True)


def _add_line(figure: Figure, y: float, text: str, size: float, *, right: bool = False, **style: Any) -> None:
    """Add a line of text at the height `y`, in a smaller font than `size` if it would not fit."""
    x, alignment = (TEXT_RIGHT, "right") if right else (TEXT_LEFT, "left")
    line = figure.text(x, y, text, fontsize=size, ha=alignment, va="center", **style)
    width = line.get_window_extent().width / (figure.bbox.width * (TEXT_RIGHT - TEXT_LEFT))
    line.set_fontsize(size / max(1.0, width))
