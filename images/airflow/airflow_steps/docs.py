"""A DAG's documentation handed on to its tasks, so that each says in the UI what it does and what to do when it fails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from airflow.sdk import DAG, BaseOperator


def document(dag: DAG, text: str) -> None:
    """Gives `dag` the Markdown `text`, and each task its row of the text's table: task, what it does, when it fails.

    Raises ValueError where a task has no row, or a row no task.
    """
    dag.doc_md = text
    rows = dict(_rows(text))
    if rows.keys() != set(dag.task_ids):
        raise ValueError(f"the table of {dag.dag_id} and its tasks differ: {sorted(rows.keys() ^ set(dag.task_ids))}")
    for task_id, (does, fails) in rows.items():
        task = cast("BaseOperator", dag.get_task(task_id))
        task.doc_md = f"{does}\n\n**When it fails:** {fails}" if fails else does


def _rows(text: str) -> list[tuple[str, tuple[str, str]]]:
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if len(cells) == 3 and cells[0].startswith("`"):
            found += [(name, (cells[1], cells[2])) for name in re.findall(r"`(\w+)`", cells[0])]
    return found
