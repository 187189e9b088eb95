"""What people read of a forecast, in the language they read: one table, one row a language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.evaluation import Evaluation


@dataclass(frozen=True)
class Texts:
    """The texts of one language, to be filled in.

    `dates` are a day with and without its year. `width` is how many letters fit into a line of the picture, `bold` the weight
    of the language's bold font.
    """

    title: str
    after: str
    says: str
    close: str
    interval: str
    forecast: str
    naive: str
    issued: str
    out_of_sample: str
    corner: str
    errors: str
    better: str
    no_better: str
    direction: str
    held: str
    dates: tuple[str, str]
    months: tuple[str, ...]
    width: int
    bold: int


ENGLISH = Texts(
    title="{symbol}, {ahead} sessions ahead",
    after="after the close of {day}: {close}",
    says="{middle} ({change:+.1%}), between {low} and {high}",
    close="close",
    interval="{interval:.0%} interval",
    forecast="forecast",
    naive="last close repeated",
    issued="past forecasts",
    out_of_sample="would-be forecasts",
    corner="session {session} · model {model} · no advice",
    errors="Out of sample ({forecasts} forecasts, {horizon} sessions ahead) it is off by {mae:.2%}, "
    "repeating the last close by {mae_naive:.2%}.",
    better="{horizons} sessions ahead it beats that and the mere drift in every fold, beyond noise.",
    no_better="It does not reliably beat both that and the mere drift.",
    direction="It has the direction right {directional_accuracy:.0%} of the time "
    "({directional_accuracy_low:.0%} to {directional_accuracy_high:.0%}), and its {interval:.0%} interval "
    "held {coverage:.0%} of the time.",
    held="Of the {count} {past} shown {held} held.",
    dates=("{day} {month} {year}", "{day} {month}"),
    months=("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    width=60,
    bold=700,
)
KOREAN = Texts(
    title="{symbol}, {ahead}거래일 예측",
    after="{day} 종가 {close} 기준",
    says="{middle} ({change:+.1%}), {low}~{high} 사이",
    close="종가",
    interval="{interval:.0%} 예측 구간",
    forecast="예측",
    naive="마지막 종가 유지",
    issued="지난 예측",
    out_of_sample="그때 했을 예측",
    corner="기준일 {session} · 모델 {model} · 투자 조언이 아닙니다",
    errors="학습에 쓰지 않은 기간의 예측 {forecasts}번({horizon}거래일 뒤)은 평균 {mae:.2%} 빗나갔고, "
    "마지막 종가를 그대로 쓰면 {mae_naive:.2%} 빗나갑니다.",
    better="{horizons}거래일 뒤 예측은 모든 검증 구간에서 우연이라 보기 어려울 만큼 이것과 단순 추세보다 낫습니다.",
    no_better="이것과 단순 추세를 모두 확실히 앞서지는 못합니다.",
    direction="방향은 {directional_accuracy:.0%} 맞혔고({directional_accuracy_low:.0%}~{directional_accuracy_high:.0%}), "
    "{interval:.0%} 구간 안에 {coverage:.0%}가 들어왔습니다.",
    held="그림의 {past} {count}번 중 {held}번이 구간 안에 들어왔습니다.",
    dates=("{year}년 {month} {day}일", "{month} {day}일"),
    months=tuple(f"{number}월" for number in range(1, 13)),
    width=42,
    bold=600,
)
LANGUAGES = {"en": ENGLISH, "ko": KOREAN}


def in_words(evaluation: Evaluation, interval: float, words: Texts = ENGLISH) -> str:
    """The evaluation in a few sentences for a person, without dressing anything up."""
    horizons = [str(horizon) for horizon in evaluation["significant_horizons"]]
    verdict = words.better.format(horizons=", ".join(horizons)) if horizons else words.no_better
    last = evaluation["overall"][-1]
    return f"{words.errors.format(**last)} {verdict} {words.direction.format(interval=interval, **last)}"


def format_date(day: date, words: Texts, *, year: bool = True) -> str:
    """The date `day` as people write it, with its year or without."""
    return words.dates[0 if year else 1].format(year=day.year, month=words.months[day.month - 1], day=day.day)


def format_past_coverage(held: Sequence[bool], words: Texts, *, issued: bool) -> str:
    """How many of the past forecasts held what came within their interval; empty where there are none."""
    past = words.issued if issued else words.out_of_sample
    return words.held.format(past=past, count=len(held), held=sum(held)) if held else ""
