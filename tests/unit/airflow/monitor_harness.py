"""A monitor behind the real slack_sdk, with servers for Slack and for Airflow's API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from airflow_monitor.airflow_client import AirflowClient
from airflow_monitor.delivery import MessageDelivery
from airflow_monitor.messages.message import Links
from airflow_monitor.messages.runs import RunOptions
from airflow_monitor.models import Thresholds
from airflow_monitor.reconciler import Reconciler
from airflow_monitor.slack_client import SlackClient
from airflow_monitor.state import DeliveryLog
from airflow_steps.failure_log import FailureRecord
from slack_simulator.simulator import Simulator
from slack_simulator.workspace import Message
from step_contract import paths
from step_contract.facts import DecisionFacts, ForecastFacts, PricesFacts, SummaryFacts
from step_contract.store import Store

from .fake_airflow_api import FakeAirflowApi, serve_airflow_api, utc

SIX_PM = utc("2026-01-15 09:00")  # in Seoul
RUN_ID = "session__2026-01-15"
REASON = "a session of the XKRX calendar"
OPEN = DecisionFacts("open", REASON, "2026-01-15").to_facts() | SummaryFacts(f"open: {REASON}", 0).to_facts()
FORECAST = ForecastFacts(
    session="2026-01-15",
    last_close=4797.55,
    source="baseline: naive",
    interval=0.8,
    next_low=4718.6,
    next_middle=4797.55,
    next_high=4877.4,
    horizon=5,
    low=4610.0,
    middle=4797.55,
    high=4990.0,
)
PRICES = PricesFacts("2026-01-15", 4797.55, 0.0159).to_facts() | SummaryFacts("KS11 closed at 4797.55", 1).to_facts()


class MonitorHarness:
    """A monitor and its surroundings; `restart` replaces it with one that has only the persistent state."""

    def __init__(self, airflow: FakeAirflowApi, slack: Simulator, store: Store) -> None:
        self.airflow, self.slack, self.store = airflow, slack, store
        self.options, self.runbook = RunOptions(), ""
        self.restart(SIX_PM)

    def restart(self, now: datetime, channel: str = "workflows") -> None:
        delivery = MessageDelivery(SlackClient(channel, min_interval=0), DeliveryLog(self.store))
        client, links = AirflowClient(self.airflow.url, "monitor", "secret"), Links("https://airflow.example", self.runbook)
        self.reconciler = Reconciler(client, delivery, self.store, channel, links, Thresholds(), self.options, now)

    def poll(self, now: datetime = SIX_PM, airflow_now: datetime | None = None) -> None:
        """Poll; the clock of Airflow shows `airflow_now` if it differs."""
        self.airflow.now = airflow_now or now
        self.reconciler.delivery.client._blocked_until = 0.0  # as if the backoff were over
        self.reconciler.poll(now)

    def record_failure(
        self,
        task_id: str,
        try_number: int = 1,
        *,
        will_retry: bool = False,
        reason: str = "it broke",
        map_index: int = -1,
        **more: object,
    ) -> None:
        fields = {
            "meaning": "invalid data",
            "advice": "Check it.",
            "attempt": 1,
            "max_attempts": 1,
            "recorded_at": SIX_PM.isoformat(),
        } | more
        failure = FailureRecord(task_id, map_index, try_number, will_retry, reason=reason, **fields)  # type: ignore[arg-type]
        self.store.create(paths.failure("market_daily", RUN_ID, task_id, map_index, try_number), failure.to_json())

    def expire_claims(self) -> None:
        """Make every claim so old that no monitor can still be delivering its message."""
        names = self.store.list(paths.channel_deliveries("workflows"))
        assert names
        for name in names:
            delivery = json.loads(self.store.read(name) or b"")
            self.store.replace(name, json.dumps(delivery | {"claimed_at": "2026-01-01T00:00:00+00:00"}).encode())

    def channel(self) -> list[Message]:
        """Return what the channel shows: root messages and broadcast replies."""
        return self.slack.channel("workflows")

    def first_lines(self) -> list[str]:
        """Return the first line of each message that the channel shows."""
        return [message.text.splitlines()[0] for message in self.channel()]

    def run_lines(self) -> list[str]:
        """Return the first line of each message in the channel that is not a reply."""
        return [message.text.splitlines()[0] for message in self.channel() if not message.is_reply]

    def messages(self) -> list[Message]:
        """Return every message, replies included."""
        return [message for channel in self.slack.workspace.messages.values() for message in channel.values()]

    def replies(self) -> list[str]:
        """Return the texts of all replies."""
        return [message.text for message in self.messages() if message.is_reply]

    def broadcasts(self) -> list[Message]:
        """Return the replies that the channel shows too."""
        return [message for message in self.messages() if message.broadcast]

    def completions(self) -> list[Message]:
        """Return the replies that notify of a run's end."""
        return [message for message in self.broadcasts() if "/completed" in message.metadata["event_payload"]["id"]]

    def alerts(self) -> list[Message]:
        """Return the other replies that the channel shows too."""
        completions = self.completions()
        return [message for message in self.broadcasts() if message not in completions]


@pytest.fixture
def monitor(tmp_path: Path, slack: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[MonitorHarness]:
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    with serve_airflow_api() as airflow:
        yield MonitorHarness(airflow, slack, Store(f"file://{tmp_path}/artifacts"))


def add_session_run(airflow: FakeAirflowApi, *, state: str = "running") -> None:
    """Add the run of an open session, with its first task done."""
    airflow.add_run(RUN_ID, state, at=SIX_PM)
    airflow.add_task(RUN_ID, "decide", "success", at=SIX_PM)
    airflow.add_result(RUN_ID, "decide", OPEN, "file:///x/decisions/manifest.json")
