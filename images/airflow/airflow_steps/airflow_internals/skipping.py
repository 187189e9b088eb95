"""Skips tasks downstream of the current one, in a mapped task group as elsewhere."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import DownstreamTasksSkipped

if TYPE_CHECKING:
    from airflow.sdk import Context


def skip_downstream(context: Context, followed: Collection[str] = ()) -> NoReturn:
    """End the current task as a success, and skip the tasks directly downstream of it except those that are `followed`.

    Those further downstream follow by their trigger rules. Cleared alone, a skipped task runs: clear the current one with it.

    This replaces `@task.branch` and `@task.short_circuit`, which in a mapped task group of Airflow 3.3.2 skip nothing: there
    they leave it to NotPreviouslySkippedDep, which looks for the XCom of an unmapped parent. The task instances of a group that
    is mapped over literal values exist when the current task runs. Relies on `ti_skip_downstream` in
    airflow.api_fastapi.execution_api.routes.task_instances, which sets the state of task ids with map indexes.
    """
    task: Any = context["task"]
    map_index = context["ti"].map_index
    skipped = sorted(task.downstream_task_ids - set(followed))
    index = -1 if map_index is None else map_index
    raise DownstreamTasksSkipped(tasks=[(task_id, index) for task_id in skipped])
