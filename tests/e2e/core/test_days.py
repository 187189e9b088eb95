"""Every kind of day on the cluster: which tasks run, in which pods, and which artifacts are in the bucket."""

from __future__ import annotations

import pytest
from devtools import container_images
from devtools.airflow_client import AirflowClient
from devtools.pods import PodWatch
from step_contract.commit import open_artifact
from step_contract.facts import HeadlinesFacts
from step_contract.store import Store

from ..conftest import (
    get_states,
    list_artifacts,
    list_pods,
    start_run,
    step_pods,
    wait_for_log,
    wait_for_run,
    wait_until,
    worker_pods,
)

OPEN = ("decide", "fetch_prices", "fetch_headlines")
FORECAST = ("forecast",)
TRAINING = ("train", "plot")
# The steps that succeed, by session; others may run beside them.
DAYS = {
    "2026-01-15": (*OPEN, *FORECAST, *TRAINING),
    "2026-01-16": (*OPEN, *FORECAST),
    "2020-01-16": OPEN,  # before the first entry of the sample's feeds, and too long before the other sessions for a forecast
    "2026-03-02": ("decide",),
    "2026-03-01": ("decide", *TRAINING),
    "2026-03-23": ("decide",),
}
# The steps that run, and find nothing to do.
NOTHING_TO_DO = {"2020-01-16": FORECAST}
PROGRAMS = {"forecast": "trainer", "train": "trainer", "plot": "trainer"}
ALL_STEPS = (*OPEN, *FORECAST, *TRAINING)


def run_id_of(session: str) -> str:
    return f"session__{session}"


@pytest.fixture(scope="module", autouse=True)
def days(airflow: AirflowClient, pod_watch: PodWatch) -> None:
    for session in [session for session in DAYS if session != "2026-01-15"]:  # the deployment itself has run that one
        start_run(airflow, "market_daily", run_id_of(session), f"{session}T09:00:00Z")
    for session in DAYS:
        assert wait_for_run(airflow, "market_daily", run_id_of(session), 240) == "success"


@pytest.mark.parametrize("session", DAYS)
def test_the_days_steps_succeed_and_others_are_skipped(airflow: AirflowClient, session: str) -> None:
    states = get_states(airflow, "market_daily", run_id_of(session))
    assert {task: states[task] for task in ALL_STEPS} == {
        task: "success" if task in DAYS[session] else "skipped" for task in ALL_STEPS
    }
    assert states["closed"] == ("success" if session in ("2026-03-01", "2026-03-02") else "skipped")
    assert states["suspect"] == ("success" if session == "2026-03-23" else "skipped")


@pytest.mark.parametrize("session", [session for session in DAYS if session != "2026-01-15"])
def test_each_step_runs_in_one_pod_of_its_own_image(pod_watch: PodWatch, session: str) -> None:
    pods = step_pods(pod_watch, "market_daily", run_id_of(session))
    tasks = [pod["metadata"]["labels"]["task_id"] for pod in pods]
    run = {*DAYS[session], *NOTHING_TO_DO.get(session, ())}
    assert run <= set(tasks) and len(tasks) == len(set(tasks))
    assert not set(tasks) & (set(ALL_STEPS) - run)
    for pod in [pod for pod in pods if pod["metadata"]["labels"]["task_id"] in ALL_STEPS]:
        program = PROGRAMS.get(pod["metadata"]["labels"]["task_id"], "collector")
        [container] = pod["spec"]["containers"]
        assert container["image"] == container_images.name_of(program)
        assert (pod["spec"].get("nodeSelector") == {"kubernetes.io/arch": "amd64"}) == (program == "trainer")
    assert not worker_pods(pod_watch, "market_daily", run_id_of(session))


@pytest.mark.parametrize("session", DAYS)
def test_every_artifact_is_complete_and_names_image_and_commit(airflow: AirflowClient, bucket: Store, session: str) -> None:
    for task in DAYS[session]:
        uri = airflow.get_xcom("market_daily", run_id_of(session), task)
        assert uri.startswith("s3://market/artifacts/")
        manifest, _ = open_artifact(uri)
        assert manifest.image == container_images.name_of(PROGRAMS.get(task, "collector"))
        assert manifest.commit == container_images.get_commit()


@pytest.mark.parametrize(("session", "availability"), [("2026-01-16", "complete"), ("2020-01-16", "unavailable")])
def test_headlines_say_whether_the_feeds_hold_the_day(airflow: AirflowClient, session: str, availability: str) -> None:
    facts = airflow.get_xcom("market_daily", run_id_of(session), "fetch_headlines", "facts")
    assert HeadlinesFacts.parse(facts).availability == availability


def test_a_steps_log_is_complete_after_its_pod_is_deleted(airflow: AirflowClient) -> None:
    wait_until(
        "the pods' deletion",
        lambda: not [pod for pod in list_pods() if pod["metadata"]["labels"]["dag_id"] == "market_daily"],
        60,
    )
    verified = "artifact verified: s3://market/artifacts/prices/symbol=KS11/session=2026-01-16/manifest.json"
    log = wait_for_log(airflow, "market_daily", run_id_of("2026-01-16"), "fetch_prices", verified)
    assert f"{container_images.name_of('collector')} fetch-prices --session 2026-01-16" in log
    assert "KS11 closed at" in log


def test_a_cleared_session_creates_no_new_artifact(airflow: AirflowClient, bucket: Store) -> None:
    run_id = run_id_of("2026-03-01")
    artifacts = list_artifacts(bucket)
    uris = [airflow.get_xcom("market_daily", run_id, task) for task in DAYS["2026-03-01"]]
    airflow.clear_run("market_daily", run_id)
    assert wait_for_run(airflow, "market_daily", run_id, 120) == "success"
    assert list_artifacts(bucket) == artifacts
    assert [airflow.get_xcom("market_daily", run_id, task) for task in DAYS["2026-03-01"]] == uris
    wait_for_log(airflow, "market_daily", run_id, "train", "(already committed)", 2)
