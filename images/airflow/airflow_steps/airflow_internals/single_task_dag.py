"""Serialized DAGs reduced to one task: what a trigger that starts a task needs of them.

The classes take the places of Airflow's SerializedDagModel and DBDagBag in the supervisor of `triggerer`. They rely on the
structure of a serialized DAG: `dag` with `tasks`, `task_group` and `dag_id`; a task in `__var` with `task_id`, `_is_mapped`,
`downstream_task_ids` and `has_on_success_callback`. If it changes, `select_task` may return the whole DAG: that is correct, and
slow for wide DAGs.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from airflow.exceptions import TaskNotFound
from airflow.serialization.serialized_objects import DagSerialization

log = logging.getLogger(__name__)


class SingleTaskModel:
    """A serialized DAG reduced to one of its tasks, in place of Airflow's SerializedDagModel.

    The task has no neighbours and no task groups: a trigger renders its own templates, whatever they pull.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    @property
    def dag(self) -> Any:
        """The deserialized DAG. Raises TaskNotFound if that fails, with which Airflow starts the trigger without a DAG.

        A timetable may not be registered here, for example. Any other exception would end every triggerer.
        """
        try:
            return DagSerialization.from_dict(self.data)
        except Exception as error:
            log.warning("cannot deserialize DAG %s: %s", self.data["dag"].get("dag_id"), error)
            raise TaskNotFound(str(error)) from error


def select_task(data: dict[str, Any], task_id: str) -> dict[str, Any] | None:
    """Return the serialized DAG with the task `task_id` only; None if it has none of that id.

    A mapped task may be mapped over the output of others, without which it cannot be deserialized: it gets the whole DAG.
    """
    tasks = [task for task in data["dag"]["tasks"] if task["__var"]["task_id"] == task_id]
    if not tasks:
        return None
    if tasks[0]["__var"].get("_is_mapped"):
        return data
    dag = {key: value for key, value in data["dag"].items() if key != "task_group"}
    dag["tasks"] = [
        task | {"__var": {key: value for key, value in task["__var"].items() if key != "downstream_task_ids"}} for task in tasks
    ]
    return data | {"dag": dag}


class SingleTaskBag:
    """Airflow's DBDagBag for one trigger: it returns the model of the trigger's DAG with the trigger's task only.

    `dags` keeps the serialized DAGs that were read, by version: reading one costs as much as it is long.
    """

    def __init__(self, dag_bag: Any, task_id: str, dags: MutableMapping[Any, dict[str, Any]]) -> None:
        self._dag_bag, self._task_id, self._dags = dag_bag, task_id, dags

    def get_serialized_dag_model_for_run(self, dag_run: Any, *, session: Any) -> SingleTaskModel | None:
        """Return the model of the version that the run uses; None if this version does not have the task (any more).

        Airflow then asks for the version of the task instance.
        """
        version_id = self._dag_bag._version_from_dag_run(dag_run=dag_run, session=session)
        return self.get_serialized_dag_model(version_id, session) if version_id else None

    def get_serialized_dag_model(self, version_id: Any, session: Any) -> SingleTaskModel | None:
        """Return the model of the version; None if it does not exist or does not have the task."""
        data = self._dags.get(version_id)
        selected = select_task(data, self._task_id) if data else None
        # Airflow may replace the content of a version.
        if selected is None and (model := self._dag_bag.get_serialized_dag_model(version_id=version_id, session=session)):
            self._dags[version_id] = data = model.data
            selected = select_task(data, self._task_id)
        return SingleTaskModel(selected) if selected else None


def has_success_callback(data: dict[str, Any]) -> bool:
    """Return whether one of the serialized DAG's tasks has a callback for success."""
    return any(task["__var"].get("has_on_success_callback") for task in data["dag"]["tasks"])
