"""`helm upgrade` with a changed value: existing data is kept, and the next run uses the value."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from devtools.airflow_client import AirflowClient
from devtools.dag_runs import unpause_parsed_dag
from step_contract.store import Store

from ..conftest import CLUSTER, DEPLOYMENT, kubectl, list_artifacts, start_run, wait_for_log, wait_for_run, wait_until
from ..slack_channel import get_messages


@pytest.fixture(scope="module", autouse=True)
def room_for_production() -> Iterator[None]:
    """Stop the deployment after its last test: idle, it takes a quarter of a core from production's test."""
    yield
    kubectl("scale", "deployment", "--all", "--replicas=0")


def test_an_upgrade_keeps_data_and_applies_the_new_value(airflow: AirflowClient, bucket: Store) -> None:
    secrets = ("get", "secrets", "--output=jsonpath={range .items[*]}{.metadata.name} {.data}{end}")
    secrets_before, artifacts_before = kubectl(*secrets), list_artifacts(bucket)
    DEPLOYMENT.upgrade(
        [
            *CLUSTER.trainer_options(),
            "--set",
            "config.market_daily.slack_channel=another",
            "--set",
            "triggerer.replicas=2",
        ]
    )
    assert list_artifacts(bucket) == artifacts_before
    assert [line for line in kubectl(*secrets).splitlines() if "helm" not in line] == [
        line for line in secrets_before.splitlines() if "helm" not in line
    ]
    unpause_parsed_dag(DEPLOYMENT, airflow, "market_daily")
    start_run(airflow, "market_daily", "session__2026-01-19", "2026-01-19T09:00:00Z")
    assert wait_for_run(airflow, "market_daily", "session__2026-01-19", 180) == "success"
    wait_until(
        "the run's message",
        lambda: "Mon 19 Jan 2026*  closed at" in str([message["text"] for message in get_messages("another")]),
        90,
    )
    # A run from before the upgrade: the deployment itself has run it.
    wait_for_log(airflow, "market_daily", "session__2026-01-15", "fetch_prices", "KS11 closed at")
