"""The message about a backfill: its progress, its failed runs, and its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from step_contract import paths

from airflow_monitor.messages.block_kit import PHRASE_LENGTH, bold, context, escape, link, section
from airflow_monitor.messages.formatting import Icon, format_date
from airflow_monitor.messages.message import Links, Message, MessageThread
from airflow_monitor.messages.runbook import RunbookSection, runbook_link
from airflow_monitor.models import FINISHED, Backfill, Run

MAX_RUNS_LISTED = 15
REASON_LENGTH = 100


def backfill_thread(backfill: Backfill, channel: str, links: Links, *, completion_enabled: bool = True) -> MessageThread:
    """Return what `channel` should show about the backfill; its failed runs share one broadcast reply.

    A backfill that has finished without a failed run has a reply that notifies of its end, if `completion_enabled`.
    """
    states = Counter(run.state for run in backfill.runs)
    is_finished = backfill.completed_at is not None and not set(states) - set(FINISHED)
    icon = Icon.FAILED if states["failed"] else Icon.SUCCESS if is_finished else Icon.RUNNING
    name = f"Backfill of {backfill.dag_id}, {format_date(backfill.from_date)} to {format_date(backfill.to_date)}"
    counts = [f"{states['success']} of {len(backfill.runs)} succeeded"]
    counts += [f"{states[state]} {state}" for state in ("failed", "running", "queued") if states[state]]
    text = f"{icon} {bold(name)}  {', '.join(counts)}"
    root = Message("run", text, (section(text), *context([f"backfill {backfill.id}"])))
    failed = [run for run in backfill.runs if run.state == "failed"]
    directory = paths.deliveries(channel, backfill.dag_id, f"backfill__{backfill.id}")
    replies = [_failures_message(name, failed, links)] if failed else []
    if is_finished and not failed and completion_enabled:
        root = replace(root, announces="completed")
        replies.append(Message("completed", text, (section(f"{text}, finished"),), broadcast=True))
    return MessageThread(directory, bold(name), root, replies)


def _failures_message(name: str, failed: Sequence[Run], links: Links) -> Message:
    advices = [failure.advice for run in failed for failure in run.failures]
    advice = escape(advices[0] if advices else "Read the logs of the failed runs, then clear them.", PHRASE_LENGTH)
    lines = [f"{Icon.FAILED} {bold(name)}: {len(failed)} failed", f"*What to do:* {advice}"]
    for run in failed[:MAX_RUNS_LISTED]:
        failures = [failure for failure in run.failures if not failure.will_retry]
        reason = f": `{failures[-1].task_id}`: {escape(failures[-1].reason, REASON_LENGTH)}" if failures else ""
        lines.append(f"• {link(links.run_url(run), str(run.session or run.run_id))}{reason}")
    if len(failed) > MAX_RUNS_LISTED:
        lines.append(f"• and {len(failed) - MAX_RUNS_LISTED} more")
    text = "\n".join(lines)
    footer = context([runbook_link(links, RunbookSection.BACKFILL)])
    return Message("failures", text, (section(text), *footer), broadcast=True)
