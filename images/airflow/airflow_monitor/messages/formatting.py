"""What a run's message says of its session: words for the facts that steps hand over.

A step of your own is heard of without a line here: what it tells in its fact `told` is shown, briefly in the channel where it
is short, and otherwise in the thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, cast

from airflow.providers.common.compat.sdk import redact

from airflow_monitor.models import SEOUL, Run, Task

DAG = "market_daily"  # the one that a channel is mostly about; others say their name
SHORT = 90  # characters that a step may have in the channel's one line
Facts = Mapping[str, Any]

DONE, CLOSED, SUSPECT, RUNNING, WAITING, FAILED, VANISHED = (
    ":large_green_circle:",
    ":white_circle:",
    ":large_orange_circle:",
    ":large_blue_circle:",
    ":large_yellow_circle:",
    ":red_circle:",
    ":black_circle:",
)


def day(session: date) -> str:
    """The session's date as people say it."""
    return f"{session:%a} {session.day} {session:%b %Y}"


def clock(moment: datetime, beside: date | None = None) -> str:
    """The time of the day in Seoul, with the date where it is another than `beside`."""
    local = moment.astimezone(SEOUL)
    return f"{local:%H:%M}" if local.date() == beside else f"{local:%H:%M} on {day(local.date())}"


def title(run: Run) -> str:
    """What a run is about: its session, or else its DAG with what it was asked."""
    if run.session:
        return day(run.session) if run.dag == DAG else f"{run.dag}, {day(run.session)}"
    conf = cast("dict[str, Any]", redact(dict(run.conf)))
    said = [f"{name} {value}" if isinstance(value, str | int | float) else str(name) for name, value in sorted(conf.items())]
    asked = ", ".join(said) or run.run_id
    return f"{run.dag} ({asked})"


def decision(tasks: Iterable[Task]) -> tuple[str, str] | None:
    """Whether the exchange was open, closed, or that is suspect, and why; None before it is decided."""
    for task in tasks:
        if task.facts.get("state") in ("open", "closed", "suspect"):
            return str(task.facts["state"]), str(task.facts.get("reason", ""))
    return None


def brief(facts: Facts) -> str | None:
    """A step's part of the channel's one line; None where it has nothing short to say."""
    if facts.get("state") == "open":
        return None
    if "state" in facts and "reason" in facts:
        return f"{facts['state']}: {facts['reason']}"
    if _is_number(facts.get("close")) and _is_number(facts.get("change")):
        corrected = ", and the source has corrected sessions before" if "corrected" in facts else ""
        return f"closed at {float(facts['close']):,.2f} ({float(facts['change']):+.2%}){corrected}"
    if "headlines" in facts:
        broken = f" ({facts['broken']} of {facts['feeds']} feeds broken)" if facts.get("broken") else ""
        return f"{facts['headlines']} headlines{broken}"
    if "promotion" in facts:
        return f"model {str(facts['promotion']).split(':')[0].split(',')[0]}"
    told = str(facts.get("summary", ""))
    return told if 0 < len(told) <= SHORT else None


def details(facts: Facts) -> tuple[str, Sequence[str]] | None:
    """What a step says in the thread: a paragraph, and figures as short fields; None where the channel's line says it all."""
    if "promotion" in facts:
        figures = {"Horizon": f"{facts['horizon']} sessions"} if _is_number(facts.get("horizon")) else {}
        for name, words in (("mae", "Off by"), ("mae_naive", "Last close repeated, off by"), ("skill", "Better by")):
            if _is_number(facts.get(name)):
                figures[words] = f"{facts[name]:.2%}"
        if _is_number(facts.get("p_value")):
            figures["p"] = f"{facts['p_value']:.3f}"
        return str(facts.get("summary", "")), [f"*{name}*\n{value}" for name, value in figures.items()]
    if "corrected" in facts:
        return str(facts["corrected"]), ()
    if facts.get("broken"):
        return "; ".join(
            f"{name.removeprefix('broken ')}: {why}" for name, why in facts.items() if name.startswith("broken ")
        ), ()
    told = str(facts.get("summary", ""))
    return (told, ()) if brief(facts) is None and len(told) > SHORT else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
