"""Facts that one program writes and another reads: small scalars of a step's result, by step.

The DAG, the monitor's messages and `make run` read them. Other facts of a step have no reader but people. A new field needs a
default, as artifacts that are committed already lack it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from enum import StrEnum
from functools import cache
from typing import Any, Self, get_args, get_type_hints

from step_contract.errors import DataError
from step_contract.manifest import Fact


@cache
def _field_types(cls: type) -> dict[str, tuple[type, ...]]:
    """Return the types that each field may have; a whole number is also a float."""
    types = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(cls).items()}
    return {name: (*allowed, int) if float in allowed else allowed for name, allowed in types.items()}


@dataclass(frozen=True)
class StepFacts:
    """Facts of one step. A field without a default is always written, another one only if it differs from its default."""

    def to_facts(self) -> dict[str, Fact]:
        """Return the facts by name."""
        defaults = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        return {name: value for name, value in asdict(self).items() if name not in defaults or value != defaults[name]}

    @classmethod
    def parse(cls, facts: Mapping[str, Any]) -> Self:
        """Return these facts of a result, which may have others. Raises DataError if one is missing or has the wrong type."""
        types = _field_types(cls)  # type: ignore[arg-type] # a class is hashable
        known = {name: value for name, value in facts.items() if name in types}
        # type(), because a bool is an int for isinstance().
        wrong = [name for name, value in known.items() if type(value) not in types[name]]
        missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in known]
        if wrong or missing:
            raise DataError(
                f"invalid {cls.__name__}: missing or of the wrong type: {', '.join((*missing, *wrong))}; got {facts!r:.500}"
            )
        return cls(**known)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self | None:
        """Return these facts of a result; None if it is another step's, or a fact has the wrong type."""
        try:
            return cls.parse(facts)
        except DataError:
            return None


@dataclass(frozen=True)
class SummaryFacts(StepFacts):
    """The facts of every step: `make_result` writes them.

    Attributes:
        summary: what the step did, in a few sentences for a person.
        rows: records in the artifact's tabular files; None if the step has no artifact.
    """

    summary: str
    rows: int | None = None


@dataclass(frozen=True)
class DecisionFacts(StepFacts):
    """The facts of the step `decide`, from `collector.decide.commit_decision`.

    Attributes:
        state: open, closed or suspect. The DAG's task `branch` selects by it.
        reason: a phrase for messages.
        session: as an ISO date.
    """

    state: str
    reason: str
    session: str


@dataclass(frozen=True)
class PricesFacts(StepFacts):
    """The facts of the step `fetch-prices` for one session, from `collector.prices.commit_bar`.

    Attributes:
        session: as an ISO date.
        close: index points.
        change: close divided by the previous close, minus 1; None for an index's first session.
        revision: the revision; not in the manifest, whose path names it.
        corrected: corrections by the source of earlier sessions, which are not committed, as a person should read them.
    """

    session: str
    close: float
    change: float | None
    revision: int = 1
    corrected: str = ""


class Availability(StrEnum):
    """How much of a session's headlines the feeds held when they were read.

    COMPLETE: every feed covered the day until then; without a headline, nothing was published. PARTIAL: some feeds covered it,
    or a part of it. UNAVAILABLE: none did, so whether there were headlines is unknown.
    """

    COMPLETE = "complete"
    PARTIAL = "partial"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class HeadlinesFacts(StepFacts):
    """The facts of the step `fetch-headlines`, from `collector.fetch_headlines.commit_headlines`.

    Attributes:
        session: as an ISO date.
        headlines: how many were collected.
        feeds: how many there are, of which `broken` could not be read, `uncovered` do not reach back to the session's day, or
            do not show that they do, and `partly_covered` hold the end of it only.
        broken_feeds: names and errors of broken feeds, as a person should read them.
        undated: entries without a valid date.
        availability: a value of `Availability`; empty in artifacts of versions that did not record it.
        incomplete_feeds: names and reasons of uncovered and partly covered feeds, as a person should read them.
    """

    session: str
    headlines: int
    feeds: int
    broken: int = 0
    broken_feeds: str = ""
    undated: int = 0
    availability: str = ""
    uncovered: int = 0
    partly_covered: int = 0
    incomplete_feeds: str = ""

    def describe(self) -> str:
        """Return the result as a phrase, which distinguishes a day without headlines from one that no feed held."""
        if self.availability == Availability.UNAVAILABLE:
            return "headlines: not available for this session"
        counts = {"failed": self.broken, "did not reach back": self.uncovered, "reached back in part": self.partly_covered}
        gaps = [f"{count} {problem}" for problem, count in counts.items() if count]
        if gaps:
            return f"{self.headlines} headlines, partial: of {self.feeds} feeds {', '.join(gaps)}"
        if self.availability == Availability.COMPLETE and not self.headlines:
            return "no headlines published"
        return f"{self.headlines} headlines"


