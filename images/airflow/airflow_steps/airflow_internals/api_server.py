"""Access control of Airflow's API server, for pages that a plugin adds to it. Imported by the API server only."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag


def require_xcom_access(dag_id: str) -> Any:
    """Return a FastAPI dependency that admits users who may read the DAG's XComs.

    Relies on `requires_access_dag`, with which Airflow protects its own routes, and which reads the user from the cookie or the
    header as they do. Without it the pages would be public: there is no fallback.
    """
    return requires_access_dag("GET", DagAccessEntity.XCOM, dag_id)
