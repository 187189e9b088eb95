"""The DAG market_history: a backfill has a run for each month, and nothing schedules it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import jinja2
import pendulum
import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction
from airflow_steps.timetable import MonthTimetable
from devtools.backfill_request import STEPS

from .conftest import ROOT


@pytest.fixture(scope="module")
def dag() -> DAG:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(ROOT / "dags" / "market_history.py").dags["market_history"]


def list_months(dag: DAG, first: datetime, last: datetime) -> list[str]:
    serialized = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    infos = list(serialized.iter_dagrun_infos_between(first, last))
    assert all(info.run_after == info.logical_date for info in infos)  # the run is named after its month
    return [f"{info.logical_date:%Y-%m-%d}" for info in infos if info.logical_date]


def test_a_backfill_has_a_run_for_each_month_that_the_range_touches(dag: DAG) -> None:
    months = list_months(dag, pendulum.datetime(2025, 11, 20), pendulum.datetime(2026, 2, 1))
    assert months == ["2025-11-01", "2025-12-01", "2026-01-01", "2026-02-01"]
    # The same month has the same logical date, whatever the range is.
    assert list_months(dag, pendulum.datetime(2025, 12, 31), pendulum.datetime(2026, 1, 1)) == ["2025-12-01", "2026-01-01"]


def test_a_backfill_has_the_current_month_and_none_of_the_future() -> None:
    now = pendulum.now("UTC")
    restriction = TimeRestriction(now.subtract(days=1), now.add(years=1), catchup=True)
    timetable, info, ends = MonthTimetable(), None, []
    while info := timetable.next_dagrun_info(
        last_automated_data_interval=info.data_interval if info else None, restriction=restriction
    ):
        assert info.data_interval and info.data_interval.end < pendulum.now("UTC")
        ends.append(info.data_interval.end)
    assert ends and now - ends[-1] < timedelta(minutes=1)


def test_nothing_schedules_it() -> None:
    restriction = TimeRestriction(pendulum.datetime(1995, 5, 1), None, catchup=False)
    assert MonthTimetable().next_dagrun_info(last_automated_data_interval=None, restriction=restriction) is None


def test_the_steps_of_the_command_are_those_of_the_dag(dag: DAG) -> None:
    assert set(STEPS) == set(dag.params.get_param("steps").schema["items"]["enum"])
    assert set(STEPS) == set(dag.task_ids) - {"select", "select_headlines"}
    assert dag.task_dict["select"].downstream_task_ids | dag.task_dict["select_headlines"].downstream_task_ids == set(STEPS)


@pytest.mark.parametrize(
    ("run_type", "logical_date", "params", "expected"),
    [
        ("backfill", "2025-02-01", {"from": "2025-01-10", "to": "2025-03-20"}, ("2025-02-01", "2025-02-28")),
        ("backfill", "2025-01-01", {"from": "2025-01-10", "to": "2025-01-20"}, ("2025-01-10", "2025-01-20")),
        ("backfill", "2024-02-01", {"from": None, "to": None}, ("2024-02-01", "2024-02-29")),
        ("manual", "2025-01-01", {"from": "2010-01-04", "to": "2012-01-02"}, ("2010-01-04", "2012-01-02")),
        ("manual", None, {"from": None, "to": None}, ("2021-01-14", "2026-01-14")),
    ],
)
def test_the_range_of_a_run(
    run_type: str, logical_date: str | None, params: dict[str, str | None], expected: tuple[str, str], dag: DAG
) -> None:
    context = {
        "dag_run": SimpleNamespace(run_type=run_type, run_after=datetime(2026, 1, 14, tzinfo=UTC)),
        "logical_date": datetime.fromisoformat(logical_date) if logical_date else None,
        "params": params,
        "macros": SimpleNamespace(timedelta=timedelta),
    }
    arguments: list[str] = vars(dag.task_dict["fetch_prices"])["arguments"]
    rendered = [jinja2.Template(arguments[arguments.index(option) + 1]).render(context) for option in ("--from", "--to")]
    assert tuple(rendered) == expected


def test_a_step_waits_for_those_before_it_also_if_one_between_them_is_not_selected(dag: DAG) -> None:
    upstream = {task_id: dag.task_dict[task_id].upstream_task_ids for task_id in STEPS}
    assert upstream["train"] == {"select", "fetch_prices"}
    assert upstream["forecast"] == {"select", "fetch_prices", "train"}
    assert upstream["plot"] == {"select", "fetch_prices", "train", "forecast"}
    assert {dag.task_dict[task_id].trigger_rule for task_id in ("train", "forecast", "plot")} == {"none_failed"}
