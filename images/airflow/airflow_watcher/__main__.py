"""Watches Airflow from outside and tells Slack: `python -m airflow_watcher`; `python -m airflow_watcher slack-test`.

Settings: see docs/settings.md. Ends with 0 when it is asked to stop, with 78 where a setting is missing.
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
from step_contract.errors import StepError
from step_contract.store import CircuitBreakerStore

from airflow_watcher.airflow_api import Airflow
from airflow_watcher.ledger import Ledger
from airflow_watcher.message import Limits, Pages
from airflow_watcher.rounds import Watcher
from airflow_watcher.slack import Slack
from airflow_watcher.slack_test import slack_test
from airflow_watcher.telling import Telling

log = logging.getLogger("airflow_watcher")


class Stopped(BaseException):
    """The watcher is to stop; no handler of faults may take it for one."""


def watch(stopped: threading.Event) -> None:
    """Makes its rounds until `stopped`. Raises StepError where a setting is missing or wrong."""
    environment, settings = os.environ, Settings.read()
    seconds = get_int(environment, "WATCH_SECONDS", 10)
    late, grace = get_int(environment, "LATE_MINUTES", 60), get_int(environment, "WATCH_GRACE_SECONDS", 120)
    limits = Limits(timedelta(minutes=late), timedelta(seconds=grace))
    alive, heartbeat = get_setting(environment, "ALIVE_FILE"), get_setting(environment, "HEARTBEAT_URL")

    def go_on() -> None:
        """Shows that a round, however long, goes on; ends it where the watcher is to stop."""
        if alive:
            Path(alive).touch()
        if stopped.is_set():
            raise Stopped

    airflow = Airflow(
        get_setting(environment, "AIRFLOW_URL"),
        get_setting(environment, "AIRFLOW_USER"),
        get_setting(environment, "AIRFLOW_PASSWORD"),
        go_on,
    )
    store = CircuitBreakerStore(settings.artifacts or "")
    telling = Telling(Slack(settings.slack_channel), Ledger(store), go_on)
    pages = Pages(get_setting(environment, "UI_URL") or None)
    watcher = Watcher(airflow, telling, store, settings.slack_channel, pages, limits, datetime.now(UTC))
    log.info("watching %s each %d s, telling #%s", get_setting(environment, "AIRFLOW_URL"), seconds, settings.slack_channel)
    beat = _every(timedelta(seconds=60), lambda: _ring(heartbeat)) if heartbeat else lambda now: None
    while not stopped.is_set():
        now = datetime.now(UTC)
        try:
            watcher.round(now)
        except Exception:
            log.exception("this round broke off; the next one follows")
        else:
            go_on()
            beat(now)
        stopped.wait(seconds)


def _every(span: timedelta, what: Callable[[], None]) -> Callable[[datetime], None]:
    last: list[datetime] = []

    def call(now: datetime) -> None:
        if not last or now - last[-1] >= span:
            last[:] = [now]
            what()

    return call


def _ring(url: str) -> None:
    """Tells a service outside that the watcher is alive; it raises the alarm when this stays away."""
    try:
        httpx.get(url, timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        log.warning("the heartbeat's address does not answer: %s", type(error).__name__)


def main(arguments: list[str]) -> int:
    """Does what is asked for; returns the exit code."""
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if arguments == ["slack-test"]:
        return slack_test(Settings.read().slack_channel)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    try:
        watch(stopped)
    except Stopped:
        return 0
    except StepError as error:
        print(error, file=sys.stderr)
        return int(error.code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
