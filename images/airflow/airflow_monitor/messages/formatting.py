"""Icons, dates and titles of messages."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Any, cast

from airflow_steps.airflow_internals.task_log import redact_secrets
from step_contract.schemas import MARKET_TIME_ZONE

from airflow_monitor.models import Run, TaskInstance

MAIN_DAG = "market_daily"  # titles of other DAGs' runs begin with the DAG's id


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


def format_title(run: Run, ti: TaskInstance | None = None) -> str:
    """Return the run's session, or the DAG with the run's configuration or id; with `ti`, also the name of its map index."""
    if ti and ti.index_name:
        return f"{format_title(run)}, {ti.index_name}"
    if run.session:
        return format_date(run.session) if run.dag_id == MAIN_DAG else f"{run.dag_id}, {format_date(run.session)}"
    conf = cast("dict[str, Any]", redact_secrets(dict(run.conf)))
    options = [f"{name} {value}" if isinstance(value, str | int | float) else str(name) for name, value in sorted(conf.items())]
    return f"{run.dag_id} ({', '.join(options) or run.run_id})"
