"""The messages about a run: its line in the channel, and the replies in its thread."""

from __future__ import annotations

from datetime import datetime, timedelta

from step_contract import paths

from airflow_monitor.messages.block_kit import PHRASE_LENGTH, bold, context, escape, optional_link, section
from airflow_monitor.messages.failures import (
    artifact_links,
    failure_messages,
    format_key_time,
    retry_messages,
    stalled_messages,
)
from airflow_monitor.messages.formatting import (
    Icon,
    find_decision,
    format_details,
    format_summary,
    format_time,
    format_title,
)
from airflow_monitor.messages.message import AirflowUI, Message, MessageThread, Picture
from airflow_monitor.models import DELETED, FINISHED, Run, Thresholds

ACTIVE_STATES = ("running", "deferred", "queued", "scheduled", "up_for_reschedule", "restarting")
PARAGRAPH_LENGTH = 1500
MAX_TASKS_LISTED = 5
MAX_ACTIVE_TASKS_LISTED = 3


def run_thread(run: Run, channel: str, now: datetime, ui: AirflowUI, thresholds: Thresholds) -> MessageThread:
    """Return what `channel` should show about the run at `now`."""
    directory = paths.deliveries(channel, run.dag_id, run.run_id)
    if run.state == DELETED:
        return MessageThread(directory, bold(format_title(run)), _root(run, ui))
    replies = [*retry_messages(run, ui), *_result_messages(run, ui), *_suspect_messages(run)]
    replies += stalled_messages(run, now, ui, thresholds.grace_period)
    replies += [*failure_messages(run, now, ui), *_late_messages(run, now, thresholds.late_after)]
    return MessageThread(directory, bold(format_title(run)), _root(run, ui), replies)


def _root(run: Run, ui: AirflowUI) -> Message:
    icon, status = _format_status(run)
    text = f"{icon} {bold(format_title(run))}  {status}"
    footer = [escape(f"{run.dag_id} · {_format_duration(run)}", PHRASE_LENGTH)]
    footer += [optional_link(ui.run_url(run), "run"), *artifact_links(run, ui)]
    return Message("run", text, (section(text), *context(footer)))


def _format_status(run: Run) -> tuple[Icon, str]:
    """Return the icon and the status of the run's line: its progress or its outcome."""
    decision = find_decision(run.task_instances)
    summaries = [None if ti.has_picture else format_summary(ti.facts) for ti in run.task_instances]
    results = " · ".join(escape(summary, PHRASE_LENGTH) for summary in summaries if summary)
    if run.state == DELETED:
        return Icon.DELETED, "deleted in Airflow before it finished"
    if run.state == "success":
        icon = {"closed": Icon.CLOSED, "suspect": Icon.SUSPECT}.get(decision[0] if decision else "", Icon.SUCCESS)
        return icon, results or "succeeded"
    if run.state == "failed":
        return Icon.FAILED, " · ".join(filter(None, (_format_failed_tasks(run), results)))
    up_for_retry = [ti for ti in run.task_instances if ti.state == "up_for_retry"]
    if up_for_retry:
        ti = up_for_retry[0]
        next_attempt_at = run.next_attempt_at(ti)
        when = f" at {format_time(next_attempt_at, run.session)}" if next_attempt_at else ""
        meanings = [failure.meaning for failure in run.failures if failure.task_id == ti.task_id]
        why = f": {escape(meanings[-1], PHRASE_LENGTH)}" if meanings else ""
        return Icon.WAITING, " · ".join(filter(None, (f"`{ti.name}` will be retried{when}{why}", results)))
    active = [f"`{ti.name}`" for ti in run.task_instances if ti.state in ACTIVE_STATES]
    progress = f"{', '.join(active[:MAX_ACTIVE_TASKS_LISTED])} …" if active else ("started" if run.start_date else "queued")
    return Icon.RUNNING, " · ".join(filter(None, (progress, results)))


def _format_failed_tasks(run: Run) -> str:
    failed = [ti for ti in run.task_instances if ti.state == "failed"]
    if not failed:
        return "failed before its tasks finished"
    meanings = [failure.meaning for failure in run.failures if failure.task_id == failed[0].task_id and not failure.will_retry]
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"`{failed[0].name}`{more} failed: {escape(meanings[-1] if meanings else 'see the thread', PHRASE_LENGTH)}"


def _format_duration(run: Run) -> str:
    if not run.start_date:
        return f"due at {format_time(run.run_after, run.session)}"
    started = f"started at {format_time(run.start_date, run.session)}"
    if not run.end_date or run.state not in FINISHED:
        return started
    seconds = (run.end_date - run.start_date).total_seconds()
    return f"{started}, took {f'{seconds:.0f} s' if seconds < 120 else f'{seconds / 60:.0f} min'}"


def _result_messages(run: Run, ui: AirflowUI) -> list[Message]:
    """Return replies for step results that the run's line does not hold, and for pictures."""
    messages = []
    for ti in run.task_instances:
        details = format_details(ti.facts) if ti.state == "success" else None
        if details:
            paragraph, fields = details
            artifact = optional_link(ui.artifact_url(ti.manifest) if ti.manifest else None, "artifact")
            text = f"`{ti.name}`: {escape(paragraph, PARAGRAPH_LENGTH)}"
            messages.append(Message(f"result.{ti.name}", text, (section(text, fields), *context([artifact]))))
        if ti.manifest and ti.has_picture and ti.state == "success":
            text = f"{escape(format_title(run), PHRASE_LENGTH)}: `{ti.name}`"
            messages.append(Message(f"picture.{ti.name}", text, picture=Picture(f"{ti.name}.png", ti.manifest)))
    return messages


def _suspect_messages(run: Run) -> list[Message]:
    decision = find_decision(run.task_instances)
    if not decision or decision[0] != "suspect":
        return []
    advice = (
        "*What to do:* Check the source. If the exchange closed for a special reason, add the day to `overrides.csv`, deploy, "
        "and clear `decide`. If the bar is only delayed, clear `decide` once it is published."
    )
    text = f"{Icon.SUSPECT} {bold(format_title(run))} is suspect: {escape(decision[1], PARAGRAPH_LENGTH)}"
    return [Message("suspect", text, (section(f"{text}\n{advice}"),), broadcast=True)]


def _late_messages(run: Run, now: datetime, late_after: timedelta) -> list[Message]:
    """Return a reply once the run is late, and edit it if the run then succeeds. A failure has a reply of its own."""
    finished_at = run.end_date if run.state in FINISHED else None
    elapsed = (finished_at or now) - run.expected_start
    if elapsed < late_after or (finished_at and run.state == "failed"):
        return []
    minutes = int(late_after.total_seconds() / 60)
    tense = "had" if finished_at else "has"
    status = f"it {tense} not finished {minutes} min after {format_time(run.expected_start, run.session)}"
    text = f"{Icon.WAITING} {bold(format_title(run))} is late: {status}"
    if finished_at:
        note = f"It finished at {format_time(finished_at, run.session)}."
    else:
        inactive = (*FINISHED, "skipped", "none", "")
        unfinished = [f"`{ti.name}` ({ti.state})" for ti in run.task_instances if ti.state not in inactive]
        note = f"Unfinished tasks: {', '.join(unfinished[:MAX_TASKS_LISTED]) or 'none'}."
        note += " *What to do:* Read the task's log to see what it is waiting for."
    key = f"late.{format_key_time(run.expected_start)}"
    return [Message(key, text, (section(f"{text}\n{note}"),), broadcast=True)]
