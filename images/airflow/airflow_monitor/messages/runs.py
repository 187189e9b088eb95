"""The messages about a run: its line in the channel, the replies in its thread, and the sentences for its steps' facts.

A step of your own needs no line here: its fact `summary` is shown in the run's line if it is short, otherwise in the thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from step_contract import paths
from step_contract.facts import (
    DecisionFacts,
    ForecastFacts,
    HeadlinesFacts,
    PricesFacts,
    StepFacts,
    SummaryFacts,
    TrainingFacts,
)
from step_contract.training_days import DEFAULT_TRAINING_DAYS, TASK_ID, is_training_day, parse_training_days

from airflow_monitor.messages.block_kit import PHRASE_LENGTH, bold, context, escape, optional_link, section, sections, truncate
from airflow_monitor.messages.completion import completion_messages, find_decisions
from airflow_monitor.messages.failures import (
    artifact_links,
    failure_messages,
    format_key_time,
    retry_messages,
    stalled_messages,
)
from airflow_monitor.messages.forecasts import FORECAST_TASK_ID, forecast_messages, format_forecast
from airflow_monitor.messages.formatting import Icon, format_time, format_title
from airflow_monitor.messages.message import Links, Message, MessageThread, Picture
from airflow_monitor.messages.runbook import RunbookSection, runbook_link
from airflow_monitor.models import DELETED, FINISHED, Run, TaskInstance, Thresholds

ACTIVE_STATES = ("running", "deferred", "queued", "scheduled", "up_for_reschedule", "restarting")
SUMMARY_LENGTH = 90  # characters of a step's summary in the run's line
PARAGRAPH_LENGTH = 1500
INDEX_LENGTH = 400  # of the line of one of several indexes
MAX_TASKS_LISTED = 5
MAX_ACTIVE_TASKS_LISTED = 3
# Prices and headlines are collected side by side: either may start first.
FIRST_PARTS: tuple[type[StepFacts], ...] = (DecisionFacts, PricesFacts, HeadlinesFacts)


@dataclass(frozen=True)
class RunOptions:
    """How runs are reported: the settings TRAINING_DAYS and COMPLETION_BROADCAST_ENABLED."""

    training_days: Sequence[str] = parse_training_days(DEFAULT_TRAINING_DAYS)
    completion_enabled: bool = True


def run_thread(
    run: Run,
    channel: str,
    now: datetime,
    links: Links,
    thresholds: Thresholds,
    options: RunOptions,
    completed_since: datetime | None = None,
) -> MessageThread:
    """Return what `channel` should show about the run at `now`.

    Args:
        completed_since: a run that finished earlier gets no reply that notifies of its end; None: all finished runs do.
    """
    directory, title = paths.deliveries(channel, run.dag_id, run.run_id), bold(format_title(run))
    icon, status = _format_status(run, options.training_days)
    line = f"{icon} {title}  {status}"
    if run.state == DELETED:
        return MessageThread(directory, title, _root(run, [line], links, []))
    lines = [line, *_format_indexes(run, options.training_days)]
    results = _result_messages(run, links)
    replies = [*retry_messages(run, links), *results, *_suspect_messages(run, links), *forecast_messages(run, links)]
    replies += stalled_messages(run, now, links, thresholds.grace_period)
    replies += [*failure_messages(run, now, links), *_late_messages(run, now, thresholds.get_late_after(run.dag_id), links)]
    pictures = [message.key for message in results if message.picture]
    completion = completion_messages(run, lines, pictures, completed_since) if options.completion_enabled else []
    root = _root(run, lines, links, completion)
    return MessageThread(directory, title, root, replies + completion, is_complete=not run.failures_unreadable)


def _root(run: Run, lines: Sequence[str], links: Links, completion: Sequence[Message]) -> Message:
    footer = [escape(f"{run.dag_id} · {_format_duration(run)}", PHRASE_LENGTH)]
    footer += [optional_link(links.run_url(run), "run"), *artifact_links(run, links)]
    announces = "".join(message.key for message in completion)
    return Message("run", "\n".join(lines), (*sections(lines), *context(footer)), announces=announces)


def _format_status(run: Run, training_days: Sequence[str]) -> tuple[Icon, str]:
    """Return the icon and the status of the run's line: its progress or its outcome, without what `_format_indexes` shows."""
    results = _format_parts(run, _select_common(run), training_days)
    if run.state == DELETED:
        return Icon.DELETED, "deleted in Airflow before it finished"
    if run.state == "success":
        states = {decision.state for decision in find_decisions(run.task_instances)}
        outcome = "suspect" if "suspect" in states else "closed" if states == {"closed"} else "open"
        icons = {"suspect": Icon.SUSPECT, "closed": Icon.CLOSED, "open": Icon.SUCCESS}
        return icons[outcome], results or "succeeded"
    if run.state == "failed":
        return Icon.FAILED, " · ".join(filter(None, (_format_failed_tasks(run), results)))
    up_for_retry = [ti for ti in run.task_instances if ti.state == "up_for_retry"]
    if up_for_retry:
        ti = up_for_retry[0]
        next_attempt_at = run.next_attempt_at(ti)
        when = f" at {format_time(next_attempt_at, run.session)}" if next_attempt_at else ""
        meaning = _find_meaning(run, ti)
        why = f": {escape(meaning, PHRASE_LENGTH)}" if meaning else ""
        return Icon.WAITING, " · ".join(filter(None, (f"`{ti.name}` will be retried{when}{why}", results)))
    active = [f"`{ti.name}`" for ti in run.task_instances if ti.state in ACTIVE_STATES]
    progress = f"{', '.join(active[:MAX_ACTIVE_TASKS_LISTED])} …" if active else ("started" if run.start_date else "queued")
    return Icon.RUNNING, " · ".join(filter(None, (progress, results)))


