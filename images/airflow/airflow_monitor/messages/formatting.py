"""Icons, dates and titles of messages, and sentences for the facts that steps report.

A step of your own needs no line here: its fact `summary` is shown in the run's line if it is short, otherwise in the thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Any, cast

from airflow.providers.common.compat.sdk import redact
from step_contract.facts import HeadlinesFacts
from step_contract.schemas import MARKET_TIME_ZONE

from airflow_monitor.models import Run, TaskInstance

MAIN_DAG = "market_daily"  # titles of other DAGs' runs begin with the DAG's id
SUMMARY_LENGTH = 90  # characters of a step's summary in the run's line
Facts = Mapping[str, Any]


class Icon(StrEnum):
    """The emoji at the start of a message."""

    SUCCESS = ":large_green_circle:"
    CLOSED = ":white_circle:"
    SUSPECT = ":large_orange_circle:"
    RUNNING = ":large_blue_circle:"
    WAITING = ":large_yellow_circle:"
    FAILED = ":red_circle:"
    DELETED = ":black_circle:"
    RESOLVED = ":white_check_mark:"


def format_date(day: date) -> str:
    """Return a date such as `Thu 15 Jan 2026`."""
    return f"{day:%a} {day.day} {day:%b %Y}"


def format_time(moment: datetime, session: date | None = None) -> str:
    """Return the time of day in Seoul, with the date unless it is that of `session`."""
    local = moment.astimezone(MARKET_TIME_ZONE)
    return f"{local:%H:%M}" if local.date() == session else f"{local:%H:%M} on {format_date(local.date())}"


def format_title(run: Run) -> str:
    """Return the run's session, or the DAG with the run's configuration or id."""
    if run.session:
        return format_date(run.session) if run.dag_id == MAIN_DAG else f"{run.dag_id}, {format_date(run.session)}"
    conf = cast("dict[str, Any]", redact(dict(run.conf)))
    options = [f"{name} {value}" if isinstance(value, str | int | float) else str(name) for name, value in sorted(conf.items())]
    return f"{run.dag_id} ({', '.join(options) or run.run_id})"


def find_decision(task_instances: Iterable[TaskInstance]) -> tuple[str, str] | None:
    """Return whether the exchange is open, closed or suspect, and why; None before that is decided."""
    for ti in task_instances:
        if ti.facts.get("state") in ("open", "closed", "suspect"):
            return str(ti.facts["state"]), str(ti.facts.get("reason", ""))
    return None


def format_summary(facts: Facts) -> str | None:
    """Return a step's part of the run's line; None if it has nothing short to report."""
    if facts.get("state") == "open":
        return None
    if "state" in facts and "reason" in facts:
        return f"{facts['state']}: {facts['reason']}"
    if _is_number(facts.get("close")) and _is_number(facts.get("change")):
        revised = ", source revised earlier sessions" if "corrected" in facts else ""
        return f"closed at {float(facts['close']):,.2f} ({float(facts['change']):+.2%}){revised}"
    if collected := HeadlinesFacts.from_facts(facts):
        failed = f" ({collected.broken} of {collected.feeds} feeds failed)" if collected.broken else ""
        return f"{collected.headlines} headlines{failed}"
    if "promotion" in facts:
        return f"model {str(facts['promotion']).split(':')[0].split(',')[0]}"
    summary = str(facts.get("summary", ""))
    return summary if 0 < len(summary) <= SUMMARY_LENGTH else None


def format_details(facts: Facts) -> tuple[str, Sequence[str]] | None:
    """Return a step's paragraph and fields for the thread; None if the run's line holds everything."""
    if "promotion" in facts:
        return str(facts.get("summary", "")), [f"*{name}*\n{value}" for name, value in _training_figures(facts).items()]
    if "corrected" in facts:
        return str(facts["corrected"]), ()
    if (collected := HeadlinesFacts.from_facts(facts)) and collected.broken_feeds:
        return collected.broken_feeds, ()
    summary = str(facts.get("summary", ""))
    return (summary, ()) if format_summary(facts) is None and len(summary) > SUMMARY_LENGTH else None


def _training_figures(facts: Facts) -> dict[str, str]:
    figures = {"Horizon": f"{facts['horizon']} sessions"} if _is_number(facts.get("horizon")) else {}
    for fact, label in (("mae", "Mean absolute error"), ("mae_naive", "Naive forecast's error"), ("skill", "Skill")):
        if _is_number(facts.get(fact)):
            figures[label] = f"{facts[fact]:.2%}"
    if _is_number(facts.get("p_value")):
        figures["p-value"] = f"{facts['p_value']:.3f}"
    return figures


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
