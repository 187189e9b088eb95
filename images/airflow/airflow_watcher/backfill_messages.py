"""The one message about a backfill: how far it is, and which sessions have failed. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from step_contract import paths

from airflow_watcher.blocks import BRIEF, bold, context, link, safe, section
from airflow_watcher.message import Conversation, Message, Pages
from airflow_watcher.seen import ENDED, Backfill, Run
from airflow_watcher.wording import DONE, FAILED, RUNNING, day

SHOWN = 15  # failed sessions that are named
SHORT = 100


def about(backfill: Backfill, channel: str, pages: Pages) -> Conversation:
    """What `channel` should read of a backfill; its failures are one reply, which the channel shows too."""
    states = Counter(run.state for run in backfill.runs)
    over = backfill.completed is not None and not set(states) - set(ENDED)
    sign = FAILED if states["failed"] else DONE if over else RUNNING
    name = f"Backfill of {backfill.dag}, {day(backfill.first)} to {day(backfill.last)}"
    counts = [f"{states['success']} of {len(backfill.runs)} done"]
    counts += [f"{states[state]} {state}" for state in ("failed", "running", "queued") if states[state]]
    text = f"{sign} {bold(name)}  {', '.join(counts)}"
    root = Message("run", text, (section(text), *context([f"backfill {backfill.id}"])))
    failed = [run for run in backfill.runs if run.state == "failed"]
    folder = paths.deliveries(channel, backfill.dag, f"backfill__{backfill.id}")
    return Conversation(folder, root, [_failures(name, failed, pages)] if failed else [])


def _failures(name: str, failed: Sequence[Run], pages: Pages) -> Message:
    advice = safe(next((note.advice for run in failed for note in run.notes), "Look at their logs, then clear them."), BRIEF)
    lines = [f"{FAILED} {bold(name)}: {len(failed)} failed", f"*Do:* {advice}"]
    for run in failed[:SHOWN]:
        notes = [note for note in run.notes if not note.will_retry]
        why = f": `{notes[-1].task_id}`: {safe(notes[-1].reason, SHORT)}" if notes else ""
        lines.append(f"• {link(pages.run(run), str(run.session or run.run_id))}{why}")
    if len(failed) > SHOWN:
        lines.append(f"• and {len(failed) - SHOWN} more")
    text = "\n".join(lines)
    return Message("failed", text, (section(text),), broadcast=True)