def _find_indexes(run: Run) -> dict[int, str]:
    """Return the name of each map index that has a line of its own; none in a run of one index."""
    return run.indexes if len(run.indexes) > 1 else {}


def _select_common(run: Run) -> list[TaskInstance]:
    """Return the task instances of the run's own line: those of no index, and one whose answer is the same for all indexes."""
    indexes = _find_indexes(run)
    common = [ti for ti in run.task_instances if ti.map_index not in indexes]
    return common + [ti for ti in run.task_instances if ti.map_index in indexes and ti.task_id == TASK_ID][:1]


def _format_indexes(run: Run, training_days: Sequence[str]) -> list[str]:
    """Return a line for each index of a run of several: what it has failed at, and its results."""
    lines = []
    for map_index, name in _find_indexes(run).items():
        tis = [ti for ti in run.task_instances if ti.map_index == map_index and ti.task_id != TASK_ID]
        failed = [f"{Icon.FAILED} `{ti.task_id}` failed" for ti in tis if ti.state == "failed"]
        parts = " · ".join(filter(None, (*failed, _format_parts(run, tis, training_days))))
        lines.append(truncate(f"{bold(name)}  {parts or '…'}", INDEX_LENGTH))
    return lines


def _format_parts(run: Run, tis: Iterable[TaskInstance], training_days: Sequence[str]) -> str:
    """Return the parts of the tasks that have one, in the order of the pipeline."""
    parts = [_format_part(run, ti, training_days) for ti in sorted(tis, key=_part_number)]
    return " · ".join(escape(part, PHRASE_LENGTH) for part in parts if part)


def _find_meaning(run: Run, ti: TaskInstance) -> str:
    """Return what the latest failure of a task instance means; empty if none is recorded."""
    meanings = [f.meaning for f in run.failures if (f.task_id, f.map_index) == (ti.task_id, ti.map_index)]
    return meanings[-1] if meanings else ""


def _part_number(ti: TaskInstance) -> int:
    """Return the place of a task's part in the run's line; parts with the same number are in the order of their start."""
    return next((n for n, facts in enumerate(FIRST_PARTS) if facts.from_facts(ti.facts)), len(FIRST_PARTS))


def _format_part(run: Run, ti: TaskInstance, training_days: Sequence[str]) -> str | None:
    """Return a task's part of the run's line; None if it has none."""
    if ti.task_id == TASK_ID and run.session:
        return "training day" if is_training_day(run.session, training_days) else "not a training day"
    if ti.task_id == FORECAST_TASK_ID and ti.state == "skipped":
        decisions = find_decisions(other for other in run.task_instances if other.map_index == ti.map_index)
        return "no forecast: too few sessions" if any(decision.state == "open" for decision in decisions) else None
    return None if ti.has_picture else format_summary(ti.facts)


def _format_failed_tasks(run: Run) -> str:
    failed = [ti for ti in run.task_instances if ti.state == "failed"]
    if not failed:
        return "failed before its tasks finished"
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"`{failed[0].name}`{more} failed: {escape(_find_meaning(run, failed[0]) or 'see the thread', PHRASE_LENGTH)}"


def format_summary(facts: Mapping[str, Any]) -> str | None:
    """Return a step's part of the run's line; None if it has nothing short to report."""
    if decision := DecisionFacts.from_facts(facts):
        return None if decision.state == "open" else f"{decision.state}: {decision.reason}"
    if prices := PricesFacts.from_facts(facts):
        change = "" if prices.change is None else f" ({prices.change:+.2%})"
        revised = ", source corrected earlier sessions" if prices.corrected else ""
        return f"closed at {prices.close:,.2f}{change}{revised}"
    if collected := HeadlinesFacts.from_facts(facts):
        return collected.describe()
    if training := TrainingFacts.from_facts(facts):
        return f"model {training.promotion}"
    if forecast := ForecastFacts.from_facts(facts):
        return format_forecast(forecast)
    step = SummaryFacts.from_facts(facts)
    return step.summary if step and 0 < len(step.summary) <= SUMMARY_LENGTH else None


