"""Incidents of Airflow itself, which no task and no callback can report, and their messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from step_contract import paths

from airflow_monitor.airflow_client import AirflowUnavailableError, DatabaseUnavailableError
from airflow_monitor.messages.block_kit import context, escape, section
from airflow_monitor.messages.formatting import Icon, format_time
from airflow_monitor.messages.message import Links, Message, MessageThread
from airflow_monitor.messages.runbook import RunbookSection, runbook_link
from airflow_monitor.models import (
    IMPORT_ERROR_GRACE,
    SCHEDULING_GRACE,
    STARTUP_GRACE,
    STORE_GRACE,
    Dag,
    Health,
    Thresholds,
)

CHECK_PODS = "Check its pods: `kubectl get pods --namespace …` (on kind: `make kind-status`)."
COMPONENT_ADVICE = {
    "scheduler": f"No run or task starts until it recovers. {CHECK_PODS}",
    "triggerer": f"No step starts or finishes until it recovers. {CHECK_PODS}",
    "dag_processor": f"Changes of DAGs are not loaded and callbacks do not run until it recovers. {CHECK_PODS}",
}


@dataclass(frozen=True)
class Incident:
    """Something that is wrong with the deployment.

    Attributes:
        name: identifies the incident.
        summary: mrkdwn: what is wrong.
        advice: mrkdwn: the impact if it is not obvious, and what to do.
        grace_period: how long it may last before it is reported.
        runbook: the anchor of its section in the runbook.
    """

    name: str
    summary: str
    advice: str
    grace_period: timedelta
    runbook: RunbookSection = RunbookSection.OVERVIEW


def health_incidents(health: Health, grace_period: timedelta) -> Iterator[Incident]:
    """Yield an incident for each unhealthy component and each DAG file with an import error."""
    for component, (status, heartbeat) in health.components.items():
        if status == "healthy":
            continue
        since = f"; last heartbeat at {format_time(heartbeat)}" if heartbeat else ""
        summary = f"Airflow's {component.replace('_', ' ')} is {status}{since}"
        yield Incident(component, summary, COMPONENT_ADVICE.get(component, CHECK_PODS), grace_period, RunbookSection.COMPONENT)
    for file, error in health.import_errors.items():
        summary = f"`{escape(file, 200)}` cannot be imported: {escape(error, 500)}"
        advice = "Its DAGs keep running as last parsed; a new DAG does not run. Correct the file and deploy."
        yield Incident(f"import_error {file}", summary, advice, IMPORT_ERROR_GRACE, RunbookSection.IMPORT_ERROR)


def dag_incidents(dags: Sequence[Dag], busy: Set[str], now: datetime, thresholds: Thresholds) -> Iterator[Incident]:
    """Yield an incident for each DAG that is stale, paused past its due time, due without a run, or tagged wrongly.

    A DAG in `busy` has an unfinished run, which the next one may have to wait for: then that run is late.
    """
    if not dags:
        advice = "Check that the image contains the DAG files and that the DAG processor, whose log lists them, is healthy."
        yield Incident("no_dags", "Airflow has no DAGs, so nothing runs", advice, STARTUP_GRACE, RunbookSection.DAG)
    for dag in dags:
        name, overdue = f"`{dag.dag_id}`", now - dag.next_run_after if dag.next_run_after else timedelta()
        due = format_time(dag.next_run_after) if dag.next_run_after else ""
        if dag.late_tag_error and not dag.is_stale:
            default = int(thresholds.late_after.total_seconds() / 60)
            summary = f"{name} has {escape(dag.late_tag_error, 300)}, so its runs are late after LATE_MINUTES ({default})"
            advice = "Give it one tag `late:MINUTES`, from 1 to 99999 minutes, such as `late:240`, and deploy."
            yield Incident(f"late_tag {dag.dag_id}", summary, advice, timedelta(0), RunbookSection.LATE_TAG)
        if dag.is_stale:
            advice = "Restore its file and deploy. If it was removed on purpose, delete the DAG in Airflow's UI."
            summary = f"{name} does not run, as no DAG file defines it any more"
            yield Incident(f"stale_dag {dag.dag_id}", summary, advice, thresholds.grace_period, RunbookSection.DAG)
        elif dag.is_paused and overdue > thresholds.get_late_after(dag.dag_id):
            advice = "Unpause it: it catches up on the last week. For earlier days, create a backfill in Airflow's UI."
            summary = f"{name} is paused; a run was due at {due}"
            yield Incident(f"paused_dag {dag.dag_id}", summary, advice, timedelta(0), RunbookSection.DAG)
        elif not dag.is_paused and dag.dag_id not in busy and overdue > SCHEDULING_GRACE:
            advice = "Check the scheduler: once healthy, it creates the run. If it is healthy, trigger the DAG manually."
            summary = f"{name} was due at {due}, but no run was created"
            key = f"missing_run {dag.dag_id} {dag.next_run_after}"
            yield Incident(key, summary, advice, timedelta(0), RunbookSection.MISSING_RUN)


def api_incident(error: AirflowUnavailableError, grace_period: timedelta, was_available: bool) -> Incident:
    """Return the incident of an unavailable API. Without the API, nothing else can be monitored."""
    check = "Check the database, its secret and the network." if isinstance(error, DatabaseUnavailableError) else CHECK_PODS
    advice = f"Running steps continue, but nothing is reported about them. {check}"
    summary = f"Airflow's API is unavailable: {escape(str(error), 300)}"
    return Incident("api", summary, advice, grace_period if was_available else STARTUP_GRACE, RunbookSection.API)


def store_incident(error: str) -> Incident:
    """Return the incident of an object store that the monitor can neither read nor write."""
    summary = f"The object store is unavailable: {escape(error, 300)}"
    advice = "Steps fail and are retried until it is available. Check its server, its credentials and the network."
    return Incident("object_store", summary, advice, STORE_GRACE, RunbookSection.OBJECT_STORE)


def incident_thread(
    incident: Incident, since: datetime, channel: str, resolved_at: datetime | None, links: Links
) -> MessageThread:
    """Return what `channel` should show about an incident that began at `since`."""
    directory = paths.deliveries(channel, "airflow", f"{incident.name} {since.isoformat()}")
    if resolved_at:
        text = f"{Icon.RESOLVED} Resolved at {format_time(resolved_at)}: {incident.summary}"
        return MessageThread(directory, incident.summary, Message("incident", text, (section(text),)))
    text = f"{Icon.FAILED} {incident.summary}"
    footer = context([runbook_link(links, incident.runbook)])
    root = Message("incident", text, (section(f"{text}\n*What to do:* {incident.advice}"), *footer))
    return MessageThread(directory, incident.summary, root)
