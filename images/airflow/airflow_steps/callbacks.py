"""Callbacks of DAGs and tasks: they record failures, and notify Slack if the monitor, which usually does, seems to be down."""

from __future__ import annotations

import html
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowNotFoundException
from step_contract import paths
from step_contract.errors import StepError
from step_contract.store import Store
from step_contract.strict_json import parse_object

from airflow_steps.airflow_internals.task_instances import get_run_key, is_run_timeout
from airflow_steps.failure_log import get_shared_store, record_failure, record_run_timeout
from airflow_steps.redaction import redact_text
from airflow_steps.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)
MAX_HEARTBEAT_AGE = timedelta(minutes=10)
MAX_HEARTBEAT_BYTES = 2**16  # it names every reported incident
MAX_REASON_LENGTH = 500
SLACK_TIMEOUT_SECONDS = 10
CONNECTION_ID = "slack_conn"
NO_CONNECTION = f"no connection {CONNECTION_ID}"  # how the monitor's heartbeat says so
NOT_CONNECTED = (
    "The monitor has no connection to Slack, so this channel receives no other messages. *What to do:* Put the connection into "
    "the secret `slack` and restart the monitor; a connection made in Airflow's UI does not reach it."
)
CHECK_MONITOR = "Check the monitor's pod: `kubectl get pods --selector component=monitor`."


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
        if is_run_timeout(context):
            record_run_timeout(dag_id, run_id)
        settings = Settings.read()
        if settings.monitor_enabled:
            problem = check_heartbeat(get_shared_store(), datetime.now(UTC))
            if problem:
                _notify_slack(settings.slack_channel, dag_id, run_id, problem)
    except Exception:
        log.exception("cannot check the monitor's heartbeat or notify Slack")


def check_heartbeat(store: Store, now: datetime) -> str | None:
    """Return what is wrong with the monitor and what to do about it, in mrkdwn; None if it is alive and connected to Slack."""
    try:
        data = store.read(paths.MONITOR_HEARTBEAT, MAX_HEARTBEAT_BYTES)
        if data is None:
            return f"The monitor may be down: it has written no heartbeat. *What to do:* {CHECK_MONITOR}"
        content = parse_object(data, MAX_HEARTBEAT_BYTES)
        heartbeat = datetime.fromisoformat(content["at"])
        is_silent, slack = now - heartbeat >= MAX_HEARTBEAT_AGE, str(content.get("slack"))
    except (ValueError, KeyError, TypeError):
        return _report_unreadable(f"{store.uri(paths.MONITOR_HEARTBEAT)} is invalid")
    except StepError as error:
        return _report_unreadable(html.escape(redact_text(str(error))[:MAX_REASON_LENGTH], quote=False))
    if not is_silent:
        return NOT_CONNECTED if slack.startswith(NO_CONNECTION) else None
    return (
        f"The monitor has been silent since {heartbeat:%Y-%m-%d %H:%M} UTC, so this channel receives no other messages. "
        f"*What to do:* {CHECK_MONITOR}"
    )


def _report_unreadable(reason: str) -> str:
    return (
        f"The monitor may be down: its heartbeat cannot be read ({reason}). "
        f"*What to do:* Check the object store, its credentials and the network. {CHECK_MONITOR}"
    )


def _notify_slack(channel: str, dag_id: str, run_id: str, problem: str) -> None:
    # Imported here: otherwise every parse of a DAG file would load the provider.
    from airflow.providers.slack.hooks.slack import SlackHook

    text = f":red_circle: {problem} (Noticed at the end of run {run_id} of {dag_id}; its state is in Airflow's UI.)"
    hook = SlackHook(slack_conn_id=CONNECTION_ID, timeout=SLACK_TIMEOUT_SECONDS, retry_handlers=[])
    try:
        hook.call("chat.postMessage", json={"channel": channel, "text": text})
    except AirflowNotFoundException as error:
        log.warning("cannot notify Slack, as there is no connection (%s): %s", error, problem)
