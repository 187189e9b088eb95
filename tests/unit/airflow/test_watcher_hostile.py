"""A watcher that nothing silences: odd data, damaged objects, a store and an API that do not answer as they should."""

from __future__ import annotations

import json
import socket
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow_steps.failure_log import FailureRecord
from airflow_watcher.slack import LONGEST_PAUSE, _seconds
from step_contract import paths
from step_contract.errors import TransientError
from step_contract.store import CircuitBreakerStore

from .airflow_rest import dag
from .test_watcher import RUN, SIX, Watched, a_day, watched

__all__ = ["watched"]
OTHER = "session__2026-01-16"


def lines_of_both(watched: Watched) -> list[str]:
    watched.airflow.add_run(OTHER, at=SIX + timedelta(days=1))
    for seconds in (0, 60):
        watched.look(SIX + timedelta(days=1, seconds=seconds))
    return [one.text for one in watched.slack.channel("workflows") if not one.is_reply]


@pytest.mark.parametrize(
    "facts",
    [
        {"close": None, "change": 0.1},
        {"close": "n/a", "change": "n/a"},
        {"promotion": None, "horizon": "<!channel>", "summary": 7},
        {"headlines": 3, "broken": 2},
        {"state": "closed"},
        ["no", "mapping"],
        "text",
    ],
)
def test_what_a_step_hands_over_silences_neither_its_run_nor_another(watched: Watched, facts: Any) -> None:
    a_day(watched.airflow)
    watched.airflow.hand_over(RUN, "decide", facts)
    assert len(lines_of_both(watched)) == 2
    assert "<!channel>" not in str(watched.sent())


@pytest.mark.parametrize(
    "note",
    [b"", b"[]", b"null", b'{"task_id": "decide"}', b"\xff", b'{"reason": null}']
    + [
        json.dumps(
            {"task_id": "decide", "map_index": -1, "try_number": 1, "will_retry": True, "meaning": "x", "advice": "x"} | odd
        ).encode()
        for odd in (
            {"reason": None, "recorded_at": "", "attempt": 1, "max_attempts": 1},
            {"reason": "x", "recorded_at": "tomorrow", "attempt": None, "max_attempts": None},
            {
                "reason": "Traceback (most recent call last)",
                "recorded_at": SIX.isoformat(),
                "attempt": None,
                "max_attempts": None,
            },
        )
    ],
)
def test_a_damaged_note_silences_nobody(watched: Watched, note: bytes) -> None:
    a_day(watched.airflow, state="failed")
    watched.airflow.add_task(RUN, "decide", "failed", at=SIX)
    watched.store.replace(paths.failure("market_daily", RUN, "decide", -1, 1), note)
    assert len(lines_of_both(watched)) == 2
    assert [one for one in watched.sent() if one.broadcast]


@pytest.mark.parametrize(
    "written", [b"", b"[]", b"{}", b"\xff", b'{"claimed": "never"}', b'{"claimed": "2026-01-01"}', b'{"ts": 5}']
)
def test_a_damaged_record_of_what_was_told_silences_nobody_and_doubles_nothing(watched: Watched, written: bytes) -> None:
    a_day(watched.airflow)
    watched.look()
    [record] = watched.store.list("monitor/channel=workflows")
    watched.store.replace(record, written)
    watched.restart(SIX)
    assert len(lines_of_both(watched)) == 2


@pytest.mark.parametrize(
    "written", [b"null", b"[1]", b"{}", b"\xff", b'{"told_until": 5}', b'{"told_until": "2026-01-15", "troubles": null}']
)
def test_a_watcher_starts_whatever_the_one_before_wrote_down(watched: Watched, written: bytes) -> None:
    watched.store.replace(paths.MONITOR_HEARTBEAT, written)
    watched.restart(SIX)
    a_day(watched.airflow)
    watched.look()
    assert len(watched.lines()) == 1


def test_an_address_that_is_not_airflows_is_told_as_an_api_that_does_not_answer(watched: Watched) -> None:
    watched.look()
    watched.airflow.health = {"detail": "not found"}
    for minutes in (1, 4):
        watched.look(SIX + timedelta(minutes=minutes))
    assert "API does not say how runs are getting on" in watched.lines()[0]


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("30", 30), (["7"], 7), ("0", 1), ("1000000000", LONGEST_PAUSE), ("nan", 5), ("Wed, 21 Oct", 5), (None, 5)],
)
def test_slack_is_waited_for_as_long_as_it_asks_and_within_bounds(said: Any, seconds: float) -> None:
    assert _seconds(said) == seconds


