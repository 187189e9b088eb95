"""The execution API of an embedded run: Airflow's latest version of it only."""

from __future__ import annotations

from airflow.api_fastapi.execution_api import versions
from airflow.api_fastapi.execution_api.routes import execution_api_router
from cadwyn import HeadVersion, Version, VersionBundle
from cadwyn.route_generation import _DELETED_ROUTE_TAG


def drop_earlier_versions() -> None:
    """Make the API that `dag.test()` creates offer the latest version only, which the tasks of this process use.

    Creating the routes of every earlier version takes a third of the CPU time of a run without training.
    """
    versions.bundle = VersionBundle(HeadVersion(), Version(versions.bundle.versions[0].value))
    # Cadwyn rejects routes of earlier versions if there are no such versions.
    routes = execution_api_router.routes
    routes[:] = [route for route in routes if _DELETED_ROUTE_TAG not in getattr(route, "tags", ())]
