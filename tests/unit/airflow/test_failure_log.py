"""What is noted when a task fails, and who sees that nobody watches."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow_steps import failure_log
from airflow_steps.callbacks import at_end
from airflow_steps.redaction import discreet
from airflow_steps.retry_policy import StepFailed, StepRefused
from slack_stand_in.state import StandIn
from step_contract import paths
from step_contract.errors import ExitCode, Termination
from step_contract.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    return Store(f"file://{tmp_path}/artifacts")


def context(error: Exception | None, number: int = 1, **more: Any) -> Any:
    task = SimpleNamespace(retry_delay=timedelta(minutes=5))
    fields = {"dag_id": "market_daily", "run_id": "session__2026-01-15", "task_id": "train", "map_index": -1, "task": task}
    return {"ti": SimpleNamespace(try_number=number, **fields), "exception": error, **more}


def noted(store: Store) -> list[failure_log.Note]:
    return failure_log.read(store, "market_daily", "session__2026-01-15")


def test_a_step_that_failed_is_noted_with_its_class_its_own_words_and_what_to_do(store: Store) -> None:
    failure_log.note_failure(context(StepRefused("train: too little (65)", ExitCode.INVALID_DATA, "train: too little")))
    [note] = noted(store)
    assert (note.meaning, note.why, note.again, note.times, note.tries) == (
        "the data is wrong",
        "train: too little",
        False,
        1,
        1,
    )
    assert note.advice.startswith("Look at the object")


def test_a_try_that_is_not_the_last_is_noted_with_when_the_next_one_is(store: Store) -> None:
    failure_log.note_retry(context(StepFailed("x", ExitCode.SOURCE_UNAVAILABLE, 3, 12)))
    failure_log.note_retry(context(StepFailed("x", Termination.ERROR, 1, 4), number=2))
    source, fault = noted(store)
    assert (source.times, source.tries, fault.times) == (3, 12, 1)
    waits = [datetime.fromisoformat(note.next_at or "") - datetime.now(UTC) for note in (source, fault)]
    assert [round(wait.total_seconds() / 60) for wait in waits] == [30, 5]


def test_a_task_that_is_no_step_is_noted_too(store: Store) -> None:
    failure_log.note_failure(context(ValueError("no such branch")))
    [note] = noted(store)
    assert (note.meaning, note.why) == ("it failed", "no such branch")


def test_a_note_that_cannot_be_written_changes_nothing_for_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/file")
    failure_log.note_failure(context(StepFailed("it broke", Termination.ERROR)))
    assert "could not be noted" in caplog.text + capsys.readouterr().out


def test_of_a_try_that_is_noted_twice_the_last_word_holds(store: Store) -> None:
    for why in ("first", "second"):
        failure_log.note_failure(context(StepFailed(why, Termination.ERROR)))
    assert [note.why for note in noted(store)] == ["second"]


@pytest.mark.parametrize("age", [None, 30, 3600], ids=["never", "lately", "an hour ago"])
def test_each_end_of_a_run_sees_whether_the_watcher_is_alive(
    age: int | None, store: Store, slack: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHED", "true")
    if age is not None:
        at = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
        store.replace(paths.MONITOR_HEARTBEAT, json.dumps({"at": at}).encode())
    run = SimpleNamespace(dag_id="market_daily", run_id="session__2026-01-15", state="success")
    at_end({"dag_run": run, "reason": "success"})
    told = [one.text for one in slack.channel("workflows")]
    assert ["The watcher has been silent since" in text for text in told] == ([] if age == 30 else [True])


def test_a_run_that_was_ended_by_its_time_limit_is_noted_whoever_watches(store: Store) -> None:
    run = SimpleNamespace(dag_id="market_daily", run_id="session__2026-01-15", state="failed")
    at_end({"dag_run": run, "reason": "timed_out"})
    [note] = noted(store)
    assert note.task_id == "" and "longer than it may" in note.why


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot read s3://b: https://me:hunter2@host/x", "cannot read s3://b: https://***@host/x"),
        ("Authorization: token=abcdef1234 failed", "Authorization: *** failed"),
        ("xoxb-123-abc is no token", "*** is no token"),
        ("key AKIAABCDEFGHIJKLMNOP", "key ***"),
        ("the key of the bucket: s3cr3t-of-the-bucket", "the key of the bucket: ***"),
        ("train: Traceback (most recent call last):\n  File x\nValueError: no", "train: ValueError: no"),
    ],
)
def test_no_message_holds_a_secret_or_a_traceback(text: str, shown: str) -> None:
    assert discreet(text, {"AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-bucket"}) == shown


def test_of_a_worker_that_is_lost_the_note_says_how_its_step_had_ended(store: Store) -> None:
    lost = context(None, number=2)
    failure_log.note_step_end(lost["ti"], StepRefused("x", Termination.START_FAILED, 'train: secret "bucket" not found'))
    failure_log.note_retry(context(None, number=1))
    failure_log.note_retry(lost)
    unknown, known = noted(store)
    assert (unknown.meaning, unknown.final, known.meaning, known.final) == ("it failed", False, "its pod did not start", True)
    assert 'secret "bucket" not found' in known.why and "the worker that was to settle it was killed" in known.why
