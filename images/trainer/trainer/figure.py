"""The picture of a forecast, made for a channel that is read on a phone."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

# Okabe and Ito's colours, which people who see few colours tell apart; the lines differ in form as well.
INDEX, FORECAST, NAIVE = "#000000", "#0072B2", "#D55E00"
INCHES, DOTS = (6.0, 6.75), 180  # 1080 x 1215 pixels


def draw(sessions: Sequence[date], closes: npt.NDArray[np.float64], forecast: Mapping[str, Any]) -> bytes:
    """The PNG of the index's `closes` (index points) and the `forecast` that was made from the last of them.

    `forecast` is the content of a model's forecast.json. The same arguments give the same bytes.
    """
    horizons = [0] + [point["horizon"] for point in forecast["forecast"]]
    low, middle, high = (
        [forecast["last_close"]] + [point[name]["points"] for point in forecast["forecast"]]
        for name in ("low", "middle", "high")
    )
    with mpl.rc_context({"font.size": 13, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "0"}):
        figure = Figure(figsize=INCHES, dpi=DOTS, facecolor="white")
        axes = figure.add_axes((0.15, 0.33, 0.81, 0.52))
        past = np.arange(1 - len(closes), 1)
        axes.plot(past, closes, color=INDEX, linewidth=2, label="close")
        axes.fill_between(
            horizons, low, high, color=FORECAST, alpha=0.25, linewidth=0, label=f"{forecast['interval']:.0%} interval"
        )
        axes.plot(horizons, middle, color=FORECAST, linewidth=3, label="forecast")
        naive = [forecast["last_close"]] * len(horizons)
        axes.plot(horizons, naive, color=NAIVE, linewidth=2, linestyle=(0, (2, 1.5)), label="last close repeated")
        axes.plot([0], closes[-1:], "o", color=INDEX, markersize=6)
        ticks = np.linspace(0, len(sessions) - 1, 4).round().astype(int)
        axes.set_xticks([past[i] for i in ticks], [f"{sessions[i]:%-d %b}" for i in ticks])
        axes.set_xlim(past[0] - 1, horizons[-1] + 1)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(axis="y", color="#dddddd", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(loc="best", frameon=True, framealpha=0.9, edgecolor="none", fontsize=12)
        _write(figure, forecast, middle, low, high)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _write(figure: Figure, forecast: Mapping[str, Any], middle: list[float], low: list[float], high: list[float]) -> None:
    """The text around the axes: what it is above, what it says and is worth below, where it comes from in the corner."""
    ahead = forecast["forecast"][-1]["horizon"]
    change = middle[-1] / middle[0] - 1
    figure.text(0.04, 0.955, f"{forecast['symbol']}, {ahead} sessions ahead", fontsize=20, fontweight="bold", va="center")
    came = date.fromisoformat(forecast["last_session"])
    figure.text(
        0.04, 0.895, f"after the close of {came:%-d %B %Y}: {middle[0]:,.2f}", fontsize=14, va="center", color="#333333"
    )
    says = f"{middle[-1]:,.0f} ({change:+.1%}), between {low[-1]:,.0f} and {high[-1]:,.0f}"
    figure.text(0.04, 0.235, says, fontsize=16, fontweight="bold", color=FORECAST, va="center")
    words = textwrap.fill(forecast["in_words"], width=64)
    figure.text(0.04, 0.2, words, fontsize=12.5, va="top", linespacing=1.35)
    corner = f"session {forecast['session']} · model {forecast['model']} · no advice"
    figure.text(0.96, 0.022, corner, fontsize=10.5, ha="right", va="center", color="#555555")
