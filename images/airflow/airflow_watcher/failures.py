"""The replies about what failed in a run: what will be tried again, what has failed for good, what nobody runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from airflow_steps.failure_log import FailureRecord

from airflow_watcher.blocks import BRIEF, bold, context, link_if, safe, section
from airflow_watcher.message import Message, Pages
from airflow_watcher.seen import Run, Task
from airflow_watcher.wording import FAILED, WAITING, clock, title

REASON = 700
# A callback writes its note a moment after the task's state, and half a minute when another component has to run it.
NOTE_GRACE = timedelta(seconds=40)
NOT_STARTED = timedelta(minutes=10)

SILENT = (
    "nobody noted why: what ran it was killed, or it was marked so by hand, or its DAG has no callback that notes it",
    "Read its log as far as it goes, and look at the pods of Airflow; then clear the task.",
)


def failures(run: Run, now: datetime, pages: Pages) -> Iterator[Message]:
    """A reply to each task that has failed for good, whether or not it was run again since; mapped ones in one."""
    told = {(note.task_id, note.map_index, note.try_number) for note in run.notes if not note.will_retry}
    notes = [note for note in run.notes if not note.will_retry and note.task_id]
    for task in run.tasks:
        if task.state == "failed" and (task.task_id, task.map_index, task.number) not in told:
            if task.since and now - task.since < NOTE_GRACE:
                continue
            notes.append(FailureRecord(task.task_id, task.map_index, task.number, False, "it failed", *SILENT, None, None, ""))
    groups: dict[tuple[str, int], list[FailureRecord]] = {}
    for note in notes:
        groups.setdefault((note.task_id, note.try_number), []).append(note)
    for same in groups.values():
        yield _failure(run, same, pages)
    if run.state == "failed" and not any(task.state == "failed" for task in run.tasks):
        yield _ended(run, pages)


def _failure(run: Run, notes: Sequence[FailureRecord], pages: Pages) -> Message:
    first = notes[0]
    task = _task(run, first)
    name = task.name if len(notes) == 1 else f"{task.task_id} ({len(notes)} mapped tasks)"
    text = f"{FAILED} {bold(title(run))}: `{name}` failed: {safe(first.meaning, BRIEF)}"
    lines = [text, f">{safe(first.reason, REASON)}", f"*Do:* {safe(first.advice, REASON)}"]
    if task.number > first.try_number or task.state != "failed":
        lines.append(f"_Since then: try {task.number}, {task.state}._")
    small = [_count(first), link_if(pages.log(run, task, first.try_number), "log"), *artifacts(run, pages)]
    return Message(
        f"failed.{first.task_id}.{first.try_number}", text, (section("\n".join(lines)), *context(small)), broadcast=True
    )


def _ended(run: Run, pages: Pages) -> Message:
    timed_out = any(not note.task_id for note in run.notes)
    why = "it took longer than it may (its DAG's `dagrun_timeout`)" if timed_out else "it was ended, though no task failed"
    text = f"{FAILED} {bold(title(run))}: {why}"
    waited = [f"`{task.name}` ({task.state})" for task in run.tasks if task.state not in ("success", "upstream_failed")]
    lines = [text, f"Not done: {', '.join(waited[:8]) or 'nothing'}.", "*Do:* see what it waited for, then clear that task."]
    key = f"failed.run.{second(run.ended)}"
    return Message(key, text, (section("\n".join(lines)), *context([link_if(pages.run(run), "run")])), broadcast=True)


def retries(run: Run, pages: Pages) -> Iterator[Message]:
    """A reply to each cause at which a task is tried again, brought up to date from try to try. Mapped ones in one.

    It is quiet but where another try gives the same.
    """
    groups: list[list[FailureRecord]] = []
    for note in run.notes:
        if not note.will_retry:
            continue
        before = next((one for one in groups if _same(one[-1], note)), None)
        if before:
            before.append(note)
        else:
            groups.append([note])
    for same in groups:
        first, last = same[0], same[-1]
        task, mapped = _task(run, last), len({note.map_index for note in same})
        waits = task.state == "up_for_retry" and task.number == last.try_number
        next_try = run.next_try(task)
        when = f" at {clock(next_try, run.session)}" if waits and next_try else ""
        what = f"is tried again{when}" if waits else f"was tried again: try {task.number}, {task.state}"
        name = task.name if mapped == 1 else f"{task.task_id}` ({mapped} mapped tasks), lately `{task.name}"
        text = f"{WAITING} `{name}`: {safe(last.meaning, BRIEF)}; it {what}"
        lines = [text, f">{safe(last.reason, REASON)}", f"*Do:* {safe(last.advice, REASON)}"]
        small = [_count(last), link_if(pages.log(run, task, last.try_number), "log")]
        key = f"again.{first.task_id}.{first.try_number}.{_slug(first.meaning)}"
        yield Message(key, text, (section("\n".join(lines)), *context(small)), broadcast=any(note.permanent for note in same))


def _same(before: FailureRecord, now: FailureRecord) -> bool:
    """Whether a note belongs to one row of tries: the same task, the same cause, and no first time again."""
    if (before.task_id, before.meaning) != (now.task_id, now.meaning):
        return False
    return before.map_index != now.map_index or now.attempt is None or now.attempt > 1


def unattended(run: Run, now: datetime, pages: Pages, grace: timedelta) -> Iterator[Message]:
    """A reply to each task that nobody runs: for longer than `grace` no triggerer has its trigger, or nothing takes it up."""
    waiting: dict[tuple[str, str, str], list[Task]] = {}
    for task in run.tasks:
        waited = now - task.since if task.since else timedelta()
        if task.unattended and task.state == "deferred" and waited > grace:
            why, advice = (
                "no triggerer runs its trigger",
                "look at the triggerer's pods; once one runs, the task goes on by itself.",
            )
        elif task.state in ("queued", "scheduled") and waited > NOT_STARTED:
            why, advice = (
                f"nothing has taken it up ({task.state})",
                "look at the scheduler, the executor's pods and the pool's slots.",
            )
        else:
            continue
        waiting.setdefault((task.task_id, why, advice), []).append(task)
    for (name, why, advice), tasks in waiting.items():
        first = min(tasks, key=lambda task: task.since or now)
        since = clock(first.since, run.session) if first.since else ""
        which = f"`{first.name}`" if len(tasks) == 1 else f"`{name}` ({len(tasks)} mapped tasks)"
        text = f"{WAITING} {bold(title(run))}: {which} waits since {since}: {why}"
        blocks = (section(f"{text}\n*Do:* {advice}"), *context([link_if(pages.run(run), "run")]))
        yield Message(f"waits.{name}.{_slug(why)}.{first.number}", text, blocks, broadcast=True)


def second(moment: datetime | None) -> str:
    """A moment as part of a key: what comes again at another time is another message."""
    return f"{moment:%Y%m%dT%H%M%S}" if moment else ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]


def _task(run: Run, note: FailureRecord) -> Task:
    found = [task for task in run.tasks if (task.task_id, task.map_index) == (note.task_id, note.map_index)]
    return found[0] if found else Task(note.task_id, "removed", note.try_number, note.map_index)


def _count(note: FailureRecord) -> str:
    if note.attempt == note.try_number:
        return f"try {note.try_number} of {note.max_attempts}"
    return f"try {note.try_number}" + (f", {note.attempt} of {note.max_attempts} by this cause" if note.attempt else "")


def artifacts(run: Run, pages: Pages) -> list[str]:
    """Links to what the run has made."""
    return [link_if(pages.artifact(task.manifest), task.name) for task in run.tasks if task.manifest]
