from __future__ import annotations

from collections.abc import Iterator

import pytest
from slack_sdk import WebClient
from slack_stand_in.server import stand_in
from slack_stand_in.state import StandIn


@pytest.fixture
def slack() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def client(slack: StandIn) -> WebClient:
    return WebClient(token="xoxb-secret", base_url=slack.url, timeout=10, retry_handlers=[])