@pytest.mark.slow
def test_a_store_that_hangs_is_waited_for_once_and_for_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # it takes connections, and never answers
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        store, began = CircuitBreakerStore("s3://bucket/x"), time.monotonic()
        for _ in range(50):
            with pytest.raises(TransientError):
                store.read("something")
        assert time.monotonic() - began < 20


def test_a_run_with_a_secret_in_its_conf_shows_the_name_alone(watched: Watched) -> None:
    conf = {"password": "hunter22", "api_token": "abcdef12", "from": "2026-01-01", "nested": {"secret": "s3cr3t"}}
    watched.airflow.add_run("manual__1", "success", at=SIX, logical_date=None, conf=conf, dag_id="market_history")
    watched.look()
    assert "from 2026-01-01" in watched.lines()[0]
    assert not [secret for secret in ("hunter22", "abcdef12", "s3cr3t") if secret in str(watched.slack.received)]


def mapped(watched: Watched, state: str, **more: Any) -> None:
    a_day(watched.airflow)
    for number in range(60):
        watched.airflow.add_task(RUN, "m", state, at=SIX, map_index=number, **more)


def test_sixty_mapped_tasks_that_wait_are_one_alert(watched: Watched) -> None:
    mapped(watched, "queued")
    watched.look(SIX + timedelta(minutes=11))
    [alert] = [one for one in watched.sent() if one.broadcast]
    assert "60 mapped tasks" in alert.text


def test_a_day_that_waits_for_another_to_end_is_late_and_no_fault_of_the_schedulers(watched: Watched) -> None:
    watched.airflow.dags = [dag("market_daily", next_due=SIX)]
    a_day(watched.airflow)
    watched.look(SIX + timedelta(minutes=30))
    assert "no run was started" not in str(watched.lines())


def test_a_deletion_that_slack_missed_is_told_later(watched: Watched) -> None:
    a_day(watched.airflow)
    watched.look()
    watched.airflow.runs, watched.slack.down = [], True
    watched.look()
    watched.slack.down = False
    watched.look()
    assert watched.lines()[0].startswith(":black_circle:")


def test_a_server_that_gives_less_at_once_than_it_is_asked_for_is_read_to_the_end(watched: Watched) -> None:
    watched.airflow.page_limit = 20
    for number in range(70):
        watched.airflow.add_run(f"run{number}", at=SIX + timedelta(seconds=number))
    watched.look(SIX + timedelta(minutes=2))
    assert len(watched.lines()) == 70


def test_a_store_that_cannot_be_read_at_first_is_gone_on_from_once_it_can(watched: Watched, tmp_path: Path) -> None:
    a_day(watched.airflow)
    watched.look(SIX)
    watched.look(SIX + timedelta(minutes=2))
    (tmp_path / "artifacts").rename(tmp_path / "away")
    (tmp_path / "artifacts").write_text("no folder")
    later = datetime.fromisoformat("2026-01-15T12:00:00+00:00")
    watched.airflow.runs = []
    watched.restart(later)
    watched.look(later)
    (tmp_path / "artifacts").unlink()
    (tmp_path / "away").rename(tmp_path / "artifacts")
    watched.airflow.add_run("between", "success", at=SIX + timedelta(hours=1))
    watched.look(later)
    assert any("between" in str(one.metadata) for one in watched.sent())


@pytest.mark.slow
def test_whatever_is_huge_or_reads_as_markup_is_within_slacks_limits_and_pings_nobody(watched: Watched) -> None:
    odd = "<!channel> *_`|>&" * 3000
    a_day(watched.airflow, state="failed")
    for number in range(300):
        watched.airflow.add_task(RUN, "m", "failed", at=SIX, map_index=number)
        watched.store.replace(
            paths.failure("market_daily", RUN, "m", number, 1),
            FailureRecord("m", number, 1, False, odd, odd, odd, 1, 1, SIX.isoformat()).to_json(),
        )
    watched.airflow.add_task(RUN, "t" * 250, "success", at=SIX)
    watched.airflow.hand_over(RUN, "t" * 250, {"summary": odd, "state": odd, "reason": odd}, "file:///x/" + "y" * 3000)
    conf = {f"name {number}": odd for number in range(200)}
    watched.airflow.add_run("<@U1>", "success", at=SIX, logical_date=None, conf=conf, dag_id="d" * 250)
    watched.look()
    assert [one["error"] for one in watched.slack.received if one["error"]] == []
    assert len(watched.slack.calls("chat.postMessage")) == 3
    assert "<!channel>" not in str(watched.slack.received) and "<@U1>" not in [one.text for one in watched.sent()]
