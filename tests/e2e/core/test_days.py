"""Every kind of day on the cluster: which tasks ran, in which pods, and what is in the bucket."""

from __future__ import annotations

import pytest
from airflow_api import Airflow
from step_contract.commit import open_artifact
from step_contract.store import Store

import images

from ..conftest import Watched, artifacts, pods_now, start, states, wait_for_end, wait_for_log, wait_until

OPEN = ("decide", "fetch_prices", "fetch_headlines")
TRAINING = ("train", "plot")
# session: steps that run
DAYS = {
    "2026-01-15": (*OPEN, *TRAINING),
    "2026-01-16": OPEN,
    "2026-03-02": ("decide",),
    "2026-03-01": ("decide", *TRAINING),
    "2026-03-23": ("decide",),
}
PROGRAMS = {"train": "trainer", "plot": "trainer"}
EVERY_STEP = (*OPEN, *TRAINING)


def run_of(session: str) -> str:
    return f"session__{session}"


@pytest.fixture(scope="module", autouse=True)
def days(airflow: Airflow, watched: Watched) -> None:
    for session in [session for session in DAYS if session != "2026-01-15"]:  # kind-up itself has run that one
        start(airflow, "market_daily", run_of(session), f"{session}T09:00:00Z")
    for session in DAYS:
        assert wait_for_end(airflow, "market_daily", run_of(session), 240) == "success"


@pytest.mark.parametrize("session", DAYS)
def test_the_steps_of_the_day_succeed_and_the_others_are_skipped(airflow: Airflow, session: str) -> None:
    found = states(airflow, "market_daily", run_of(session))
    assert {task: found[task] for task in EVERY_STEP} == {
        task: "success" if task in DAYS[session] else "skipped" for task in EVERY_STEP
    }
    assert found["closed"] == ("success" if session in ("2026-03-01", "2026-03-02") else "skipped")
    assert found["suspect"] == ("success" if session == "2026-03-23" else "skipped")


@pytest.mark.parametrize("session", [session for session in DAYS if session != "2026-01-15"])
def test_each_step_is_one_pod_of_its_own_image_and_nothing_else_is_a_pod(watched: Watched, session: str) -> None:
    pods = watched.steps("market_daily", run_of(session))
    assert sorted(pod["metadata"]["labels"]["task_id"] for pod in pods) == sorted(DAYS[session])
    for pod in pods:
        program = PROGRAMS.get(pod["metadata"]["labels"]["task_id"], "collector")
        [container] = pod["spec"]["containers"]
        assert container["image"] == images.name_of(program)
        assert (pod["spec"].get("nodeSelector") == {"kubernetes.io/arch": "amd64"}) == (program == "trainer")
    assert not watched.workers("market_daily", run_of(session))


@pytest.mark.parametrize("session", DAYS)
def test_every_artifact_is_in_the_bucket_whole_and_says_what_made_it(airflow: Airflow, bucket: Store, session: str) -> None:
    for task in DAYS[session]:
        uri = airflow.xcom("market_daily", run_of(session), task)
        assert uri.startswith("s3://market/artifacts/")
        manifest, _ = open_artifact(uri)
        assert manifest.image == images.name_of(PROGRAMS.get(task, "collector"))
        assert manifest.commit == images.commit()


def test_a_steps_log_tells_everything_after_its_pod_is_gone(airflow: Airflow) -> None:
    wait_until(
        "pods gone", lambda: not [pod for pod in pods_now() if pod["metadata"]["labels"]["dag_id"] == "market_daily"], 60
    )
    verified = "artifact verified: s3://market/artifacts/prices/symbol=KS11/session=2026-01-16/manifest.json"
    log = wait_for_log(airflow, "market_daily", run_of("2026-01-16"), "fetch_prices", verified)
    assert f"{images.name_of('collector')} fetch-prices --session 2026-01-16" in log
    assert "KS11 closed at" in log


def test_a_session_that_is_run_again_makes_no_artifact_and_computes_nothing(airflow: Airflow, bucket: Store) -> None:
    run = run_of("2026-03-01")
    before, uris = artifacts(bucket), [airflow.xcom("market_daily", run, task) for task in DAYS["2026-03-01"]]
    airflow.clear("market_daily", run)
    assert wait_for_end(airflow, "market_daily", run, 120) == "success"
    assert artifacts(bucket) == before
    assert [airflow.xcom("market_daily", run, task) for task in DAYS["2026-03-01"]] == uris
    wait_for_log(airflow, "market_daily", run, "train", "(already committed)", 2)
