"""Odd data, damaged objects and faulty servers silence neither the monitor nor any of its messages."""

from __future__ import annotations

import json
import socket
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow_monitor.slack_client import MAX_BACKOFF_SECONDS, parse_retry_after
from airflow_steps.failure_log import FailureRecord
from step_contract import paths
from step_contract.errors import TransientError
from step_contract.store import CircuitBreakerStore

from .fake_airflow_api import dag
from .monitor_harness import RUN_ID, SIX_PM, MonitorHarness, add_session_run, monitor

__all__ = ["monitor"]
OTHER_RUN_ID = "session__2026-01-16"


def root_texts_after_another_run(monitor: MonitorHarness) -> list[str]:
    monitor.airflow.add_run(OTHER_RUN_ID, at=SIX_PM + timedelta(days=1))
    for seconds in (0, 60):
        monitor.poll(SIX_PM + timedelta(days=1, seconds=seconds))
    return [message.text for message in monitor.channel() if not message.is_reply]


@pytest.mark.parametrize(
    "facts",
    [
        {"session": "2026-01-15", "close": None, "change": 0.1},
        {"session": "2026-01-15", "close": "n/a", "change": "n/a"},
        {"promotion": None, "horizon": "<!channel>", "summary": 7},
        {"headlines": 3, "broken": 2},
        {"session": "2026-01-15", "headlines": "3", "feeds": 2, "broken_feeds": 7},
        {"state": "closed"},
        {"state": "closed", "reason": ["<!channel>"], "session": 5},
        ["not", "a mapping"],
        "text",
    ],
)
def test_odd_facts_silence_no_run(monitor: MonitorHarness, facts: Any) -> None:
    add_session_run(monitor.airflow)
    monitor.airflow.add_result(RUN_ID, "decide", facts)
    assert len(root_texts_after_another_run(monitor)) == 2
    assert "<!channel>" not in str(monitor.messages())


@pytest.mark.parametrize(
    "record",
    [b"", b"[]", b"null", b'{"task_id": "decide"}', b"\xff", b'{"why": null}']
    + [
        json.dumps(
            {"task_id": "decide", "map_index": -1, "number": 1, "again": True, "meaning": "x", "advice": "x"} | odd
        ).encode()
        for odd in (
            {"why": None, "at": "", "times": 1, "tries": 1},
            {"why": "x", "at": "tomorrow", "times": None, "tries": None},
            {"why": "Traceback (most recent call last)", "at": SIX_PM.isoformat(), "times": None, "tries": None},
        )
    ],
)
def test_a_damaged_failure_record_silences_no_run(monitor: MonitorHarness, record: bytes) -> None:
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "decide", "failed", at=SIX_PM)
    monitor.store.replace(paths.failure("market_daily", RUN_ID, "decide", -1, 1), record)
    assert len(root_texts_after_another_run(monitor)) == 2
    assert monitor.broadcasts()


@pytest.mark.parametrize(
    "record", [b"", b"[]", b"{}", b"\xff", b'{"claimed_at": "never"}', b'{"claimed_at": "2026-01-01"}', b'{"ts": 5}']
)
def test_a_damaged_delivery_record_neither_silences_nor_duplicates(monitor: MonitorHarness, record: bytes) -> None:
    add_session_run(monitor.airflow)
    monitor.poll()
    [name] = monitor.store.list(paths.channel_deliveries("workflows"))
    monitor.store.replace(name, record)
    monitor.restart(SIX_PM)
    assert len(root_texts_after_another_run(monitor)) == 2


@pytest.mark.parametrize(
    "heartbeat",
    [b"null", b"[1]", b"{}", b"\xff", b'{"delivered_until": 5}', b'{"delivered_until": "2026-01-15", "incidents": null}'],
)
def test_a_damaged_heartbeat_does_not_stop_the_next_monitor(monitor: MonitorHarness, heartbeat: bytes) -> None:
    monitor.store.replace(paths.MONITOR_HEARTBEAT, heartbeat)
    monitor.restart(SIX_PM)
    add_session_run(monitor.airflow)
    monitor.poll()
    assert len(monitor.first_lines()) == 1


def test_an_unexpected_response_is_reported_as_an_unavailable_api(monitor: MonitorHarness) -> None:
    monitor.poll()
    monitor.airflow.health = {"detail": "not found"}
    for minutes in (1, 4):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    assert "API is unavailable" in monitor.first_lines()[0]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("30", 30), (["7"], 7), ("0", 1), ("1000000000", MAX_BACKOFF_SECONDS), ("nan", 5), ("Wed, 21 Oct", 5), (None, 5)],
)
def test_retry_after_is_respected_within_bounds(value: Any, seconds: float) -> None:
    assert parse_retry_after(value) == seconds


