"""Reconciles Slack with Airflow: each poll takes a snapshot and delivers the messages that follow from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta

from airflow_steps.airflow_internals.statsd_client import set_gauge
from step_contract import paths
from step_contract.errors import StepError
from step_contract.store import Store

from airflow_monitor.airflow_client import AirflowClient, AirflowUnavailableError
from airflow_monitor.delivery import MessageDelivery
from airflow_monitor.incident_tracker import IncidentTracker
from airflow_monitor.messages.backfills import backfill_thread
from airflow_monitor.messages.incidents import api_incident, dag_incidents, health_incidents, store_incident
from airflow_monitor.messages.message import Links, MessageThread
from airflow_monitor.messages.runs import RunOptions, run_thread
from airflow_monitor.metrics import collect_gauges, latest_session
from airflow_monitor.models import FINISHED, Run, Thresholds
from airflow_monitor.run_tracker import OVERLAP
from airflow_monitor.slack_client import SlackBackoffError, SlackNotConnectedError, SlackUnavailableError
from airflow_monitor.snapshot import Snapshot, SnapshotReader
from airflow_monitor.state import MonitorState, load_state

log = logging.getLogger(__name__)
INITIAL_LOOKBACK = timedelta(minutes=10)
NOT_CONNECTED_LOOKBACK = timedelta(days=1)
# A run that ended longer before what is known to be delivered has only been touched since, as by a note: nobody is notified of
# its end. Longer than it takes to find an end that was committed late.
COMPLETION_LOOKBACK = timedelta(minutes=15)
HEARTBEAT_INTERVAL = timedelta(seconds=60)


class Reconciler:
    """Polls Airflow through `client` and reports to `channel`."""

    def __init__(
        self,
        client: AirflowClient,
        delivery: MessageDelivery,
        store: Store,
        channel: str,
        links: Links,
        thresholds: Thresholds,
        options: RunOptions,
        now: datetime,
    ) -> None:
        self.snapshots, self.delivery, self.store = SnapshotReader(client, store), delivery, store
        self.channel, self.links, self.thresholds, self.options = channel, links, thresholds, options
        # The first monitor ignores the past; a later one resumes where the previous one had delivered everything.
        self.delivered_until, self.incidents = now - INITIAL_LOOKBACK, IncidentTracker({}, links)
        self.last_session: date | None = None
        self.slack_error, self.store_error = "", ""
        self._state_loaded, self._api_was_available = False, False
        self._heartbeat_at, self._saved_incidents = now - HEARTBEAT_INTERVAL, set[str]()
        self._logged: set[tuple[str, str, str]] = set()

    def poll(self, now: datetime) -> None:
        """Take one snapshot and deliver what follows from it. Outages of Airflow, Slack and the store do not raise."""
        self._load_state()
        threads: list[MessageThread] = []
        snapshot = None
        try:
            snapshot = self.snapshots.read(self.delivered_until, now)
            self.thresholds = self.thresholds.with_dags(snapshot.dags)
            incidents = [
                *health_incidents(snapshot.health, self.thresholds.grace_period),
                *dag_incidents(snapshot.dags, busy_dags(snapshot), now, self.thresholds),
            ]
            threads = self._format(snapshot, now)
            self._api_was_available = True
        except AirflowUnavailableError as error:
            incidents = [api_incident(error, self.thresholds.grace_period, self._api_was_available)]
        if self.store_error:
            incidents.append(store_incident(self.store_error))
        incident_threads, resolved = self.incidents.update(incidents, self.channel, now, is_complete=snapshot is not None)
        if self.incidents.reported.keys() != self._saved_incidents:
            # If this monitor is killed while it reports them, the next one must know of them to report their end.
            self.write_heartbeat(now, force=True)
        if self._deliver([*incident_threads, *threads], now) and snapshot:
            for name in resolved:
                self.incidents.close(name)
            self.snapshots.forget(now - OVERLAP)
            self.delivered_until = snapshot.taken_at - OVERLAP
            self.delivery.records.retain({thread.directory for thread in threads})
        if snapshot:
            self.last_session = latest_session(snapshot.runs, self.last_session)
            for name, value in collect_gauges(snapshot, now, self.thresholds, self.last_session):
                set_gauge(name, value)
        self.write_heartbeat(now)

    def _load_state(self) -> None:
        """Resume from the previous monitor's state, as soon as it can be read."""
        if self._state_loaded:
            return
        try:
            state = load_state(self.store)
        except StepError as error:
            log.warning("Cannot read the state of the previous monitor yet: %s", error)
            self.store_error = str(error)
            return
        self._state_loaded = True
        self.delivered_until = state.delivered_until or self.delivered_until
        self.incidents = IncidentTracker({**state.incidents, **self.incidents.reported}, self.links)
        self.last_session = state.last_session

    def _format(self, snapshot: Snapshot, now: datetime) -> list[MessageThread]:
        def make_thread(run: Run) -> MessageThread:
            return run_thread(run, self.channel, now, self.links, self.thresholds, self.options, completed_since)

        threads, completed_since = [], self.delivered_until - COMPLETION_LOOKBACK
        for run in (*snapshot.runs, *snapshot.deleted_runs):
            try:
                threads.append(make_thread(run))
            except Exception:
                # One run with odd data must silence neither the other runs nor itself.
                log.exception("Cannot format the run, omitting its results: dag_id=%s run_id=%s", run.dag_id, run.run_id)
                threads.append(make_thread(without_results(run)))
        completion = self.options.completion_enabled
        return threads + [
            backfill_thread(backfill, self.channel, self.links, completion_enabled=completion)
            for backfill in snapshot.backfills
        ]

    def _deliver(self, threads: Sequence[MessageThread], now: datetime) -> bool:
        """Return whether everything was delivered."""
        is_complete = True
        for thread in threads:
            try:
                is_complete &= self.delivery.deliver(thread) and thread.is_complete
            except SlackNotConnectedError as error:
                self._log_undelivered(threads, str(error))
                # Once a connection is added, the channel receives the last day at most.
                self.delivered_until = max(self.delivered_until, now - NOT_CONNECTED_LOOKBACK)
                self.snapshots.forget(now - NOT_CONNECTED_LOOKBACK)
                return False
            except SlackUnavailableError as error:
                if self.slack_error != str(error) and not isinstance(error, SlackBackoffError):
                    log.warning("Cannot deliver to Slack, retrying: %s", error)
                    self.slack_error = str(error)
                return False
            except Exception:
                log.exception("Cannot deliver a message, retrying: directory=%s", thread.directory)
                is_complete = False
        if threads and self.slack_error:
            log.info("Slack is available again")
            self.slack_error = ""
        return is_complete

    def _log_undelivered(self, threads: Sequence[MessageThread], reason: str) -> None:
        """Log each message that Slack would show, once."""
        self.slack_error = reason
        messages = [
            (thread.directory, message)
            for thread in threads
            for message in (thread.root, *thread.replies)
            if message.key != thread.root.announces
        ]
        for directory, message in messages:
            if (directory, message.key, message.digest) not in self._logged:
                log.info("Not sent to #%s (%s): %s", self.channel, reason, message.text)
        self._logged = {(directory, message.key, message.digest) for directory, message in messages}

    def write_heartbeat(self, now: datetime, *, force: bool = False) -> None:
        """Write the heartbeat, with the state that the next monitor resumes from, once a minute or if forced."""
        if not self._state_loaded or (now - self._heartbeat_at < HEARTBEAT_INTERVAL and not force):
            return
        state = MonitorState(self.delivered_until, self.incidents.reported, self.last_session)
        try:
            self.delivery.records.flush()
            self.store.replace(paths.MONITOR_HEARTBEAT, state.to_heartbeat(now, self.slack_error or "ok"))
            self._heartbeat_at, self._saved_incidents, self.store_error = now, set(state.incidents), ""
        except StepError as error:
            self.store_error = str(error)
            log.warning("Cannot write the heartbeat: %s", error)


def busy_dags(snapshot: Snapshot) -> set[str]:
    """Return the ids of DAGs with an unfinished run."""
    return {run.dag_id for run in snapshot.runs if run.state not in FINISHED} | {
        backfill.dag_id for backfill in snapshot.backfills if {run.state for run in backfill.runs} - set(FINISHED)
    }


def without_results(run: Run) -> Run:
    """Return the run without what steps, callbacks and people have passed to it."""
    task_instances = [replace(ti, facts={}) for ti in run.task_instances]
    return replace(run, conf={}, failures=(), task_instances=task_instances)
