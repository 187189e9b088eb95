"""The reply that notifies of a run's end: docs/decisions/0029-the-end-of-a-run-is-a-reply.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from step_contract.facts import DecisionFacts

from airflow_monitor.messages.block_kit import sections
from airflow_monitor.messages.failures import format_key_time
from airflow_monitor.messages.message import Message
from airflow_monitor.models import Run, TaskInstance

MAX_IMAGES = 5


def completion_messages(
    run: Run, lines: Sequence[str], pictures: Sequence[str], completed_since: datetime | None
) -> list[Message]:
    """Return the reply with the run's lines and pictures, as an edit of the run's message notifies nobody; none if it has none.

    A failed run has none, nor a suspect one without a picture, unless another index was open: an alert has notified of it. A
    run that is cleared and succeeds again has another one only if it failed meanwhile.

    Args:
        pictures: keys of the replies with the run's pictures.
        completed_since: a run that finished earlier has none; None: every run that succeeded has.
    """
    states = {decision.state for decision in find_decisions(run.task_instances)}
    is_suspect = "suspect" in states and "open" not in states
    if run.state != "success" or run.end_date is None or (is_suspect and not pictures):
        return []
    # The latest failure is part of the key, so the reply waits until the failures can be read.
    if run.failures_unreadable or (completed_since and run.end_date < completed_since):
        return []
    failed_at = [datetime.fromisoformat(failure.recorded_at) for failure in run.failures if not failure.will_retry]
    latest = max((moment for moment in failed_at if moment <= run.end_date), default=None)
    key = f"completed.{format_key_time(latest)}" if latest else "completed"
    return [Message(key, "\n".join(lines), tuple(sections(lines)), broadcast=True, images=pictures[:MAX_IMAGES])]


def find_decisions(task_instances: Iterable[TaskInstance]) -> list[DecisionFacts]:
    """Return whether the exchange is open, closed or suspect, and why: one for each index that has decided."""
    decisions = (DecisionFacts.from_facts(ti.facts) for ti in task_instances)
    return [facts for facts in decisions if facts and facts.state in ("open", "closed", "suspect")]