@pytest.mark.slow
def test_a_hanging_object_store_blocks_once_and_for_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts connections and never responds
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        store, started = CircuitBreakerStore("s3://bucket/x"), time.monotonic()
        for _ in range(50):
            with pytest.raises(TransientError):
                store.read("something")
        assert time.monotonic() - started < 20


def test_a_secret_in_a_runs_conf_is_redacted(monitor: MonitorHarness) -> None:
    conf = {"password": "hunter22", "api_token": "abcdef12", "from": "2026-01-01", "nested": {"secret": "s3cr3t"}}
    monitor.airflow.add_run("manual__1", "success", at=SIX_PM, logical_date=None, conf=conf, dag_id="market_history")
    monitor.poll()
    assert "from 2026-01-01" in monitor.first_lines()[0]
    assert not [secret for secret in ("hunter22", "abcdef12", "s3cr3t") if secret in str(monitor.slack.received)]


def add_mapped_tasks(monitor: MonitorHarness, state: str, **more: Any) -> None:
    add_session_run(monitor.airflow)
    for number in range(60):
        monitor.airflow.add_task(RUN_ID, "m", state, at=SIX_PM, map_index=number, **more)


def test_stalled_mapped_tasks_share_one_reply(monitor: MonitorHarness) -> None:
    add_mapped_tasks(monitor, "queued")
    monitor.poll(SIX_PM + timedelta(minutes=11))
    [alert] = monitor.broadcasts()
    assert "60 mapped tasks" in alert.text


def test_a_run_that_waits_for_another_is_not_reported_as_missing(monitor: MonitorHarness) -> None:
    monitor.airflow.dags = [dag("market_daily", next_run_after=SIX_PM)]
    add_session_run(monitor.airflow)
    monitor.poll(SIX_PM + timedelta(minutes=30))
    assert "no run was created" not in str(monitor.first_lines())


def test_a_deletion_during_a_slack_outage_is_delivered_later(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow)
    monitor.poll()
    monitor.airflow.runs, monitor.slack.down = [], True
    monitor.poll()
    monitor.slack.down = False
    monitor.poll()
    assert monitor.first_lines()[0].startswith(":black_circle:")


def test_all_pages_are_read_if_the_server_limits_them(monitor: MonitorHarness) -> None:
    monitor.airflow.page_limit = 20
    for number in range(70):
        monitor.airflow.add_run(f"run{number}", at=SIX_PM + timedelta(seconds=number))
    monitor.poll(SIX_PM + timedelta(minutes=2))
    assert len(monitor.first_lines()) == 70


def test_state_is_resumed_once_the_object_store_is_available(monitor: MonitorHarness, tmp_path: Path) -> None:
    add_session_run(monitor.airflow)
    monitor.poll(SIX_PM)
    monitor.poll(SIX_PM + timedelta(minutes=2))
    (tmp_path / "artifacts").rename(tmp_path / "away")
    (tmp_path / "artifacts").write_text("not a directory")
    later = datetime.fromisoformat("2026-01-15T12:00:00+00:00")
    monitor.airflow.runs = []
    monitor.restart(later)
    monitor.poll(later)
    (tmp_path / "artifacts").unlink()
    (tmp_path / "away").rename(tmp_path / "artifacts")
    monitor.airflow.add_run("between", "success", at=SIX_PM + timedelta(hours=1))
    monitor.poll(later)
    assert any("between" in str(message.metadata) for message in monitor.messages())


@pytest.mark.slow
def test_huge_texts_and_markup_are_truncated_and_escaped(monitor: MonitorHarness) -> None:
    odd = "<!channel> *_`|>&" * 3000
    add_session_run(monitor.airflow, state="failed")
    for number in range(300):
        monitor.airflow.add_task(RUN_ID, "m", "failed", at=SIX_PM, map_index=number)
        monitor.store.replace(
            paths.failure("market_daily", RUN_ID, "m", number, 1),
            FailureRecord("m", number, 1, False, odd, odd, odd, 1, 1, SIX_PM.isoformat()).to_json(),
        )
    monitor.airflow.add_task(RUN_ID, "t" * 250, "success", at=SIX_PM)
    monitor.airflow.add_result(
        RUN_ID, "t" * 250, {"summary": odd, "state": odd, "reason": odd, "session": odd}, "file:///x/" + "y" * 3000
    )
    conf = {f"name {number}": odd for number in range(200)}
    monitor.airflow.add_run("<@U1>", "success", at=SIX_PM, logical_date=None, conf=conf, dag_id="d" * 250)
    monitor.poll()
    assert [call["error"] for call in monitor.slack.received if call["error"]] == []
    assert len(monitor.slack.calls("chat.postMessage")) == 3
    assert "<!channel>" not in str(monitor.slack.received) and "<@U1>" not in [message.text for message in monitor.messages()]
