"""What Slack is told of an embedded run: by the watcher's own words, into Slack where a connection is given, or onto a page."""

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

from airflow_steps.settings import Settings
from airflow_watcher.ledger import Ledger
from airflow_watcher.message import Limits, Pages
from airflow_watcher.run_messages import about
from airflow_watcher.seen import Run
from airflow_watcher.slack import Slack, Unavailable
from airflow_watcher.telling import Telling
from devtools import slack_connection
from slack_stand_in.page import render_page
from slack_stand_in.server import stand_in
from step_contract.store import Store

log = logging.getLogger(__name__)
CONNECTION = "AIRFLOW_CONN_SLACK_CONN"
LAST_WORDS_SECONDS = 20.0


class Channel:
    """Tells of a run beside it: no step waits for Slack, and what comes while Slack is asked is told together."""

    def __init__(self, slack: Slack, ledger: Ledger) -> None:
        self.telling = Telling(slack, ledger)
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
                    self.telling.tell(about(self._run, self.telling.slack.channel, datetime.now(UTC), Pages(None), Limits()))
            except Unavailable as error:
                log.warning("%s", error)
                if last and time.monotonic() + error.seconds < until:
                    time.sleep(error.seconds)
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
        told = Channel(Slack(name), Ledger(Store(os.environ["ARTIFACTS"])))
        try:
            yield told, f"#{name} in Slack"
        finally:
            told.close()
        return
    with stand_in() as slack, tempfile.TemporaryDirectory() as folder:
        os.environ[CONNECTION] = slack_connection.connection("xoxb-stand-in", slack.url)
        told = Channel(Slack(name, pace=0), Ledger(Store(f"file://{folder}")))
        try:
            yield told, f"{page} (a stand-in for Slack)"
        finally:
            told.close()
            page.write_text(render_page(slack.workspace, name))
