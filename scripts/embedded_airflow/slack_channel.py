"""Post an embedded run's messages, which the monitor formats: to Slack if a connection is given, otherwise to the simulator."""

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

from airflow_monitor.delivery import MessageDelivery
from airflow_monitor.messages.message import Links
from airflow_monitor.messages.runs import RunOptions, run_thread
from airflow_monitor.models import Run, Thresholds
from airflow_monitor.slack_client import SlackClient, SlackUnavailableError
from airflow_monitor.state import DeliveryLog
from airflow_steps.settings import Settings
from devtools import slack_connection
from slack_simulator.page import render_page
from slack_simulator.server import run_simulator
from step_contract.store import Store

log = logging.getLogger(__name__)
CONNECTION = "AIRFLOW_CONN_SLACK_CONN"
CLOSE_TIMEOUT_SECONDS = 20.0


class Channel:
    """Posts a run's state from a thread, so that no step waits for Slack; only the latest state is posted."""

    def __init__(self, client: SlackClient, records: DeliveryLog, settings: Settings) -> None:
        self.delivery = MessageDelivery(client, records)
        self.options = RunOptions(settings.training_days, settings.completion_broadcast_enabled)
        self._run: Run | None = None
        self._changed, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._post, daemon=True)
        self._thread.start()

    def post(self, run: Run) -> None:
        """Post the state of `run`, without waiting for Slack."""
        self._run = run
        self._changed.set()

    def close(self) -> None:
        """Wait until the last state is posted, at most CLOSE_TIMEOUT_SECONDS."""
        self._closed.set()
        self._changed.set()
        self._thread.join(CLOSE_TIMEOUT_SECONDS)

    def _post(self) -> None:
        deadline = float("inf")
        while True:
            self._changed.wait()
            self._changed.clear()
            last = self._closed.is_set()
            deadline = min(deadline, time.monotonic() + CLOSE_TIMEOUT_SECONDS) if last else deadline
            try:
                if self._run:
                    name, now = self.delivery.client.channel, datetime.now(UTC)
                    self.delivery.deliver(run_thread(self._run, name, now, Links(None), Thresholds(), self.options))
            except SlackUnavailableError as error:
                log.warning("%s", error)
                if last and time.monotonic() + error.retry_after < deadline:
                    time.sleep(error.retry_after)
                    self._changed.set()
                    continue
            except Exception:
                log.exception("cannot post to Slack")
            if last:
                return


@contextmanager
def open_channel(page: Path) -> Iterator[tuple[Channel, str]]:
    """Yield the channel, and where its messages can be read: in Slack, or in the file `page`, written at the end."""
    settings = Settings.read()
    name = settings.slack_channel
    if connection := slack_connection.read_connection():
        os.environ[CONNECTION] = connection
        channel = Channel(SlackClient(name), DeliveryLog(Store(os.environ["ARTIFACTS"])), settings)
        try:
            yield channel, f"#{name} in Slack"
        finally:
            channel.close()
        return
    with run_simulator() as slack, tempfile.TemporaryDirectory() as folder:
        os.environ[CONNECTION] = slack_connection.make_connection(slack_connection.SIMULATOR_TOKEN, slack.url)
        channel = Channel(SlackClient(name, min_interval=0), DeliveryLog(Store(f"file://{folder}")), settings)
        try:
            yield channel, f"{page} (Slack simulator)"
        finally:
            channel.close()
            page.write_text(render_page(slack.workspace, name))
