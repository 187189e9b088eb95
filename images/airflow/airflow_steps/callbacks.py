"""Tells Slack that the watcher, which tells it all else, is silent: Airflow looks after it as it looks after Airflow."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from step_contract import paths
from step_contract.errors import StepError
from step_contract.store import CircuitBreakerStore, Store

from airflow_steps.failure_log import note_end, run_of
from airflow_steps.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)
SILENT = timedelta(minutes=10)
TIMEOUT_SECONDS = 10


def at_end(context: Context) -> None:
    """What every run does at its end, well or not: notes why, and sees whether the watcher is alive. Never raises."""
    try:
        note_end(context)
        settings = Settings.read()
        since = silent_since(CircuitBreakerStore(settings.artifacts or ""), datetime.now(UTC)) if settings.watched else None
        if since:
            _tell(settings.slack_channel, *run_of(context), since)
    except Exception:
        log.exception("whether the watcher is alive could not be found out, or not be told")


def silent_since(store: Store, now: datetime) -> str | None:
    """Since when the watcher has not been heard of, in words; None where it is alive."""
    try:
        last = datetime.fromisoformat(json.loads(store.read(paths.MONITOR_HEARTBEAT) or b"{}")["at"])
        is_silent = now - last >= SILENT
    except (ValueError, KeyError, TypeError, StepError):
        return "nobody knows when (what it writes down cannot be read)"
    return None if not is_silent else f"{last:%Y-%m-%d %H:%M} UTC"


def _tell(channel: str, dag: str, run: str, since: str) -> None:
    # Each DAG file's parsing would load it, for a message that is rarely sent.
    from airflow.providers.slack.hooks.slack import SlackHook

    text = (
        f":red_circle: The watcher has been silent since {since}: nothing else is told here. {dag} {run} has ended: look at "
        f"Airflow for how. *Do:* look at its pod: `kubectl get pods --selector component=watcher`."
    )
    SlackHook(slack_conn_id="slack_conn", timeout=TIMEOUT_SECONDS, retry_handlers=[]).call(
        "chat.postMessage", json={"channel": channel, "text": text}
    )
