"""The messages about a run: one in the channel, and in its thread what is worth a reply. Pure functions."""

from __future__ import annotations

from datetime import datetime, timedelta

from step_contract import paths

from airflow_watcher.blocks import BRIEF, bold, context, link_if, safe, section
from airflow_watcher.failures import artifacts, failures, retries, second, unattended
from airflow_watcher.message import Conversation, Limits, Message, Pages
from airflow_watcher.seen import DELETED, ENDED, Run
from airflow_watcher.wording import (
    CLOSED,
    DONE,
    FAILED,
    RUNNING,
    SUSPECT,
    VANISHED,
    WAITING,
    brief,
    clock,
    decision,
    details,
    title,
)

AT = ("running", "deferred", "queued", "scheduled", "up_for_reschedule", "restarting")
LONG = 1500  # characters of a reply's paragraph


def about(run: Run, channel: str, now: datetime, pages: Pages, limits: Limits) -> Conversation:
    """What `channel` should read of `run` by `now`."""
    folder = paths.deliveries(channel, run.dag, run.run_id)
    if run.state == DELETED:
        return Conversation(folder, _root(run, pages))
    replies = [*retries(run, pages), *_steps(run, pages), *_suspect(run), *unattended(run, now, pages, limits.grace)]
    replies += [*failures(run, now, pages), *_late(run, now, limits.late)]
    return Conversation(folder, _root(run, pages), replies)


def _root(run: Run, pages: Pages) -> Message:
    sign, said = _state(run)
    text = f"{sign} {bold(title(run))}  {said}"
    times = f"{run.dag} · {_times(run)}"
    small = [safe(times, BRIEF), link_if(pages.run(run), "run"), *artifacts(run, pages)]
    return Message("run", text, (section(text), *context(small)))


def _state(run: Run) -> tuple[str, str]:
    """A sign and a line: how the run is getting on, or what came of it."""
    decided = decision(run.tasks)
    parts = [safe(part, BRIEF) for task in run.tasks if (part := None if task.picture else brief(task.facts))]
    done = " · ".join(parts)
    if run.state == DELETED:
        return VANISHED, "was deleted in Airflow before it had ended"
    if run.state == "success":
        sign = {"closed": CLOSED, "suspect": SUSPECT}.get(decided[0] if decided else "", DONE)
        return sign, done or "done"
    if run.state == "failed":
        return FAILED, " · ".join(filter(None, (_failed(run), done)))
    again = [task for task in run.tasks if task.state == "up_for_retry"]
    if again:
        next_try = run.next_try(again[0])
        when = f" at {clock(next_try, run.session)}" if next_try else ""
        latest = [note.meaning for note in run.notes if note.task_id == again[0].task_id]
        why = f": {safe(latest[-1], BRIEF)}" if latest else ""
        return WAITING, " · ".join(filter(None, (f"`{again[0].name}` is tried again{when}{why}", done)))
    now_at = [f"`{task.name}`" for task in run.tasks if task.state in AT]
    doing = f"{', '.join(now_at[:3])} …" if now_at else ("started" if run.started else "waits for its turn")
    return RUNNING, " · ".join(filter(None, (doing, done)))


def _failed(run: Run) -> str:
    broken = [task for task in run.tasks if task.state == "failed"]
    if not broken:
        return "ended before its tasks were done"
    reasons = [note.meaning for note in run.notes if note.task_id == broken[0].task_id and not note.will_retry]
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return f"`{broken[0].name}`{more} failed: {safe(reasons[-1] if reasons else 'see the thread', BRIEF)}"


def _times(run: Run) -> str:
    if not run.started:
        return f"due {clock(run.due, run.session)}"
    if not run.ended or run.state not in ENDED:
        return f"since {clock(run.started, run.session)}"
    seconds = (run.ended - run.started).total_seconds()
    took = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"{clock(run.started, run.session)}, {took}"


def _steps(run: Run, pages: Pages) -> list[Message]:
    """What steps have to say that the channel's line does not hold, and their pictures."""
    found = []
    for task in run.tasks:
        told = details(task.facts) if task.state == "success" else None
        if told:
            words, figures = told
            where = link_if(pages.artifact(task.manifest) if task.manifest else None, "artifact")
            text = f"`{task.name}`: {safe(words, LONG)}"
            found.append(Message(f"told.{task.name}", text, (section(text, figures), *context([where]))))
        if task.manifest and task.picture and task.state == "success":
            words = f"{safe(title(run), BRIEF)}: `{task.name}`"
            found.append(Message(f"picture.{task.name}", words, picture=task.manifest))
    return found


def _suspect(run: Run) -> list[Message]:
    decided = decision(run.tasks)
    if not decided or decided[0] != "suspect":
        return []
    advice = (
        "*Do:* look at the source. Was the day a special closure, add a line to `overrides.csv`, deploy, and clear `decide`. "
        "Is the bar only late, clear `decide` once it is there."
    )
    text = f"{SUSPECT} {bold(title(run))} is suspect: {safe(decided[1], LONG)}"
    return [Message("suspect", text, (section(f"{text}\n{advice}"),), broadcast=True)]


def _late(run: Run, now: datetime, late: timedelta) -> list[Message]:
    """A reply once the run has taken too long; it says so when the run has ended well after all. A failure has its own."""
    ended = run.ended if run.state in ENDED else None
    took = (ended or now) - run.since
    if took < late or (ended and run.state == "failed"):
        return []
    minutes = int(late.total_seconds() / 60)
    done = f"{'was' if ended else 'is'} not done {minutes} min after {clock(run.since, run.session)}"
    what = f"{WAITING} {bold(title(run))} is late: it {done}"
    if ended:
        note = f"It ended at {clock(ended, run.session)}."
    else:
        open_tasks = [
            f"`{task.name}` ({task.state})" for task in run.tasks if task.state not in (*ENDED, "skipped", "none", "")
        ]
        note = f"It is at {', '.join(open_tasks[:5]) or 'no task'}. *Do:* read the log of that for what it waits for."
    return [Message(f"late.{second(run.since)}", what, (section(f"{what}\n{note}"),), broadcast=True)]
