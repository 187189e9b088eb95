"""The picture of a forecast, made for a channel that is read on a phone."""

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
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import StrMethodFormatter

from trainer.texts import ENGLISH, LANGUAGES, Texts, format_date, format_past_coverage

# Okabe and Ito's colours, which people who see few colours tell apart; the lines differ in form as well.
INDEX, FORECAST, NAIVE, PAST = "#000000", "#0072B2", "#D55E00", "#56B4E9"
INCHES, DOTS = (6.0, 7.2), 180  # 1080 x 1296 pixels
LEFT, RIGHT = 0.04, 0.96  # of the picture's width: where text may be
HANGUL = ("NanumGothic.ttf", "NanumGothicBold.ttf")


@dataclass(frozen=True)
class PlotData:
    """What is drawn: the last `closes` in index points and the `forecast` made from the last of them, what earlier forecasts
    said, and its worth in `words`.

    `forecast` and `past` are contents of forecast.json. `issued`: whether the past ones were issued at their time, or are
    those of the validation.
    """

    sessions: Sequence[date]
    closes: npt.NDArray[np.float64]
    forecast: Mapping[str, Any]
    past: Sequence[Mapping[str, Any]]
    issued: bool
    in_words: str


def render_png(picture: PlotData, language: str) -> bytes:
    """The PNG of `picture`. The same arguments give the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(style(language)):
        build_figure(picture, LANGUAGES[language]).savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def style(language: str) -> dict[Any, Any]:
    """matplotlib's settings for a picture in `language`, whose fonts it makes known."""
    style: dict[Any, Any] = {"font.size": 13, "axes.spines.top": False, "axes.spines.right": False}
    if LANGUAGES[language] is not ENGLISH:
        # The package sets itself up when it is imported, for all pictures and by a module that Python 3.12 has no more.
        package = find_spec("koreanize_matplotlib")
        for name in HANGUL:
            fontManager.addfont(Path(package.origin if package and package.origin else "").with_name("fonts") / name)
        style |= {"font.family": "NanumGothic"}
    return style


def build_figure(picture: PlotData, words: Texts) -> Figure:
    """The figure that `render_png` stores."""
    forecast = picture.forecast
    low, middle, high = _quantile_lines(forecast)
    figure = Figure(figsize=INCHES, dpi=DOTS, facecolor="white", layout=ConstrainedLayoutEngine(rect=(0.03, 0.34, 0.94, 0.52)))
    axes = figure.add_subplot()
    at = np.arange(1 - len(picture.closes), 1)
    held = [_draw_past_forecast(axes, picture, one) for one in picture.past]
    if held:
        axes.fill_between(
            [], [], color=PAST, alpha=0.45, linewidth=0, label=words.issued if picture.issued else words.out_of_sample
        )
    axes.plot(at, picture.closes, color=INDEX, linewidth=2, label=words.close)
    ahead = np.arange(len(middle))
    label = words.interval.format(interval=forecast["interval"])
    axes.fill_between(ahead, low, high, color=FORECAST, alpha=0.25, linewidth=0, label=label)
    axes.plot(ahead, middle, color=FORECAST, linewidth=3, label=words.forecast)
    axes.plot(ahead, [middle[0]] * len(ahead), color=NAIVE, linewidth=2, linestyle=(0, (2, 1.5)), label=words.naive)
    axes.plot([0], picture.closes[-1:], "o", color=INDEX, markersize=6)
    ticks = np.linspace(0, len(at) - 1, 4).round().astype(int)
    axes.set_xticks(at[ticks].tolist(), [format_date(picture.sessions[i], words, year=False) for i in ticks])
    axes.set_xlim(at[0] - 1, ahead[-1] + 1)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + 0.3 * (top - bottom))  # room for the legend above the lines
    decimals = max(0, 1 - math.floor(math.log10(top - bottom)))
    axes.yaxis.set_major_formatter(StrMethodFormatter(f"{{x:,.{decimals}f}}"))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", frameon=False, fontsize=11, ncols=2, borderaxespad=0, columnspacing=1.2, handlelength=1.6)
    _add_text(figure, picture, words, format_past_coverage(held, words, issued=picture.issued))
    return figure


def _quantile_lines(forecast: Mapping[str, Any]) -> list[list[float]]:
    """Low, middle and high of a forecast in index points, each from the close that it was made from."""
    return [
        [forecast["last_close"]] + [point[name]["points"] for point in forecast["forecast"]]
        for name in ("low", "middle", "high")
    ]


def _draw_past_forecast(axes: Axes, picture: PlotData, forecast: Mapping[str, Any]) -> bool:
    """Draws a past forecast as far as its sessions have come; returns whether the last of them was within its interval."""
    start = list(picture.sessions).index(date.fromisoformat(forecast["last_session"]))
    low, middle, high = (line[: len(picture.closes) - start] for line in _quantile_lines(forecast))
    end = start + len(middle) - 1
    at = np.arange(start, end + 1) - len(picture.closes) + 1
    axes.fill_between(at, low, high, color=PAST, alpha=0.45, linewidth=0)
    axes.plot(at, middle, color=FORECAST, linewidth=1.5, linestyle=(0, (1, 1)))
    return bool(low[-1] <= picture.closes[end] <= high[-1])


def _add_text(figure: Figure, picture: PlotData, words: Texts, past: str) -> None:
    """The text around the axes: what it is above, what it says and is worth below, where it comes from in the corner."""
    forecast = picture.forecast
    low, middle, high = _quantile_lines(forecast)
    decimals = 0 if middle[0] >= 100 else 2
    after = format_date(date.fromisoformat(forecast["last_session"]), words)
    _add_line(figure, 0.958, words.title.format(symbol=forecast["symbol"], ahead=len(middle) - 1), 20, fontweight=words.bold)
    _add_line(figure, 0.902, words.after.format(day=after, close=f"{middle[0]:,.2f}"), 14, color="#333333")
    points = {name: f"{line[-1]:,.{decimals}f}" for name, line in (("low", low), ("middle", middle), ("high", high))}
    says = words.says.format(change=middle[-1] / middle[0] - 1, **points)
    _add_line(figure, 0.3, says, 16, fontweight=words.bold, color=FORECAST)
    text = textwrap.fill(f"{picture.in_words} {past}", width=words.width)
    figure.text(LEFT, 0.27, text, fontsize=12.5, va="top", linespacing=1.35)
    corner = words.corner.format(session=forecast["session"], model=forecast["model"])
    _add_line(figure, 0.024, corner, 10.5, color="#555555", right=True)


def _add_line(figure: Figure, y: float, text: str, size: float, *, right: bool = False, **style: Any) -> None:
    """Writes a line of `text`, smaller than `size` where it would not fit."""
    line = figure.text(RIGHT if right else LEFT, y, text, fontsize=size, ha="right" if right else "left", va="center", **style)
    width = line.get_window_extent().width / (figure.bbox.width * (RIGHT - LEFT))
    line.set_fontsize(size / max(1.0, width))
