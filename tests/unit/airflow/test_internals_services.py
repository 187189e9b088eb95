"""Contracts of `airflow_internals` with the installed Airflow and kubernetes_asyncio: log, metrics, API, clients."""

from __future__ import annotations

import inspect
import json
import socket
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import structlog
from airflow.api_fastapi.core_api.routes.public.xcom import xcom_router
from airflow.jobs.job import Job, JobState, health_check_threshold
from airflow.sdk.log import logging_processors, mask_secret
from airflow.utils.log.file_task_handler import _interleave_logs
from airflow_steps.airflow_internals import heartbeats, kubernetes_client, statsd_client, task_log
from airflow_steps.pods.client import PodClient
from kubernetes_asyncio import client

from .fake_kubernetes import NAMESPACE, KubernetesApi

TIME = "2026-01-15T09:00:00.123456Z"


def test_a_line_keeps_the_time_that_it_is_logged_with() -> None:
    captured = structlog.testing.CapturingLogger()
    logger = structlog.wrap_logger(captured, processors=logging_processors(json_output=True))
    logger.info("epoch 1", timestamp=TIME)
    [call] = captured.calls
    record = json.loads(call.args[0])
    assert record["timestamp"] == TIME, "a step's lines have the time at which it printed them"
    assert record["event"] == "epoch 1"


def stream(*lines: str) -> Generator[str, None, None]:
    yield from lines


def test_the_ui_drops_a_line_that_two_triggerers_copied() -> None:
    line = json.dumps({"timestamp": TIME, "event": "epoch 1", "logger": "step"})
    other = json.dumps({"timestamp": TIME, "event": "epoch 2", "logger": "step"})
    lines = [record.event for record in _interleave_logs(stream(line, other), stream(line))]
    assert sorted(lines) == ["epoch 1", "epoch 2"], "the log of a step that another triggerer adopted would have doubled lines"


def test_airflows_masked_secrets_are_redacted() -> None:
    mask_secret("s3cr3t-of-a-connection")
    redacted = task_log.redact_secrets("login with s3cr3t-of-a-connection failed")
    assert redacted == "login with *** failed", "failure records and Slack would show secrets"
    assert task_log.redact_secrets({"password": "x-1-y"}) == {"password": "***"}, "Slack would show secrets of a run's conf"


def test_metrics_are_sent_as_statsd_datagrams(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        settings = {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(server.getsockname()[1])}
        for name, value in settings.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__{name}", value)
        statsd_client._initialize.cache_clear()
        try:
            statsd_client.connect()
            statsd_client.set_gauge("market_daily.gauge", 7)
            statsd_client.observe_duration("market_daily.timer", timedelta(seconds=2))
            statsd_client.count("market_daily.counter")
            received = {server.recv(1000).decode() for _ in range(3)}
        finally:
            monkeypatch.undo()
            statsd_client._initialize.cache_clear()
            statsd_client.connect()
    expected = {
        "airflow.market_daily.gauge:7|g",
        "airflow.market_daily.timer:2000.000000|ms",
        "airflow.market_daily.counter:1|c",
    }
    assert received == expected, "statsd.extraMappings in helm/values.yaml maps the project's metrics"


def test_names_of_metrics_are_normalized() -> None:
    assert statsd_client.normalize_name("a b/c") == "a_b_c", "a DAG's id is part of a metric's name"


@pytest.mark.parametrize("job_type", heartbeats.THRESHOLDS)
def test_the_probes_threshold_is_airflows(job_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert heartbeats.get_threshold(job_type).total_seconds() == health_check_threshold(job_type, 5), (
        "the liveness probe's default"
    )
    options: list[tuple[str, str]] = []

    def read(section: str, option: str) -> int:
        options.append((section, option))
        return 77

    monkeypatch.setattr("airflow.jobs.job.conf", SimpleNamespace(getint=read, getfloat=read))
    assert inspect.unwrap(health_check_threshold)(job_type, 5) == 77 and options == [heartbeats.THRESHOLDS[job_type]], (
        "the liveness probe's option"
    )


def test_the_table_of_jobs_has_the_columns_of_the_probe() -> None:
    columns = {"latest_heartbeat", "job_type", "state", "hostname"}
    assert Job.__tablename__ == "job" and columns <= {column.name for column in Job.__table__.columns}, (
        "python -m airflow_steps.liveness reads heartbeats; without them it runs Airflow's slow command"
    )
    assert JobState.RUNNING.value == "running", "the probe counts running jobs only"


def test_airflow_protects_xcoms_as_the_artifact_pages() -> None:
    from airflow_steps.artifact_viewer import app

    [own] = app.router.dependencies
    [route] = [route for route in xcom_router.routes if getattr(route, "name", "") == "get_xcom_entry"]
    [airflows] = [dependency for dependency in route.dependencies if "requires_access_dag" in repr(dependency)]  # type: ignore[attr-defined]
    functions = [repr(dependency.dependency).split()[1] for dependency in (own, airflows)]
    assert functions[0] == functions[1], "who may read XComs may read artifacts, nobody else"


async def request_raw(api: KubernetesApi) -> None:
    pods = (await PodClient.get())._api
    connector = pods.api_client.rest_client.pool_manager.connector
    assert connector.limit == 0, "each running step holds two connections; a limit would delay all requests"
    timeout = aiohttp.ClientTimeout(total=5)
    api.statuses["log"] = [404]
    response = await kubernetes_client.open_log(pods, NAMESPACE, "none", {"container": "base"}, timeout)
    assert isinstance(response, aiohttp.ClientResponse) and response.status == 404, (
        "PodLog retries by the status of the response"
    )
    with pytest.raises(client.ApiException) as error:
        await kubernetes_client.raise_for_status(response)
    assert error.value.status == 404
    response.close()
    watch = await kubernetes_client.open_watch(
        pods, NAMESPACE, timeout, timeout_seconds=1, field_selector="metadata.name=a", resource_version="0"
    )
    assert isinstance(watch, aiohttp.ClientResponse) and watch.status == 200, "PodClient reads events line by line"
    watch.close()
    pod = {
        "metadata": {"namespace": NAMESPACE, "name": "a"},
        "spec": {"containers": [{"name": "base", "image": "collector:1"}]},
    }
    assert await (await PodClient.get()).create_pod(pod)
    read, headers = await kubernetes_client.read_pod_with_headers(pods, NAMESPACE, "a", 5)
    assert read.metadata.name == "a" and headers["Date"], "deadlines are counted by the API server's clock"
    created_at = "2026-01-15T09:00:00Z"
    parsed = kubernetes_client.parse_pod(pods, {"metadata": {"name": "a", "creationTimestamp": created_at}})
    assert parsed.metadata.creation_timestamp == datetime(2026, 1, 15, 9, tzinfo=UTC), "PodFollower reads the pods of events"


def test_the_kubernetes_client_gives_raw_responses(play: Any) -> None:
    play(request_raw)
