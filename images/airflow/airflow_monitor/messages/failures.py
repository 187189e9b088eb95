"""Replies about a run's failures: attempts that are retried, tasks that failed permanently, tasks that do not start."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from airflow_steps.failure_log import FailureRecord

from airflow_monitor.messages.block_kit import PHRASE_LENGTH, bold, context, escape, optional_link, section
from airflow_monitor.messages.formatting import Icon, format_time, format_title
from airflow_monitor.messages.message import Links, Message
from airflow_monitor.messages.runbook import RunbookSection, find_cause_section, runbook_link
from airflow_monitor.models import QUEUE_TIMEOUT, RECORD_GRACE, Run, TaskInstance

REASON_LENGTH = 700
MAX_TASKS_LISTED = 8
# Failures of one mapped task that are recorded within this time share an alert; an edit of an older alert would notify nobody.
SHARED_ALERT = timedelta(minutes=30)
MAX_REASONS = 3  # of one mapped task: a section has 3,000 characters

NO_REASON = (
    "No failure reason recorded: the worker was killed, or the task was marked failed manually, or its DAG has no failure "
    "callback",
    "Read the task's log and check Airflow's pods; then clear the task.",
)
UNREADABLE_REASON = (
    "The failure reason cannot be read now, as the object store is unavailable; this message will show it later",
    "Read the task's log, and check the object store.",
)


def failure_messages(run: Run, now: datetime, links: Links) -> Iterator[Message]:
    """Yield a reply for each task that failed permanently, even if it was run again since.

    The task instances of a mapped task that fail within SHARED_ALERT share one, with the reasons of the first MAX_REASONS.
    """
    recorded = {(failure.task_id, failure.map_index, failure.try_number) for failure in run.failures if not failure.will_retry}
    failures = [failure for failure in run.failures if not failure.will_retry and failure.task_id]
    for ti in run.task_instances:
        if ti.state == "failed" and (ti.task_id, ti.map_index, ti.try_number) not in recorded:
            if ti.state_since and now - ti.state_since < RECORD_GRACE:
                continue
            explanation = UNREADABLE_REASON if run.failures_unreadable else NO_REASON
            at = (ti.state_since or now).isoformat()
            failures.append(
                FailureRecord(ti.task_id, ti.map_index, ti.try_number, False, "unknown reason", *explanation, None, None, at)
            )
    groups: dict[tuple[str, int], list[FailureRecord]] = {}
    for failure in failures:
        groups.setdefault((failure.task_id, failure.try_number), []).append(failure)
    for group in groups.values():
        for number, shared in enumerate(_split_by_time(group), 1):
            yield _task_failed(run, shared, links, number)
    if run.state == "failed" and not any(ti.state == "failed" for ti in run.task_instances):
        yield _run_failed(run, links)


def _split_by_time(failures: Sequence[FailureRecord]) -> list[list[FailureRecord]]:
    """Return the failures in the order of their time, in groups that each last no longer than SHARED_ALERT."""
    groups: list[list[FailureRecord]] = []
    for failure in sorted(failures, key=_recorded_at):
        if groups and _recorded_at(failure) - _recorded_at(groups[-1][0]) <= SHARED_ALERT:
            groups[-1].append(failure)
        else:
            groups.append([failure])
    return groups


def _recorded_at(failure: FailureRecord) -> datetime:
    return datetime.fromisoformat(failure.recorded_at)


def _task_failed(run: Run, failures: Sequence[FailureRecord], links: Links, number: int) -> Message:
    first = failures[0]
    ti = _find_task_instance(run, first)
    name = ti.name if len(failures) == 1 else f"{ti.task_id} ({len(failures)} mapped tasks)"
    text = f"{Icon.FAILED} {bold(format_title(run))}: `{name}` failed: {escape(first.meaning, PHRASE_LENGTH)}"
    lines = [text, *_reason_and_advice(first)]
    shown = [first]
    for failure in failures[1:]:
        if all((failure.reason, failure.meaning) != (other.reason, other.meaning) for other in shown):
            shown.append(failure)
    for failure in shown[1:MAX_REASONS]:
        other = f"`{_find_task_instance(run, failure).name}` failed: {escape(failure.meaning, PHRASE_LENGTH)}"
        lines += [other, *_reason_and_advice(failure)]
    if len(shown) > 1:
        lines[0] += f" (`{ti.name}`)"
    if len(shown) > MAX_REASONS:
        lines.append(f"_{len(shown) - MAX_REASONS} more with other reasons: see their logs._")
    if ti.try_number > first.try_number or ti.state != "failed":
        lines.append(f"_Current state: {ti.state} (attempt {ti.try_number})._")
    footer = [_format_attempt(first), optional_link(links.log_url(run, ti, first.try_number), "log")]
    footer += [runbook_link(links, find_cause_section(first.meaning)), *artifact_links(run, links)]
    key = f"failure.{first.task_id}.{first.try_number}" + ("" if number == 1 else f".{number}")
    return Message(key, text, (section("\n".join(lines)), *context(footer)), broadcast=True)


def _run_failed(run: Run, links: Links) -> Message:
    """Return the reply for a run that failed although none of its tasks did."""
    reason = "the run failed, though none of its tasks did"
    if any(not failure.task_id for failure in run.failures):
        reason = "the run exceeded its DAG's `dagrun_timeout`"
    elif run.failures_unreadable:
        reason = "the run failed; the reason cannot be read now, as the object store is unavailable"
    text = f"{Icon.FAILED} {bold(format_title(run))}: {reason}"
    unfinished = [f"`{ti.name}` ({ti.state})" for ti in run.task_instances if ti.state not in ("success", "upstream_failed")]
    lines = [
        text,
        f"Unfinished tasks: {', '.join(unfinished[:MAX_TASKS_LISTED]) or 'none'}.",
        "*What to do:* Find out what the first unfinished task was waiting for, then clear it.",
    ]
    key = f"failure.run.{format_key_time(run.end_date)}"
    footer = context([optional_link(links.run_url(run), "run"), runbook_link(links, RunbookSection.RUN_FAILED)])
    return Message(key, text, (section("\n".join(lines)), *footer), broadcast=True)


def retry_messages(run: Run, links: Links) -> Iterator[Message]:
    """Yield a reply for each task and reason that is retried, edited at each attempt; mapped tasks share one.

    The reply is broadcast only if a retry cannot help.
    """
    groups: list[list[FailureRecord]] = []
    for failure in run.failures:
        if not failure.will_retry:
            continue
        group = next((group for group in groups if _continues(group[-1], failure)), None)
        if group:
            group.append(failure)
        else:
            groups.append([failure])
    for group in groups:
        first, last = group[0], group[-1]
        ti, mapped = _find_task_instance(run, last), len({failure.map_index for failure in group})
        is_waiting = ti.state == "up_for_retry" and ti.try_number == last.try_number
        next_attempt_at = run.next_attempt_at(ti)
        when = f" at {format_time(next_attempt_at, run.session)}" if is_waiting and next_attempt_at else ""
        status = f"will be retried{when}" if is_waiting else f"was retried (attempt {ti.try_number}: {ti.state})"
        name = ti.name if mapped == 1 else f"{ti.task_id}` ({mapped} mapped tasks), latest `{ti.name}"
        text = f"{Icon.WAITING} `{name}` {status}: {escape(last.meaning, PHRASE_LENGTH)}"
        body = section("\n".join([text, *_reason_and_advice(last)]))
        log_link = optional_link(links.log_url(run, ti, last.try_number), "log")
        footer = context([_format_attempt(last), log_link, runbook_link(links, find_cause_section(last.meaning))])
        key = f"retry.{first.task_id}.{first.try_number}.{_slug(first.meaning)}"
        yield Message(key, text, (body, *footer), broadcast=any(failure.permanent for failure in group))


def _continues(previous: FailureRecord, failure: FailureRecord) -> bool:
    """Return whether both belong to one series of attempts: the same task and reason, and the count has not restarted."""
    if (previous.task_id, previous.meaning) != (failure.task_id, failure.meaning):
        return False
    return previous.map_index != failure.map_index or failure.attempt is None or failure.attempt > 1


def stalled_messages(run: Run, now: datetime, links: Links, grace_period: timedelta) -> Iterator[Message]:
    """Yield a reply for each task that stalls: its trigger is orphaned for `grace_period`, or it stays queued or scheduled."""
    stalled: dict[tuple[str, str, str], list[TaskInstance]] = {}
    for ti in run.task_instances:
        waited = now - ti.state_since if ti.state_since else timedelta()
        if ti.is_orphaned and ti.state == "deferred" and waited > grace_period:
            reason = "no triggerer is running its trigger"
            advice = "Check the triggerer's pods; the task resumes once a triggerer is running."
        elif ti.state in ("queued", "scheduled") and waited > QUEUE_TIMEOUT:
            reason = f"it has not started ({ti.state})"
            advice = "Check the scheduler, the executor's pods and the pool's free slots."
        else:
            continue
        stalled.setdefault((ti.task_id, reason, advice), []).append(ti)
    for (task_id, reason, advice), task_instances in stalled.items():
        first = min(task_instances, key=lambda ti: ti.state_since or now)
        since = format_time(first.state_since, run.session) if first.state_since else ""
        name = f"`{first.name}`" if len(task_instances) == 1 else f"`{task_id}` ({len(task_instances)} mapped tasks)"
        text = f"{Icon.WAITING} {bold(format_title(run))}: {name} has been waiting since {since}: {reason}"
        footer = context([optional_link(links.run_url(run), "run"), runbook_link(links, RunbookSection.STALLED)])
        blocks = (section(f"{text}\n*What to do:* {advice}"), *footer)
        key = f"stalled.{task_id}.{_slug(reason)}.{first.try_number}"
        yield Message(key, text, blocks, broadcast=True, resolvable=True)


def format_key_time(moment: datetime | None) -> str:
    """Return a time as part of a message key, so that a recurrence at another time is another message."""
    return f"{moment:%Y%m%dT%H%M%S}" if moment else ""


def artifact_links(run: Run, links: Links) -> list[str]:
    """Return links to the run's artifacts."""
    return [optional_link(links.artifact_url(ti.manifest), ti.name) for ti in run.task_instances if ti.manifest]


def _reason_and_advice(failure: FailureRecord) -> list[str]:
    return [f">{escape(failure.reason, REASON_LENGTH)}", f"*What to do:* {escape(failure.advice, REASON_LENGTH)}"]


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]


def _find_task_instance(run: Run, failure: FailureRecord) -> TaskInstance:
    for ti in run.task_instances:
        if (ti.task_id, ti.map_index) == (failure.task_id, failure.map_index):
            return ti
    return TaskInstance(failure.task_id, "removed", failure.try_number, failure.map_index)


def _format_attempt(failure: FailureRecord) -> str:
    if failure.attempt == failure.try_number:
        return f"attempt {failure.try_number} of {failure.max_attempts}"
    return f"attempt {failure.try_number}" + (
        f" ({failure.attempt} of {failure.max_attempts} for this reason)" if failure.attempt else ""
    )