def format_details(facts: Mapping[str, Any]) -> tuple[str, Sequence[str]] | None:
    """Return a step's paragraph and fields for the thread; None if the run's line holds everything."""
    step = SummaryFacts.from_facts(facts)
    summary = step.summary if step else ""
    if training := TrainingFacts.from_facts(facts):
        return summary or training.evaluation, _format_figures(training)
    if (prices := PricesFacts.from_facts(facts)) and prices.corrected:
        return prices.corrected, ()
    if (collected := HeadlinesFacts.from_facts(facts)) and (collected.broken or collected.uncovered):
        return "; ".join(filter(None, (collected.broken_feeds, collected.incomplete_feeds))), ()
    return (summary, ()) if format_summary(facts) is None and len(summary) > SUMMARY_LENGTH else None


def _format_figures(training: TrainingFacts) -> list[str]:
    figures = {
        "Horizon": f"{training.horizon} sessions",
        "Mean absolute error": f"{training.mae:.2%}",
        "Naive forecast's error": f"{training.mae_naive:.2%}",
        "Skill": f"{training.skill:.2%}",
        "p-value": f"{training.p_value:.3f}",
    }
    return [f"*{name}*\n{value}" for name, value in figures.items()]


def _format_duration(run: Run) -> str:
    if not run.start_date:
        return f"due at {format_time(run.run_after, run.session)}"
    started = f"started at {format_time(run.start_date, run.session)}"
    if not run.end_date or run.state not in FINISHED:
        return started
    seconds = (run.end_date - run.start_date).total_seconds()
    return f"{started}, took {f'{seconds:.0f} s' if seconds < 120 else f'{seconds / 60:.0f} min'}"


def _result_messages(run: Run, links: Links) -> list[Message]:
    """Return replies for step results that the run's line does not hold, and for pictures."""
    messages = []
    for ti in run.task_instances:
        details = format_details(ti.facts) if ti.state == "success" else None
        if details:
            paragraph, fields = details
            artifact = optional_link(links.artifact_url(ti.manifest) if ti.manifest else None, "artifact")
            text = f"`{ti.name}`: {escape(paragraph, PARAGRAPH_LENGTH)}"
            messages.append(Message(f"result.{ti.key}", text, (section(text, fields), *context([artifact]))))
        if ti.manifest and ti.has_picture and ti.state == "success":
            text = f"{escape(format_title(run), PHRASE_LENGTH)}: `{ti.name}`"
            # A run that is cleared may make another artifact, whose picture is another message.
            digest = hashlib.sha256(ti.manifest.encode()).hexdigest()[:8]
            file_name = f"{ti.task_id}{f'-{ti.index_name or ti.map_index}' if ti.map_index >= 0 else ''}.png"
            messages.append(Message(f"picture.{ti.key}.{digest}", text, picture=Picture(file_name, ti.manifest)))
    return messages


def _suspect_messages(run: Run, links: Links) -> Iterator[Message]:
    advice = (
        "*What to do:* Check the source. If the exchange closed for a special reason, add the day to `overrides.csv`, deploy, "
        "and clear `decide`. If the bar is only delayed, clear `decide` once it is published."
    )
    for ti in run.task_instances:
        for decision in find_decisions([ti]):
            if decision.state == "suspect":
                reason = escape(decision.reason, PARAGRAPH_LENGTH)
                text = f"{Icon.SUSPECT} {bold(format_title(run, ti))} is suspect: {reason}"
                key = "suspect" if ti.map_index < 0 else f"suspect.{ti.map_index}"
                footer = context([runbook_link(links, RunbookSection.SUSPECT)])
                yield Message(key, text, (section(f"{text}\n{advice}"), *footer), broadcast=True)


def _late_messages(run: Run, now: datetime, late_after: timedelta, links: Links) -> list[Message]:
    """Return a reply once the run is late, and edit it if the run then succeeds. A failure has a reply of its own."""
    finished_at = run.end_date if run.state in FINISHED else None
    elapsed = (finished_at or now) - run.expected_start
    if elapsed < late_after or (finished_at and run.state == "failed"):
        return []
    minutes = int(late_after.total_seconds() / 60)
    tense = "had" if finished_at else "has"
    status = f"it {tense} not finished {minutes} min after {format_time(run.expected_start, run.session)}"
    text = f"{Icon.WAITING} {bold(format_title(run))} is late: {status}"
    footer = context([runbook_link(links, RunbookSection.LATE)])
    if finished_at:
        note = f"It finished at {format_time(finished_at, run.session)}."
    else:
        inactive = (*FINISHED, "skipped", "none", "")
        unfinished = [f"`{ti.name}` ({ti.state})" for ti in run.task_instances if ti.state not in inactive]
        note = f"Unfinished tasks: {', '.join(unfinished[:MAX_TASKS_LISTED]) or 'none'}."
        note += " *What to do:* Read the task's log to see what it is waiting for."
    key = f"late.{format_key_time(run.expected_start)}"
    return [Message(key, text, (section(f"{text}\n{note}"), *footer), broadcast=True)]
