"""What is recorded when a task fails, and who is notified if the monitor is silent."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow_steps.callbacks import check_heartbeat, on_run_end, on_task_failure, on_task_retry
from airflow_steps.failure_log import FailureRecord, read_failures, record_termination
from airflow_steps.outcome import PermanentStepError, StepFailedError
from airflow_steps.redaction import redact_text
from airflow_steps.retry_policy import StepRetryPolicy, read_retry_rules
from slack_simulator.simulator import Simulator
from step_contract import paths
from step_contract.errors import ExitCode, Termination
from step_contract.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    return Store(f"file://{tmp_path}/artifacts")


def make_context(error: Exception | None, try_number: int = 1, **more: Any) -> Any:
    task = SimpleNamespace(retry_policy=StepRetryPolicy(3, timedelta(minutes=5), read_retry_rules({})))
    fields = {"dag_id": "market_daily", "run_id": "session__2026-01-15", "task_id": "train", "map_index": -1, "task": task}
    return {"ti": SimpleNamespace(try_number=try_number, **fields), "exception": error, **more}


def read_records(store: Store) -> list[FailureRecord]:
    return read_failures(store, "market_daily", "session__2026-01-15")


def test_a_failed_step_is_recorded_with_kind_reason_and_advice(store: Store) -> None:
    on_task_failure(make_context(PermanentStepError("train: too little (65)", ExitCode.INVALID_DATA, "train: too little")))
    [record] = read_records(store)
    assert (record.meaning, record.reason, record.will_retry, record.attempt, record.max_attempts) == (
        "invalid data",
        "train: too little",
        False,
        1,
        1,
    )
    assert record.advice.startswith("Check the object")


def test_a_reason_with_control_characters_is_recorded_as_one_line(store: Store) -> None:
    on_task_failure(make_context(ValueError("no\x00such\udcff\nbranch\x1b[31m")))
    assert [record.reason for record in read_records(store)] == ["no such  branch [31m"]


def test_a_retried_attempt_is_recorded_with_the_time_of_the_next(store: Store) -> None:
    on_task_retry(make_context(StepFailedError("x", ExitCode.SOURCE_UNAVAILABLE, 3, 12)))
    on_task_retry(make_context(StepFailedError("x", Termination.ERROR, 1, 4), try_number=2))
    source, error = read_records(store)
    assert (source.attempt, source.max_attempts, error.attempt) == (3, 12, 1)
    delays = [datetime.fromisoformat(record.next_attempt_at or "") - datetime.now(UTC) for record in (source, error)]
    assert [round(delay.total_seconds() / 60) for delay in delays] == [30, 5]


def test_a_task_that_is_no_step_is_recorded_too(store: Store) -> None:
    on_task_failure(make_context(ValueError("no such branch")))
    [record] = read_records(store)
    assert (record.meaning, record.reason) == ("failed", "no such branch")


def test_a_record_that_cannot_be_stored_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/file")
    on_task_failure(make_context(StepFailedError("it broke", Termination.ERROR)))
    assert "cannot store the failure record" in caplog.text + capsys.readouterr().out


def test_the_last_record_of_an_attempt_replaces_the_others(store: Store) -> None:
    for reason in ("first", "second"):
        on_task_failure(make_context(StepFailedError(reason, Termination.ERROR)))
    assert [record.reason for record in read_records(store)] == ["second"]


@pytest.mark.parametrize("age", [None, 30, 3600], ids=["never", "recent", "an hour ago"])
def test_the_end_of_a_run_checks_the_monitors_heartbeat(
    age: int | None, store: Store, slack: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_ENABLED", "true")
    if age is not None:
        at = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
        store.replace(paths.MONITOR_HEARTBEAT, json.dumps({"at": at}).encode())
    run = SimpleNamespace(dag_id="market_daily", run_id="session__2026-01-15", state="success")
    on_run_end({"dag_run": run, "reason": "success"})
    texts = [message.text for message in slack.channel("workflows")]
    expected = {None: "The monitor may be down: it has written no heartbeat", 3600: "The monitor has been silent since"}
    assert [expected[age] in text for text in texts] == ([] if age == 30 else [True])


def test_an_unreadable_heartbeat_is_not_reported_as_a_silent_monitor(slack: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://me:hunter2@127.0.0.1:{closed.getsockname()[1]}"
    for name, value in {"ARTIFACTS": "s3://market/a", "AWS_ENDPOINT_URL": address, "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MONITOR_ENABLED", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "true")
    run = SimpleNamespace(dag_id="market_daily", run_id="session__2026-01-15", state="success")
    on_run_end({"dag_run": run, "reason": "success"})
    [message] = slack.channel("workflows")
    assert "The monitor may be down: its heartbeat cannot be read" in message.text
    assert "s3://market/a" in message.text and "check the object store" in message.text.lower()
    assert "silent" not in message.text and "no other messages" not in message.text and "hunter2" not in message.text


def test_a_run_that_timed_out_is_recorded(store: Store) -> None:
    run = SimpleNamespace(dag_id="market_daily", run_id="session__2026-01-15", state="failed")
    on_run_end({"dag_run": run, "reason": "timed_out"})
    [record] = read_records(store)
    assert record.task_id == "" and "exceeded its dagrun_timeout" in record.reason


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("cannot read s3://b: https://me:hunter2@host/x", "cannot read s3://b: https://***@host/x"),
        ("Authorization: token=abcdef1234 failed", "Authorization: *** failed"),
        ("xoxb-123-abc is no token", "*** is no token"),
        ("key AKIAABCDEFGHIJKLMNOP", "key ***"),
        ("the key of the bucket: s3cr3t-of-the-bucket", "the key of the bucket: ***"),
        ("train: Traceback (most recent call last):\n  File x\nValueError: no", "train: ValueError: no"),
    ],
)
def test_secrets_and_tracebacks_are_redacted(text: str, redacted: str) -> None:
    assert redact_text(text, {"AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-bucket"}) == redacted


def test_a_lost_workers_record_has_its_steps_termination(store: Store) -> None:
    lost = make_context(None, try_number=2)
    record_termination(lost["ti"], PermanentStepError("x", Termination.START_FAILED, 'train: secret "bucket" not found'))
    on_task_retry(make_context(None, try_number=1))
    on_task_retry(lost)
    unknown, known = read_records(store)
    assert (unknown.meaning, unknown.permanent) == ("failed", False)
    assert (known.meaning, known.permanent) == ("its pod did not start", True)
    assert 'secret "bucket" not found' in known.reason
    assert "the worker that should set the task's state was killed" in known.reason


@pytest.mark.parametrize("data", [b"[" * 100_000, b"null", b"[]", b'{"task_id": NaN}', b"\xef\xbb\xbf{}", b"{" + b" " * 2**20])
def test_an_invalid_record_or_heartbeat_is_not_fatal(data: bytes, store: Store) -> None:
    on_task_failure(make_context(ValueError("valid")))
    store.write(paths.failure("market_daily", "session__2026-01-15", "train", -1, 9), data)
    store.write(paths.MONITOR_HEARTBEAT, data)
    assert [record.reason for record in read_records(store)] == ["valid"]
    assert "cannot be read" in (check_heartbeat(store, datetime.now(UTC)) or "")


@pytest.mark.parametrize(
    "field", ["task_id", "map_index", "will_retry", "attempt", "max_attempts", "permanent", "next_attempt_at"]
)
def test_a_record_with_a_field_of_the_wrong_type_is_skipped(field: str, store: Store) -> None:
    on_task_failure(make_context(StepFailedError("it broke", Termination.ERROR)))
    [name] = store.list("monitor")
    store.write(name, json.dumps(json.loads(store.read(name) or b"") | {field: {"a": 1}}).encode())
    assert read_records(store) == []


def test_after_a_failed_write_the_store_is_not_asked_again_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=refuse, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("ARTIFACTS", "s3://circuit-breaker/market")
        for _ in range(3):
            on_task_failure(make_context(StepFailedError("it broke", Termination.ERROR)))
    printed = caplog.text + capsys.readouterr().out
    assert printed.count("cannot store the failure record") == 3 and printed.count("has just failed") == 2