@dataclass(frozen=True)
class TrainingFacts(StepFacts):
    """The facts of the step `train`, from `trainer.train.make_facts`, with the metrics of the last horizon.

    Attributes:
        last_session: the last session of the history, as an ISO date; `last_close`: its close in index points.
        evaluation: the evaluation in a few sentences.
        beats_baselines: whether the improvement is significant at one horizon at least.
        p_value: of the improvement over the naive forecast.
        horizon: sessions ahead.
        mae: the mean absolute error as a log return; `mae_naive`: the naive forecast's.
        skill: 1 - mae / mae_naive.
        peak_memory_mib: of the training; `threads`: how many it used.
        promotion: the outcome of the attempt to promote the model; not in the manifest.
    """

    last_session: str
    last_close: float
    evaluation: str
    beats_baselines: bool
    p_value: float
    horizon: int
    mae: float
    mae_naive: float
    skill: float
    peak_memory_mib: int
    threads: int
    promotion: str = ""


@dataclass(frozen=True)
class ForecastFacts(StepFacts):
    """The facts of the step `forecast`, from `trainer.daily_forecast.step.make_facts`. Values are in index points.

    Attributes:
        session: the session that is forecast from, as an ISO date; `last_close`: its close.
        source: `model of` and its session, or `baseline: ` and its name.
        interval: the nominal coverage of the prediction intervals.
        next_low: the interval one session ahead; `next_middle` and `next_high` likewise.
        horizon: the last horizon, in sessions ahead; `low`, `middle` and `high` are its forecast.
        is_calibrated: whether there were enough outcomes to calibrate the intervals.
        previous_session: the session before, if a forecast was issued on it; `previous_low`, `previous_middle` and
            `previous_high` are that forecast for this session, and `previous_within` is whether the close is within.
        problem: why the current model could not be used, as a person should read it; empty if it was, or there is none.
        alerts_problem: whether `problem` is new since the previous forecast.
        drift: what has drifted and since when, on the first evening; `advice`: what to do about it.
        drift_since: the origin of the first forecast that has drifted, as an ISO date, on every evening of a drift.
        revision: the revision; not in the manifest, whose path names it. 1 was issued, later ones were remade by a person.
    """

    session: str
    last_close: float
    source: str
    interval: float
    next_low: float
    next_middle: float
    next_high: float
    horizon: int
    low: float
    middle: float
    high: float
    is_calibrated: bool = True
    previous_session: str = ""
    previous_low: float | None = None
    previous_middle: float | None = None
    previous_high: float | None = None
    previous_within: bool | None = None
    problem: str = ""
    alerts_problem: bool = False
    drift: str = ""
    advice: str = ""
    drift_since: str = ""
    revision: int = 1

    @property
    def is_issued(self) -> bool:
        """Whether it is the forecast that was issued, not one that was remade."""
        return self.revision == 1

    def describe_next(self) -> str:
        """Return the forecast one session ahead as a phrase."""
        source = f"{self.source}, the current model cannot be used" if self.problem else self.source
        return f"{format_interval(self.next_low, self.next_middle, self.next_high)} ({source})"

    def describe_previous(self) -> str:
        """Return the previous session's forecast and what became of it as a phrase; empty if there was none."""
        if self.previous_low is None or self.previous_middle is None or self.previous_high is None:
            return ""
        interval = format_interval(self.previous_low, self.previous_middle, self.previous_high)
        outcome = "within" if self.previous_within else "below" if self.last_close < self.previous_middle else "above"
        return f"{interval}, became {format_points(self.last_close)}, {outcome}"


def format_points(value: float) -> str:
    """Return index points for a person: without decimals from 1,000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"


def format_interval(low: float, middle: float, high: float) -> str:
    """Return a forecast with its interval for a person, such as `2,651 [2,610; 2,690]`."""
    return f"{format_points(middle)} [{format_points(low)}; {format_points(high)}]"
