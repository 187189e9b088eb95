from __future__ import annotations

from collections.abc import Iterator

import pytest
from slack_sdk import WebClient
from slack_simulator.server import run_simulator
from slack_simulator.simulator import Simulator


@pytest.fixture
def slack() -> Iterator[Simulator]:
    with run_simulator() as simulator:
        yield simulator


@pytest.fixture
def client(slack: Simulator) -> WebClient:
    return WebClient(token="xoxb-secret", base_url=slack.url, timeout=10, retry_handlers=[])
