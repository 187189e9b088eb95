"""`helm upgrade` with a changed value: what is there stays, and the next run knows the value."""

from __future__ import annotations

from devtools import kind_cluster
from devtools.airflow_client import AirflowClient
from devtools.dag_runs import wait_for_dags
from step_contract.store import Store

from ..conftest import artifacts, kubectl, start, wait_for_end, wait_for_log, wait_until
from ..slack_channel import channel


def test_an_upgrade_keeps_keys_runs_logs_and_artifacts_and_the_next_run_has_the_new_value(
    airflow: AirflowClient, bucket: Store
) -> None:
    secrets = ("get", "secrets", "--output=jsonpath={range .items[*]}{.metadata.name} {.data}{end}")
    before = kubectl(*secrets), artifacts(bucket)
    kind_cluster.DEPLOYMENT.upgrade(
        [
            *kind_cluster.trainer_selector(),
            "--set",
            "config.market_daily.slack_channel=another",
            "--set",
            "triggerer.replicas=2",
        ]
    )
    assert artifacts(bucket) == before[1]
    assert [line for line in kubectl(*secrets).splitlines() if "helm" not in line] == [
        line for line in before[0].splitlines() if "helm" not in line
    ]
    wait_for_dags(kind_cluster.DEPLOYMENT, airflow, "market_daily")
    start(airflow, "market_daily", "session__2026-01-19", "2026-01-19T09:00:00Z")
    assert wait_for_end(airflow, "market_daily", "session__2026-01-19", 180) == "success"
    wait_until("its message", lambda: "Mon 19 Jan 2026*  closed at" in str([one["text"] for one in channel("another")]), 90)
    # A run from before the upgrade: kind-up itself has run it.
    wait_for_log(airflow, "market_daily", "session__2026-01-15", "fetch_prices", "KS11 closed at")
