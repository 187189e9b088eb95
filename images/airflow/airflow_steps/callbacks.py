"""Callbacks of DAGs and tasks: they record failures, and notify Slack if the monitor, which usually does, is silent."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from step_contract import paths
from step_contract.errors import StepError
from step_contract.store import Store
from step_contract.strict_json import parse_object

from airflow_steps.failure_log import get_shared_store, record_failure, record_run_timeout
from airflow_steps.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)
MAX_HEARTBEAT_AGE = timedelta(minutes=10)
MAX_HEARTBEAT_BYTES = 4096
SLACK_TIMEOUT_SECONDS = 10


def on_task_failure(context: Context) -> None:
    """Record why the task failed."""
    record_failure(context["ti"], context.get("exception"), will_retry=False)


def on_task_retry(context: Context) -> None:
    """Record why an attempt of the task failed that will be retried."""
    record_failure(context["ti"], context.get("exception"), will_retry=True)


def on_run_end(context: Context) -> None:
    """Record a run that timed out, and check the monitor's heartbeat. Never raises."""
    try:
        dag_id, run_id = get_run_key(context)
        # A run that failed because of a task has that task's record.
        if context.get("reason") == "timed_out":
            record_run_timeout(dag_id, run_id)
        settings = Settings.read()
        if settings.monitor_enabled:
            silent_since = get_silent_since(get_shared_store(), datetime.now(UTC))
            if silent_since:
                _notify_slack(settings.slack_channel, dag_id, run_id, silent_since)
    except Exception:
        log.exception("cannot check the monitor's heartbeat or notify Slack")


def get_run_key(context: Context) -> tuple[str, str]:
    """Return DAG id and run id. Airflow does not always pass the run itself to a DAG's callback."""
    run: Any = context.get("dag_run") or SimpleNamespace(dag_id=context["dag"].dag_id, run_id=context["run_id"])
    return run.dag_id, run.run_id


def get_silent_since(store: Store, now: datetime) -> str | None:
    """Return since when the monitor has sent no heartbeat, for a message; None if it is alive."""
    try:
        content = store.read(paths.MONITOR_HEARTBEAT, MAX_HEARTBEAT_BYTES) or b"{}"
        heartbeat = datetime.fromisoformat(parse_object(content, MAX_HEARTBEAT_BYTES)["at"])
        is_silent = now - heartbeat >= MAX_HEARTBEAT_AGE
    except (ValueError, KeyError, TypeError, StepError):
        return "an unknown time (its heartbeat cannot be read)"
    return f"{heartbeat:%Y-%m-%d %H:%M} UTC" if is_silent else None


def _notify_slack(channel: str, dag_id: str, run_id: str, silent_since: str) -> None:
    # Imported here: otherwise every parse of a DAG file would load the provider.
    from airflow.providers.slack.hooks.slack import SlackHook

    text = (
        f":red_circle: The monitor has been silent since {silent_since}, so this channel receives no other messages. "
        f"{dag_id} {run_id} has finished; its state is in Airflow's UI. "
        "*What to do:* Check the monitor's pod: `kubectl get pods --selector component=monitor`."
    )
    SlackHook(slack_conn_id="slack_conn", timeout=SLACK_TIMEOUT_SECONDS, retry_handlers=[]).call(
        "chat.postMessage", json={"channel": channel, "text": text}
    )
