"""Decides which incidents have lasted long enough to be reported, and which reported ones are resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from airflow_monitor.messages.block_kit import escape
from airflow_monitor.messages.incidents import Incident, incident_thread
from airflow_monitor.messages.message import MessageThread


class IncidentTracker:
    """Tracks incidents from poll to poll.

    Attributes:
        reported: the start of each incident that was reported and whose end was not, by name. A monitor that starts resumes
            from the previous one's.
    """

    def __init__(self, reported: Mapping[str, datetime]) -> None:
        self.reported = dict(reported)
        self._first_seen: dict[str, datetime] = {}
        self._latest: dict[str, Incident] = {}

    def update(
        self, incidents: Sequence[Incident], channel: str, now: datetime, *, is_complete: bool = True
    ) -> tuple[list[MessageThread], list[str]]:
        """Update the tracker with the incidents of a poll.

        Args:
            is_complete: the poll found every incident there is. Otherwise none that it did not find counts as resolved.

        Returns:
            What `channel` should show, and the names of resolved incidents, to be closed once that is delivered.
        """
        known = {} if is_complete else self._first_seen
        self._first_seen = known | {incident.name: self._first_seen.get(incident.name, now) for incident in incidents}
        self._latest = {name: incident for name, incident in self._latest.items() if name in self.reported}
        self._latest |= {incident.name: incident for incident in incidents}
        for incident in incidents:
            if now - self._first_seen[incident.name] >= incident.grace_period:
                self.reported.setdefault(incident.name, self._first_seen[incident.name])
        resolved = sorted(self.reported.keys() - self._first_seen.keys()) if is_complete else []
        ongoing = [incident for incident in incidents if incident.name in self.reported]
        threads = [incident_thread(incident, self.reported[incident.name], channel, None) for incident in ongoing]
        threads += [incident_thread(self._find(name), self.reported[name], channel, now) for name in resolved]
        return threads, resolved

    def _find(self, name: str) -> Incident:
        """Return the incident as last seen; only its name is known if the previous monitor reported it."""
        return self._latest.get(name) or Incident(name, escape(name, 200), "", timedelta(0))

    def close(self, name: str) -> None:
        """Forget an incident whose end was delivered."""
        self.reported.pop(name, None)
        self._latest.pop(name, None)
