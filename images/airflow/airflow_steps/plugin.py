"""The Airflow plugin: it registers the timetables, the links, and the pages that the links lead to."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_steps.links import LINKS, URL_PREFIX
from airflow_steps.timetable import MonthTimetable, SessionTimetable


async def artifact_viewer(scope: Any, receive: Any, send: Any) -> None:
    """Serve the pages (ASGI). They are imported on first use: every worker loads this plugin, and none serves pages."""
    from airflow_steps.artifact_viewer import app

    await app(scope, receive, send)


class MarketDailyPlugin(AirflowPlugin):
    """Registered by the package's entry point."""

    name = "market_daily"
    timetables = [SessionTimetable, MonthTimetable]  # noqa: RUF012 as the base class has it
    operator_extra_links = list(LINKS)  # noqa: RUF012
    fastapi_apps = [{"app": artifact_viewer, "url_prefix": URL_PREFIX, "name": "artifacts"}]  # noqa: RUF012
