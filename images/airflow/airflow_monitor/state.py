"""The monitor's persistent state in the object store: delivered messages, and the heartbeat that the next monitor resumes from.

Each delivered message has an object of its own, so that a restarted monitor, or a second one, posts nothing twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from urllib.parse import quote, unquote

from step_contract import paths
from step_contract.errors import StepError
from step_contract.store import Store

log = logging.getLogger(__name__)
# Longer than any call to Slack: a message that was claimed and not recorded by then was lost with its monitor.
CLAIM_TIMEOUT = timedelta(minutes=2)
LONG_AGO = "2000-01-01T00:00:00+00:00"
# How far back a message is searched for whose record cannot be read.
SEARCH_PERIOD = timedelta(days=1)


@dataclass(frozen=True)
class Delivery:
    """The record of a delivered message, or a claim on one that is being delivered.

    Attributes:
        channel: Slack's id of the channel.
        ts: Slack's id of the message in the channel; empty for a claim.
        digest: the digest of the message as last delivered.
        text: its notification text as last delivered.
        claimed_at: ISO 8601 with time zone.
        resolvable: the message is marked as resolved once it no longer applies.
        announces: the key of the reply that is omitted, as the message was posted with what that reply would notify of.
    """

    channel: str = ""
    ts: str = ""
    digest: str = ""
    text: str = ""
    claimed_at: str = ""
    resolvable: bool = False
    announces: str = ""

    @property
    def is_claim(self) -> bool:
        """Whether it is not known yet that Slack has the message."""
        return not self.ts

    def is_in_progress(self, now: datetime) -> bool:
        """Return whether the monitor that claimed the message may still be delivering it."""
        return now - datetime.fromisoformat(self.claimed_at) < CLAIM_TIMEOUT

    def to_json(self) -> bytes:
        """Serialize the record."""
        content = asdict(self)
        if not self.announces:
            del content["announces"]  # a monitor of an earlier version rejects a field that it does not know
        return json.dumps(content, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes | None) -> Delivery:
        """Parse a record. A damaged one becomes an expired claim, so that Slack's history is searched for the message."""
        try:
            content = json.loads(data or b"")
            resolvable = content.pop("resolvable", False) is True
            delivery = cls(**content, resolvable=resolvable)
            is_valid = all(isinstance(text, str) for text in content.values())
            if is_valid and datetime.fromisoformat(delivery.claimed_at).tzinfo:
                return delivery
        except (ValueError, TypeError, AttributeError):
            pass
        return cls(claimed_at=LONG_AGO)


class DeliveryLog:
    """The records of delivered messages, by directory and message key.

    Messages are delivered even while the object store is down: records are then kept in memory and written later.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._deliveries: dict[str, dict[str, Delivery]] = {}
        self._unwritten: set[tuple[str, str]] = set()
        self._unread: set[str] = set()

    def get(self, directory: str) -> dict[str, Delivery]:
        """Return the records of `directory` by message key; while it cannot be read, those that this monitor has written."""
        if directory not in self._deliveries:
            self.refresh(directory)
        return self._deliveries[directory]

    def refresh(self, directory: str) -> None:
        """Read the records of `directory`, and add what this monitor has delivered meanwhile."""
        own = self._deliveries.setdefault(directory, {})
        try:
            stored = self._read(directory)
        except StepError as error:
            if directory not in self._unread:
                log.warning("Cannot read delivery records: %s", error)
            self._unread.add(directory)
            return
        self._unread.discard(directory)
        delivered = {key: delivery for key, delivery in own.items() if key not in stored or not delivery.is_claim}
        self._deliveries[directory] = stored | delivered

    def is_readable(self, directory: str) -> bool:
        """Return whether the records of `directory` are complete: otherwise an earlier monitor may have written others."""
        return directory not in self._unread

    def _read(self, directory: str) -> dict[str, Delivery]:
        deliveries = {}
        for name, data in self.store.read_many(self.store.list(directory)).items():
            deliveries[unquote(name.rpartition("/")[2].removesuffix(".json"))] = Delivery.from_json(data)
        return deliveries

    def invalidate(self, directory: str) -> None:
        """Read `directory` again when it is next needed, as another monitor has written there."""
        if directory not in {unwritten for unwritten, _ in self._unwritten}:
            self._deliveries.pop(directory, None)

    def claim(self, directory: str, key: str) -> bool:
        """Claim a message; return False if another monitor has. Atomic unless the object store is down."""
        now = datetime.now(UTC)
        claimed_at = now if self.is_readable(directory) else now - SEARCH_PERIOD
        delivery = Delivery(claimed_at=claimed_at.isoformat(timespec="seconds"))
        try:
            is_claimed = self.store.create(_path(directory, key), delivery.to_json())
        except StepError as error:
            log.warning("Cannot claim a message, delivering it without a claim: %s", error)
            is_claimed = True
        if is_claimed:
            self.get(directory)[key] = delivery
        return is_claimed

    def record(self, directory: str, key: str, delivery: Delivery) -> None:
        """Record that a message was delivered."""
        self.get(directory)[key] = delivery
        self._unwritten.add((directory, key))
        self.flush()

    def flush(self) -> None:
        """Write the records that could not be written before."""
        for directory, key in sorted(self._unwritten):
            try:
                self.store.replace(_path(directory, key), self._deliveries[directory][key].to_json())
            except StepError as error:
                log.warning("Cannot write delivery records, retrying later: %s", error)
                return
            self._unwritten.discard((directory, key))

    def retain(self, directories: set[str]) -> None:
        """Evict all other directories from memory, unless they have unwritten records."""
        needed = directories | {directory for directory, _ in self._unwritten}
        self._deliveries = {directory: records for directory, records in self._deliveries.items() if directory in needed}
        self._unread &= needed


def _path(directory: str, key: str) -> str:
    return f"{directory}/{quote(key, safe='')}.json"


@dataclass(frozen=True)
class MonitorState:
    """What the next monitor resumes from.

    Attributes:
        delivered_until: all changes up to this time were delivered; None if no monitor ran before.
        incidents: the start of each incident that was reported and whose end was not, by incident name.
        last_session: the last session whose prices were collected.
    """

    delivered_until: datetime | None = None
    incidents: Mapping[str, datetime] = field(default_factory=dict)
    last_session: date | None = None

    def to_heartbeat(self, now: datetime, slack_status: str) -> bytes:
        """Serialize the state as the heartbeat of `now`."""
        content = {
            "at": now.isoformat(),
            "slack": slack_status,
            "delivered_until": self.delivered_until and self.delivered_until.isoformat(),
            "incidents": {name: since.isoformat() for name, since in self.incidents.items()},
            "last_session": self.last_session and self.last_session.isoformat(),
        }
        return json.dumps(content).encode()


def load_state(store: Store) -> MonitorState:
    """Return the state in the last heartbeat, or an empty state if that heartbeat does not exist or is damaged.

    Raises the errors of Store.read.
    """
    data = store.read(paths.MONITOR_HEARTBEAT)
    try:
        content = json.loads(data or b"{}")
        incidents = {name: _parse_time(since) for name, since in (content.get("incidents") or {}).items()}
        until, session = content.get("delivered_until"), content.get("last_session")
        return MonitorState(_parse_time(until) if until else None, incidents, date.fromisoformat(session) if session else None)
    except (ValueError, TypeError, AttributeError) as error:
        log.error("Ignoring a damaged heartbeat of the previous monitor: %s: %s", paths.MONITOR_HEARTBEAT, error)
        return MonitorState()


def _parse_time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment
