"""The OpenLineage provider: its identifiers of runs and jobs, and its connection to the receiver.

The provider's packages are imported when an event is made: if OpenLineage is disabled, as by default, nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_steps.lineage_events import DatasetName

PRODUCER = "market-daily"


def is_enabled() -> bool:
    """Return whether the section `openlineage` of Airflow's configuration enables events. Relies on the provider's `conf`."""
    from airflow.providers.openlineage import conf

    return not conf.is_disabled()


def make_operator_lineage(inputs: Sequence[DatasetName], outputs: Sequence[DatasetName]) -> Any:
    """Return what `get_openlineage_facets_on_complete` of an operator returns. Relies on the provider's `extractors`."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(inputs=[_make_dataset(name) for name in inputs], outputs=[_make_dataset(name) for name in outputs])


def emit_events(
    ti: Any, inputs: Sequence[DatasetName], outputs: Sequence[DatasetName], started: datetime, ended: datetime
) -> None:
    """Emit START and COMPLETE of a task instance's attempt, as the provider's listener would; blocks until they are sent.

    Relies on the provider's macros, by which the run has the identifier that the listener gives an attempt in a worker, and is
    a child of the DAG run whose events the scheduler emits; and on `api.emit`, which logs an error of the receiver.
    """
    from airflow.providers.openlineage.api import emit
    from airflow.providers.openlineage.plugins import macros
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import parent_run

    namespace = macros.lineage_job_namespace()
    parent = parent_run.ParentRunFacet(
        run=parent_run.Run(runId=macros.lineage_root_run_id(ti)),
        job=parent_run.Job(namespace=macros.lineage_root_job_namespace(ti), name=macros.lineage_root_job_name(ti)),
    )
    run = Run(runId=macros.lineage_run_id(ti), facets={"parent": parent})
    job = Job(namespace=namespace, name=macros.lineage_job_name(ti))
    datasets: dict[str, Any] = {
        "inputs": [_make_dataset(name) for name in inputs],
        "outputs": [_make_dataset(name) for name in outputs],
    }
    emit(RunEvent(eventType=RunState.START, eventTime=started.isoformat(), run=run, job=job, producer=PRODUCER))
    completed = {"eventType": RunState.COMPLETE, "eventTime": ended.isoformat()}
    emit(RunEvent(**completed, run=run, job=job, producer=PRODUCER, **datasets))  # type: ignore[arg-type]


def _make_dataset(name: DatasetName) -> Any:
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import dataset_version_dataset

    version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=name.version)
    return Dataset(namespace=name.namespace, name=name.name, facets={"version": version} if name.version else {})
