"""The texts of the plot and of the evaluation's summary, one table per language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.evaluation import Evaluation


@dataclass(frozen=True)
class Texts:
    """Format strings of one language.

    Attributes:
        dates: a date with and without its year.
        width: characters in a line of the plot's caption.
        bold: the weight of the language's bold font.
    """

    title: str
    subtitle: str
    headline: str
    close: str
    interval: str
    forecast: str
    naive: str
    issued: str
    out_of_sample: str
    footer: str
    errors: str
    significant: str
    not_significant: str
    accuracy: str
    calibrated: str
    uncalibrated: str
    past_coverage: str
    baselines: str
    dates: tuple[str, str]
    months: tuple[str, ...]
    width: int
    bold: int


ENGLISH = Texts(
    title="{symbol}: {horizon}-session forecast",
    subtitle="Last close: {close} on {date}",
    headline="{middle} ({change:+.1%}), {interval:.0%} interval {low} to {high}",
    close="close",
    interval="{interval:.0%} prediction interval",
    forecast="forecast",
    naive="naive forecast",
    issued="past forecasts",
    out_of_sample="validation forecasts",
    footer="session {session} · model {model} · not investment advice",
    errors="Out of sample ({forecasts} forecasts, {horizon} sessions ahead): mean absolute error {mae:.2%}, "
    "naive forecast (last close) {mae_naive:.2%}.",
    significant="Significantly better than the naive and drift forecasts {horizons} sessions ahead, in every fold.",
    not_significant="No significant improvement over the naive and drift forecasts.",
    accuracy="Directional accuracy {directional_accuracy:.0%} "
    "(95% CI {directional_accuracy_low:.0%} to {directional_accuracy_high:.0%}), "
    "{interval:.0%} interval coverage {intervals[calibrated][coverage]:.0%} "
    "({intervals[calibrated][coverage_low]:.0%} to {intervals[calibrated][coverage_high]:.0%}), {calibration}.",
    calibrated="{intervals[raw][coverage]:.0%} before calibration",
    uncalibrated="{uncalibrated} of them not calibrated: too few outcomes",
    past_coverage="Coverage of {kind} shown: {covered} of {count}.",
    baselines="{issued} ({baselines} baseline)",
    dates=("{day} {month} {year}", "{day} {month}"),
    months=("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    width=60,
    bold=700,
)
KOREAN = Texts(
    title="{symbol} {horizon}거래일 예측",
    subtitle="{date} 종가 {close} 기준",
    headline="{middle} ({change:+.1%}), {interval:.0%} 예측 구간 {low}~{high}",
    close="종가",
    interval="{interval:.0%} 예측 구간",
    forecast="예측",
    naive="단순 예측",
    issued="과거 예측",
    out_of_sample="검증 예측",
    footer="기준일 {session} · 모델 {model} · 투자 조언이 아닙니다",
    errors="표본 외 예측 {forecasts}건({horizon}거래일 후)의 평균 절대 오차는 {mae:.2%}, "
    "단순 예측(마지막 종가)의 오차는 {mae_naive:.2%}입니다.",
    significant="{horizons}거래일 후 예측은 모든 검증 구간에서 단순·드리프트 예측보다 정확하며, "
    "전체 차이는 통계적으로 유의합니다.",
    not_significant="단순·드리프트 예측 대비 통계적으로 유의한 개선은 없습니다.",
    accuracy="방향 적중률은 {directional_accuracy:.0%}"
    "(95% 신뢰구간 {directional_accuracy_low:.0%}~{directional_accuracy_high:.0%}), "
    "{interval:.0%} 예측 구간의 포함률은 {intervals[calibrated][coverage]:.0%}"
    "({intervals[calibrated][coverage_low]:.0%}~{intervals[calibrated][coverage_high]:.0%})입니다({calibration}).",
    calibrated="보정 전 {intervals[raw][coverage]:.0%}",
    uncalibrated="결과가 부족하여 {uncalibrated}개는 보정 안 됨",
    past_coverage="표시된 {kind} {count}건 중 {covered}건이 예측 구간에 적중했습니다.",
    baselines="{issued}(기준선 {baselines}건)",
    dates=("{year}년 {month} {day}일", "{month} {day}일"),
    months=tuple(f"{number}월" for number in range(1, 13)),
    width=42,
    bold=600,
)
LANGUAGES = {"en": ENGLISH, "ko": KOREAN}
# Only the log and Slack show it: the plot has no room.
INTERVALS = (
    "Coverage by thirds of volatility, low to high: {thirds}. Interval score {intervals[calibrated][interval_score]:.2%} "
    "(before calibration {intervals[raw][interval_score]:.2%}, naive {intervals[naive][interval_score]:.2%}, "
    "drift {intervals[drift][interval_score]:.2%}), mean width {intervals[calibrated][width]:.2%} "
    "({intervals[raw][width]:.2%}, {intervals[naive][width]:.2%}, {intervals[drift][width]:.2%}). "
    "MASE {mase:.2f} (naive {mase_naive:.2f}), quantile loss {intervals[calibrated][quantile_loss]:.3%} "
    "(naive {intervals[naive][quantile_loss]:.3%})."
)


def summarize_evaluation(evaluation: Evaluation, interval: float, texts: Texts = ENGLISH) -> str:
    """Return the evaluation at the last horizon, and the significance at all, in a few sentences."""
    horizons = [str(horizon) for horizon in evaluation["significant_horizons"]]
    significance = texts.significant.format(horizons=", ".join(horizons)) if horizons else texts.not_significant
    last = evaluation["overall"][-1]
    uncalibrated = evaluation["uncalibrated_forecasts"]
    calibration = (texts.uncalibrated if uncalibrated else texts.calibrated).format(uncalibrated=uncalibrated, **last)
    accuracy = texts.accuracy.format(interval=interval, calibration=calibration, **last)
    return f"{texts.errors.format(**last)} {significance} {accuracy}"


def summarize_intervals(evaluation: Evaluation) -> str:
    """Return how the prediction interval at the last horizon compares with others, in two sentences for the log and Slack."""
    last = evaluation["overall"][-1]
    thirds = ", ".join(f"{coverage:.0%}" for coverage in last["intervals"]["calibrated"]["coverage_by_volatility"])
    return INTERVALS.format(thirds=thirds, **last)


def format_date(day: date, texts: Texts, *, year: bool = True) -> str:
    """Return the date `day` in the language of `texts`, with or without its year."""
    return texts.dates[0 if year else 1].format(year=day.year, month=texts.months[day.month - 1], day=day.day)


def format_past_coverage(covered: Sequence[bool], texts: Texts, *, issued: bool) -> str:
    """Return how many past forecasts have their outcome within the interval; empty without past forecasts.

    Args:
        covered: for each past forecast, whether its outcome is within its interval.
        texts: the language.
        issued: whether the forecasts were issued at their time, rather than made by the validation.
    """
    kind = texts.issued if issued else texts.out_of_sample
    return texts.past_coverage.format(kind=kind, count=len(covered), covered=sum(covered)) if covered else ""


def label_past_forecasts(texts: Texts, *, issued: bool, baselines: int) -> str:
    """Return the legend's label of the past forecasts.

    Args:
        texts: the language.
        issued: as for `format_past_coverage`.
        baselines: how many of them a baseline made, for lack of a model.
    """
    if issued and baselines:
        return texts.baselines.format(issued=texts.issued, baselines=baselines)
    return texts.issued if issued else texts.out_of_sample
