"""What a watcher writes down for the one after it: that it is alive, until when all was told, what was wrong then."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from step_contract import paths
from step_contract.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Before:
    """Until when everything was told (None: there was no watcher), the troubles that were told and not over, with when each
    began, and the last session whose prices were seen to be collected."""

    told_until: datetime | None = None
    troubles: Mapping[str, datetime] = field(default_factory=dict)
    collected: date | None = None

    def to_json(self, now: datetime, slack: str) -> bytes:
        """This as it is written down at `now`; `slack` says how Slack is."""
        told = {"at": now.isoformat(), "slack": slack, "told_until": self.told_until and self.told_until.isoformat()}
        troubles = {name: since.isoformat() for name, since in self.troubles.items()}
        return json.dumps(told | {"troubles": troubles, "collected": self.collected and self.collected.isoformat()}).encode()


def read_before(store: Store) -> Before:
    """What the last watcher wrote down; nothing where there was none or it is damaged. Raises as Store.read."""
    data = store.read(paths.MONITOR_HEARTBEAT)
    try:
        told = json.loads(data or b"{}")
        troubles = {name: _moment(since) for name, since in (told.get("troubles") or {}).items()}
        until, collected = told.get("told_until"), told.get("collected")
        return Before(_moment(until) if until else None, troubles, date.fromisoformat(collected) if collected else None)
    except (ValueError, TypeError, AttributeError) as error:
        log.error("what the watcher before this one wrote down is damaged, and passed over: %s", error)
        return Before()


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} names no time zone")
    return moment
