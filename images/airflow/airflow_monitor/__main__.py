"""The monitor's command line: `python -m airflow_monitor`; with `slack-check` it posts a test message, with `slack-scopes` it
prints what `make doctor` reports about the connection to Slack.

docs/settings.md lists the settings. Exits with 0 on SIGTERM, with 78 if a setting is missing or invalid.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from airflow_steps.settings import Settings, get_int, get_setting
from step_contract.checks.findings import print_findings, run_check
from step_contract.errors import StepError
from step_contract.store import CircuitBreakerStore

from airflow_monitor.airflow_client import AirflowClient
from airflow_monitor.delivery import MessageDelivery
from airflow_monitor.messages.message import Links
from airflow_monitor.messages.runs import RunOptions
from airflow_monitor.models import Thresholds
from airflow_monitor.reconciler import Reconciler
from airflow_monitor.slack_check import check_permissions, check_slack
from airflow_monitor.slack_client import SlackClient
from airflow_monitor.state import DeliveryLog

log = logging.getLogger("airflow_monitor")


class ShutdownRequested(BaseException):
    """The monitor was asked to stop. Not an Exception, so that no error handler catches it."""


def run_monitor(stop: threading.Event) -> None:
    """Poll until `stop` is set. Raises StepError if a setting is missing or invalid."""
    environment, settings = os.environ, Settings.read()
    poll_seconds = get_int(environment, "MONITOR_POLL_SECONDS", 10)
    late_after = timedelta(minutes=get_int(environment, "LATE_MINUTES", 60))
    grace_period = timedelta(seconds=get_int(environment, "MONITOR_GRACE_SECONDS", 120))
    heartbeat_file, heartbeat_url = get_setting(environment, "HEARTBEAT_FILE"), get_setting(environment, "HEARTBEAT_URL")

    def heartbeat() -> None:
        """Show the liveness probe that a poll, however long, makes progress; abort the poll if the monitor is to stop."""
        if heartbeat_file:
            Path(heartbeat_file).touch()
        if stop.is_set():
            raise ShutdownRequested

    client = AirflowClient(
        get_setting(environment, "AIRFLOW_URL"),
        get_setting(environment, "AIRFLOW_USER"),
        get_setting(environment, "AIRFLOW_PASSWORD"),
        heartbeat,
    )
    store = CircuitBreakerStore(settings.artifacts or "")
    slack = SlackClient(settings.slack_channel)
    delivery = MessageDelivery(slack, DeliveryLog(store), heartbeat)
    links = Links(get_setting(environment, "UI_URL") or None, get_setting(environment, "RUNBOOK_URL") or None)
    thresholds = Thresholds(late_after, grace_period)
    options = RunOptions(settings.training_days, settings.completion_broadcast_enabled)
    reconciler = Reconciler(client, delivery, store, settings.slack_channel, links, thresholds, options, datetime.now(UTC))
    url = get_setting(environment, "AIRFLOW_URL")
    log.info("Monitor started: airflow_url=%s poll_seconds=%d channel=#%s", url, poll_seconds, settings.slack_channel)
    slack.check_connection()
    ping = _at_most_every(timedelta(seconds=60), lambda: _request(heartbeat_url)) if heartbeat_url else lambda now: None
    while not stop.is_set():
        now = datetime.now(UTC)
        try:
            reconciler.poll(now)
        except Exception:
            log.exception("The poll failed; polling again in %d s", poll_seconds)
        else:
            heartbeat()
            ping(now)
        stop.wait(poll_seconds)


def _at_most_every(interval: timedelta, function: Callable[[], None]) -> Callable[[datetime], None]:
    last_call: list[datetime] = []

    def call(now: datetime) -> None:
        if not last_call or now - last_call[-1] >= interval:
            last_call[:] = [now]
            function()

    return call


def _request(url: str) -> None:
    """Request the heartbeat URL of a dead man's switch, which alerts when the requests stop."""
    try:
        httpx.get(url, timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        log.warning("The request to HEARTBEAT_URL failed: %s", type(error).__name__)


def main(arguments: list[str]) -> int:
    """Run the monitor, or check the connection to Slack; return the exit code."""
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if arguments == ["slack-check"]:
        return check_slack(Settings.read().slack_channel)
    if arguments == ["slack-scopes"]:
        channel = Settings.read().slack_channel
        list(print_findings(run_check("slack", lambda: check_permissions(channel)), as_json=True))
        return 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        run_monitor(stop)
    except ShutdownRequested:
        return 0
    except StepError as error:
        print(error, file=sys.stderr)
        return int(error.code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
