"""Tells Slack that a task failed or will be tried again, and that a run took too long."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import redact
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_steps.failure import StepFailed
from airflow_steps.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

CONNECTION = "slack_conn"
TIMEOUT_SECONDS = 10
LONGEST = 2000  # characters of a message's reason; a section of Slack's Block Kit holds 3,000
TRIES = 3


def tell_failure(context: Context) -> None:
    """Tells that the task has failed for good."""
    _tell(context, ":x:", "failed")


def tell_retry(context: Context) -> None:
    """Tells that the task will be tried again; of a step, the first time for each cause."""
    failed = context.get("exception")
    if isinstance(failed, StepFailed) and failed.times > 1:
        return
    _tell(context, ":warning:", "will be tried again")


def tell_late(context: Context) -> None:
    """Tells that a run was ended because it took too long; what fails by a task, the task tells."""
    if context.get("reason") == "timed_out":
        run: Any = context["dag_run"]
        what = "took longer than it may and was ended: look at what it waited for, then clear that"
        _send(f":x: *{_safe(run.dag_id)} {_safe(run.run_id)}* {what}")


def _tell(context: Context, sign: str, what: str) -> None:
    this: Any = context["ti"]
    day = context.get("logical_date")
    session = f"{day.astimezone(context['dag'].timezone):%Y-%m-%d} " if day else ""
    why = " ".join(str(redact(str(context.get("exception") or "no reason is known"))).split())
    link = f"<{this.log_url}|log>" if getattr(this, "log_url", "") else ""
    _send(f"{sign} *{session}{_safe(this.task_id)}* {what} (try {this.try_number}): {_safe(why[:LONGEST])} {link}".rstrip())


def _safe(text: str) -> str:
    """`text` as Slack shows it, not as it would read it; see "Formatting text" in its documentation."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _send(text: str) -> None:
    """Sends `text` to the deployment's channel. Never raises: a task ends as it ends, whatever Slack does."""
    # Each DAG file's parsing would load it, for a message that is rarely sent.
    from airflow.providers.slack.hooks.slack import SlackHook
    from slack_sdk.http_retry.builtin_handlers import ConnectionErrorRetryHandler, RateLimitErrorRetryHandler

    channel = Settings.read().slack_channel
    handlers = [RateLimitErrorRetryHandler(max_retry_count=TRIES), ConnectionErrorRetryHandler(max_retry_count=TRIES)]
    try:
        SlackHook(slack_conn_id=CONNECTION, timeout=TIMEOUT_SECONDS, retry_handlers=handlers).call(
            "chat.postMessage", json={"channel": channel, "text": text}
        )
    except AirflowNotFoundException:
        log.info("no connection %s, so not sent to #%s: %s", CONNECTION, channel, text)
    except Exception as error:
        log.error("Slack was not told (%s): %s", type(error).__name__, text)
