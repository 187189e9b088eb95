"""Report an embedded run to Slack with the messages of the monitor, or to a page if there is no connection to Slack."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import slack_connection
from airflow_monitor.delivery import MessageDelivery
from airflow_monitor.messages.message import AirflowUI
from airflow_monitor.messages.runs import run_thread
from airflow_monitor.models import Run, Thresholds
from airflow_monitor.slack_client import SlackClient, SlackUnavailableError
from airflow_monitor.state import DeliveryLog
from airflow_steps.settings import Settings
from slack_simulator.page import render_page
from slack_simulator.server import run_simulator
from step_contract.store import Store

log = logging.getLogger(__name__)
CONNECTION = "AIRFLOW_CONN_SLACK_CONN"
LAST_WORDS_SECONDS = 20.0


class Channel:
    """Tells of a run beside it: no step waits for Slack, and what comes while Slack is asked is told together."""

    def __init__(self, client: SlackClient, records: DeliveryLog) -> None:
        self.delivery = MessageDelivery(client, records)
        self._run: Run | None = None
        self._changed, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        self._thread.start()

    def show(self, run: Run) -> None:
        """Lets the channel read of `run` as it is now."""
        self._run = run
        self._changed.set()

    def close(self) -> None:
        """Waits, within a bound, until the last of it was told."""
        self._ended.set()
        self._changed.set()
        self._thread.join(LAST_WORDS_SECONDS)

    def _tell(self) -> None:
        until = float("inf")
        while True:
            self._changed.wait()
            self._changed.clear()
            last = self._ended.is_set()
            until = min(until, time.monotonic() + LAST_WORDS_SECONDS) if last else until
            try:
                if self._run:
                    name, now = self.delivery.client.channel, datetime.now(UTC)
                    self.delivery.deliver(run_thread(self._run, name, now, AirflowUI(None), Thresholds()))
            except SlackUnavailableError as error:
                log.warning("%s", error)
                if last and time.monotonic() + error.retry_after < until:
                    time.sleep(error.retry_after)
                    self._changed.set()
                    continue
            except Exception:
                log.exception("Slack could not be told")
            if last:
                return


@contextmanager
def channel(page: Path) -> Iterator[tuple[Channel, str]]:
    """The channel, and where a person reads what it was told: Slack itself, or the file `page`, written at the end."""
    name = Settings.read().slack_channel
    if connection := slack_connection.given():
        os.environ[CONNECTION] = connection
        told = Channel(SlackClient(name), DeliveryLog(Store(os.environ["ARTIFACTS"])))
        try:
            yield told, f"#{name} in Slack"
        finally:
            told.close()
        return
    with run_simulator() as slack, tempfile.TemporaryDirectory() as folder:
        os.environ[CONNECTION] = slack_connection.connection("xoxb-simulator", slack.url)
        told = Channel(SlackClient(name, min_interval=0), DeliveryLog(Store(f"file://{folder}")))
        try:
            yield told, f"{page} (Slack simulator)"
        finally:
            told.close()
            page.write_text(render_page(slack.workspace, name))
