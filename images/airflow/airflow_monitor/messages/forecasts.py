"""The forecast in a run's line, and the alerts that follow from it: docs/decisions/0032-forecasts-issued-daily.md."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

from step_contract.facts import ForecastFacts

from airflow_monitor.messages.block_kit import bold, context, escape, optional_link, section
from airflow_monitor.messages.formatting import Icon, format_date, format_title
from airflow_monitor.messages.message import Links, Message
from airflow_monitor.messages.runbook import RunbookSection, runbook_link
from airflow_monitor.models import Run

FORECAST_TASK_ID = "forecast"
DETAILS_LENGTH = 1500


def format_forecast(facts: ForecastFacts) -> str:
    """Return the session's forecast and what became of the previous one, for the run's line."""
    try:
        session, previous = date.fromisoformat(facts.session), date.fromisoformat(facts.previous_session)
        day = "yesterday" if session - previous == timedelta(days=1) else format_date(previous)
        outcome = f" · {day}: {described}" if (described := facts.describe_previous()) else ""
    except ValueError:  # none was issued
        outcome = ""
    title = "forecast" if facts.is_issued else "remade forecast, not the one issued:"
    return f"{title} {facts.describe_next()}{outcome}"


def forecast_messages(run: Run, links: Links) -> Iterator[Message]:
    """Yield an alert if the forecasts have begun to drift, and one if the current model has become unusable.

    The step sets these facts on the first evening only, so that the following ones do not repeat the alert. A forecast that was
    remade says nothing about what was issued, and raises none.
    """
    for ti in run.task_instances:
        facts = ForecastFacts.from_facts(ti.facts) if ti.state == "success" else None
        if not facts or not facts.is_issued:
            continue
        alerts = {"drift": ("the forecasts are drifting", facts.drift, facts.advice, RunbookSection.DRIFT)}
        if facts.alerts_problem:
            advice = "Restore the model, train again, or roll it back. Until then, a baseline replaces it."
            alerts["model"] = ("the current model cannot be used", facts.problem, advice, RunbookSection.MODEL_UNUSABLE)
        artifact = optional_link(links.artifact_url(ti.manifest) if ti.manifest else None, "artifact")
        for key, (title, reason, advice, anchor) in alerts.items():
            if reason:
                text = f"{Icon.SUSPECT} {bold(format_title(run, ti))}: {title}"
                details = f">{escape(reason, DETAILS_LENGTH)}\n*What to do:* {escape(advice, DETAILS_LENGTH)}"
                footer = context([artifact, runbook_link(links, anchor)])
                yield Message(f"{key}.{ti.key}", text, (section(f"{text}\n{details}"), *footer), broadcast=True)
