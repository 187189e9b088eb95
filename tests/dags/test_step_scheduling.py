"""Steps in Airflow's real scheduling, on Postgres: which start from the triggerer, and what is checked before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SETTINGS = {
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "STEP_RUNNER": "triggerer",
    "COLLECTOR_IMAGE": "collector:1",
}


@pytest.fixture(scope="module")
def states(
    create_database: Callable[[], str], run_program: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[list[str]]]:
    """Return the output of run_step_scheduling.py: the states of each DAG's step in two runs."""
    home = tmp_path_factory.mktemp("airflow")
    arguments = ("run_step_scheduling.py", home, create_database(), SETTINGS, str(home / "dags"))
    output: dict[str, list[list[str]]] = run_program(*arguments)
    return output


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("dag_id", ["plain", "executor", "queue"])
def test_the_scheduler_starts_a_step_from_the_triggerer(dag_id: str, states: dict[str, list[list[str]]]) -> None:
    assert states[dag_id] == [["deferred"], ["deferred"]]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "dag_id",
    [
        "pool",
        "max_active_tis_per_dag",
        "outlets",
        "on_execute_callback",
        "on_success_callback",
        "on_skipped_callback",
        "post_execute",
    ],
)
def test_the_scheduler_gives_such_a_step_to_a_worker(dag_id: str, states: dict[str, list[list[str]]]) -> None:
    assert states[dag_id] == [["scheduled"], ["scheduled"]]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_scheduler_gives_a_mapped_step_to_workers(states: dict[str, list[list[str]]]) -> None:
    assert states["mapped"] == [["scheduled"] * 2] * 2


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_scheduler_starts_a_step_in_a_mapped_group_from_the_triggerer(states: dict[str, list[list[str]]]) -> None:
    assert states["in_a_mapped_group"] == [["deferred"] * 2] * 2


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("dag_id", "expected"),
    [
        ("depends_on_past", [["deferred"], ["None"]]),
        ("wait_for_downstream", [["deferred"], ["None"]]),
        ("start_date", [[], ["deferred"]]),
        ("end_date", [["deferred"], []]),
        ("trigger_rule", [["skipped"], ["skipped"]]),
    ],
)
def test_the_scheduler_checks_dependencies_before_the_trigger(
    dag_id: str, expected: list[list[str]], states: dict[str, list[list[str]]]
) -> None:
    assert states[dag_id] == expected
