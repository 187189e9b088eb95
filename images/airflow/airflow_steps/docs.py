"""A DAG's documentation handed on to its tasks, so that each says in the UI what it does and what to do when it fails."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from airflow.sdk import DAG, BaseOperator


NAME = re.compile(r"`(\w+)`")
ROW = re.compile(r"^- (`\w+`(?:, `\w+`)*): (.+?) \*\*When it fails:\*\* (.+)$", re.MULTILINE)


def document(dag: DAG, text: str) -> None:
    """Gives `dag` the Markdown `text`, and each task its line of the text's list: what it does, and what to do when it fails.

    Raises ValueError where a task has no line, or a line no task.
    """
    dag.doc_md = text
    told = {
        name: f"{does}\n\n**When it fails:** {fails}"
        for names, does, fails in ROW.findall(text)
        for name in NAME.findall(names)
    }
    if told.keys() != set(dag.task_ids):
        raise ValueError(f"the list of {dag.dag_id} and its tasks differ: {sorted(told.keys() ^ set(dag.task_ids))}")
    for task_id, doc in told.items():
        task = cast("BaseOperator", dag.get_task(task_id))
        task.doc_md = doc
