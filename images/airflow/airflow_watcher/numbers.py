"""What the watcher knows as numbers, for whoever scrapes them: docs/monitoring.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time

from airflow_steps.metrics import DAG_LATE, SESSION_COLLECTED, TASKS, WATCHER_ROUND, format_name
from step_contract import paths
from step_contract.errors import DataError

from airflow_watcher.looking import Look
from airflow_watcher.message import Limits
from airflow_watcher.seen import ENDED, SEOUL, Dag, Run

COUNTED = ("queued", "scheduled", "deferred", "running", "up_for_retry")


def numbers(look: Look, now: datetime, limits: Limits, collected: date | None) -> Iterator[tuple[str, float]]:
    """Each gauge's name and value after a good look; `collected` is the last session whose prices are known to be there."""
    yield WATCHER_ROUND, now.timestamp()
    states = Counter(task.state for run in look.runs if run.state not in ENDED for task in run.tasks)
    for state in COUNTED:
        yield format_name(TASKS, state=state), states[state]
    for dag in look.dags:
        if not dag.paused and not dag.gone:
            yield format_name(DAG_LATE, dag_id=dag.dag_id), late_seconds(dag, look.runs, now, limits)
    if collected:
        yield SESSION_COLLECTED, datetime.combine(collected, time(), SEOUL).timestamp()


def late_seconds(dag: Dag, runs: Sequence[Run], now: datetime, limits: Limits) -> float:
    """How much later than it should the DAG is: for its next run to begin, or for one that has begun to end."""
    open_runs = [run for run in runs if run.dag == dag.dag_id and run.state not in ENDED]
    late = [(now - run.since - limits.late).total_seconds() for run in open_runs]
    late += [(now - dag.next_due).total_seconds()] if dag.next_due else []
    return max(0.0, *late) if late else 0.0


def last_collected(runs: Sequence[Run], before: date | None) -> date | None:
    """The last session whose prices a step of these runs, or one `before`, has made or found."""
    found = [before] if before else []
    for run in runs:
        for task in run.tasks:
            if task.manifest and "/prices/" in task.manifest:
                try:
                    found.append(paths.parse_session(task.manifest))
                except DataError:
                    continue
    return max(found, default=None)
