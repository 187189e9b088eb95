"""Decides which incidents have lasted long enough to be reported, and which reported ones are resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from airflow_monitor.messages.block_kit import escape
from airflow_monitor.messages.incidents import Incident, incident_thread
from airflow_monitor.messages.message import Links, MessageThread
from airflow_monitor.models import RECOVERY_PERIOD


class IncidentTracker:
    """Tracks incidents from poll to poll.

    Attributes:
        reported: the start of each incident that was reported and whose end was not, by name. A monitor that starts resumes
            from the previous one's.
    """

    def __init__(self, reported: Mapping[str, datetime], links: Links) -> None:
        self.reported, self._links = dict(reported), links
        self._first_seen: dict[str, datetime] = {}
        self._absent_since: dict[str, datetime] = {}
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
        found = {incident.name for incident in incidents}
        if is_complete:
            absent = (self._first_seen.keys() | self.reported.keys()) - found
            self._absent_since = {name: self._absent_since.get(name, now) for name in absent}
        recovered = {name for name, since in self._absent_since.items() if now - since >= RECOVERY_PERIOD}
        # An incident that was not reported yet must last for its grace period without interruption.
        ended = recovered | (self._absent_since.keys() - self.reported.keys())
        self._first_seen = {name: since for name, since in self._first_seen.items() if name not in ended}
        self._latest = {name: incident for name, incident in self._latest.items() if name in self.reported}
        for incident in incidents:
            self._latest[incident.name] = incident
            first_seen = self._first_seen.setdefault(incident.name, now)
            if now - first_seen >= incident.grace_period:
                self.reported.setdefault(incident.name, first_seen)
        resolved = sorted(self.reported.keys() & recovered) if is_complete else []
        ongoing = [incident for incident in incidents if incident.name in self.reported]
        threads = [incident_thread(incident, self.reported[incident.name], channel, None, self._links) for incident in ongoing]
        threads += [
            incident_thread(self._find(name), self.reported[name], channel, self._absent_since[name], self._links)
            for name in resolved
        ]
        return threads, resolved

    def _find(self, name: str) -> Incident:
        """Return the incident as last seen; only its name is known if the previous monitor reported it."""
        return self._latest.get(name) or Incident(name, escape(name, 200), "", timedelta(0))

    def close(self, name: str) -> None:
        """Forget an incident whose end was delivered."""
        self.reported.pop(name, None)
        self._latest.pop(name, None)
