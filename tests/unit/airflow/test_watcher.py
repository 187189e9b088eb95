"""What a channel reads: the watcher behind the real slack_sdk, Slack and Airflow's API as stand-ins over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from airflow_steps.failure_log import FailureRecord
from airflow_watcher.airflow_api import Airflow
from airflow_watcher.ledger import Ledger
from airflow_watcher.message import Limits, Pages
from airflow_watcher.rounds import Watcher
from airflow_watcher.slack import Slack
from airflow_watcher.telling import Telling
from slack_stand_in.channel import Message
from slack_stand_in.state import StandIn
from step_contract import paths
from step_contract.commit import Content, commit
from step_contract.store import Store

from .airflow_rest import AirflowApi, airflow_api, dag, utc

SIX = utc("2026-01-15 09:00")  # in the evening, in Seoul
RUN = "session__2026-01-15"
OPEN = {"state": "open", "reason": "a session of the XKRX calendar", "summary": "open: a session of the XKRX calendar"}
PRICES = {"close": 4797.55, "change": 0.0159, "summary": "KS11 closed at 4797.55"}


class Watched:
    """A watcher with all that it needs; `restart` makes another one with nothing but what was kept."""

    def __init__(self, airflow: AirflowApi, slack: StandIn, store: Store) -> None:
        self.airflow, self.slack, self.store = airflow, slack, store
        self.restart(SIX)

    def restart(self, now: datetime, channel: str = "workflows") -> None:
        telling = Telling(Slack(channel, pace=0), Ledger(self.store))
        api = Airflow(self.airflow.url, "watcher", "secret")
        self.watcher = Watcher(api, telling, self.store, channel, Pages("https://airflow.example"), Limits(), now)

    def look(self, now: datetime = SIX) -> None:
        self.watcher.telling.slack._until = 0.0  # as if the pause that Slack asked for were over
        self.watcher.round(now)

    def note(self, task: str, number: int = 1, *, again: bool = False, why: str = "it broke", **more: object) -> None:
        fields = {"meaning": "the data is wrong", "advice": "Look at it.", "attempt": 1, "max_attempts": 1} | more
        note = FailureRecord(task, -1, number, again, reason=why, recorded_at=SIX.isoformat(), **fields)  # type: ignore[arg-type]
        self.store.create(paths.failure("market_daily", RUN, task, -1, number), note.to_json())

    def lines(self) -> list[str]:
        """What the channel shows, without the threads: each message's first line."""
        return [one.text.splitlines()[0] for one in self.slack.channel("workflows")]

    def sent(self) -> list[Message]:
        """Every message, those in threads too."""
        return [one for channel in self.slack.workspace.messages.values() for one in channel.values()]

    def thread(self) -> list[str]:
        """The replies to the first message."""
        return [one.text for one in self.sent() if one.is_reply]


@pytest.fixture
def watched(tmp_path: Path, slack: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    with airflow_api() as airflow:
        yield Watched(airflow, slack, Store(f"file://{tmp_path}/artifacts"))


def a_day(airflow: AirflowApi, *, state: str = "running") -> None:
    airflow.add_run(RUN, state, at=SIX)
    airflow.add_task(RUN, "decide", "success", at=SIX)
    airflow.hand_over(RUN, "decide", OPEN, "file:///x/decisions/manifest.json")


def test_a_run_is_one_message_that_is_brought_up_to_date(watched: Watched) -> None:
    a_day(watched.airflow)
    watched.airflow.add_task(RUN, "fetch_prices", "deferred", at=SIX, trigger={"triggerer_id": 1})
    watched.look()
    assert watched.lines() == [":large_blue_circle: *Thu 15 Jan 2026*  `fetch_prices` …"]
    watched.airflow.add_task(RUN, "fetch_prices", "success", at=SIX)
    watched.airflow.hand_over(RUN, "fetch_prices", PRICES)
    watched.airflow.add_run(RUN, "success", at=SIX)
    watched.look(SIX + timedelta(seconds=30))
    assert watched.lines() == [":large_green_circle: *Thu 15 Jan 2026*  closed at 4,797.55 (+1.59%)"]
    assert (len(watched.slack.calls("chat.postMessage")), len(watched.slack.calls("chat.update"))) == (1, 1)


def test_nothing_new_is_nothing_said_also_by_a_watcher_that_starts_anew(watched: Watched) -> None:
    a_day(watched.airflow, state="success")
    for minute in range(3):
        watched.look(SIX + timedelta(seconds=minute))
    watched.restart(SIX + timedelta(minutes=2))
    watched.look(SIX + timedelta(minutes=2))
    assert [one["method"] for one in watched.slack.received] == ["chat.postMessage"]


@pytest.mark.parametrize(
    ("state", "reason", "line"),
    [
        ("closed", "Lunar New Year's Day", ":white_circle: *Thu 15 Jan 2026*  closed: Lunar New Year's Day"),
        ("suspect", "no bar", ":large_orange_circle: *Thu 15 Jan 2026*  suspect: no bar"),
    ],
)
def test_a_day_without_a_session_says_why(watched: Watched, state: str, reason: str, line: str) -> None:
    watched.airflow.add_run(RUN, "success", at=SIX)
    watched.airflow.add_task(RUN, "decide", "success", at=SIX)
    watched.airflow.hand_over(RUN, "decide", {"state": state, "reason": reason, "summary": f"{state}: {reason}"})
    watched.look()
    assert watched.lines()[0] == line
    alerts = [one.text for one in watched.slack.channel("workflows") if one.broadcast]
    assert len(alerts) == (state == "suspect")
    assert all("overrides.csv" in json.dumps(one.blocks) for one in watched.slack.channel("workflows") if one.broadcast)


def test_a_failure_is_one_alert_with_class_reason_what_to_do_and_links(watched: Watched) -> None:
    a_day(watched.airflow, state="failed")
    watched.airflow.add_task(RUN, "fetch_prices", "failed", at=SIX)
    watched.airflow.add_task(RUN, "train", "upstream_failed", at=SIX)
    watched.note("fetch_prices", why="fetch-prices: line 11: 'x' is <no> number")
    for later in (0, 50, 100):
        watched.look(SIX + timedelta(seconds=later))
    root, alert = watched.slack.channel("workflows")
    assert root.text == ":red_circle: *Thu 15 Jan 2026*  `fetch_prices` failed: the data is wrong"
    assert alert.broadcast and alert.thread_ts == root.ts
    shown = json.dumps(alert.blocks)
    for part in (
        "&lt;no&gt; number",
        "*Do:* Look at it.",
        "try 1 of 1",
        "tasks/fetch_prices?try_number=1|log>",
    ):
        assert part in shown
    assert watched.slack.calls("chat.update") == []


def test_a_source_that_is_down_all_evening_is_one_quiet_reply_and_one_alert(watched: Watched) -> None:
    a_day(watched.airflow)
    for number in range(1, 12):
        watched.airflow.add_task(RUN, "fetch_prices", "up_for_retry", at=SIX, number=number)
        next_at = (SIX + timedelta(minutes=30 * number)).isoformat()
        watched.note(
            "fetch_prices",
            number,
            again=True,
            meaning="the source is down",
            attempt=number,
            max_attempts=12,
            next_attempt_at=next_at,
        )
        watched.look(SIX + timedelta(minutes=number))
    assert watched.lines() == [
        ":large_yellow_circle: *Thu 15 Jan 2026*  `fetch_prices` is tried again at 23:30: the source is down"
    ]
    [reply] = [one for one in watched.sent() if one.is_reply]
    assert not reply.broadcast and "try 11 of 12" in json.dumps(reply.blocks)
    watched.airflow.add_task(RUN, "fetch_prices", "failed", at=SIX, number=12)
    watched.airflow.add_run(RUN, "failed", at=SIX, took=20 * 60)
    watched.note("fetch_prices", 12, meaning="the source is down", attempt=12, max_attempts=12)
    watched.look(SIX + timedelta(minutes=20))
    assert sum(one.broadcast for one in watched.sent()) == 1


def test_a_task_whose_process_was_killed_is_told_without_a_note(watched: Watched) -> None:
    a_day(watched.airflow, state="failed")
    watched.airflow.add_task(RUN, "branch", "failed", at=SIX)
    watched.look(SIX + timedelta(seconds=5))
    assert not watched.thread()  # its note may still come
    watched.look(SIX + timedelta(seconds=60))
    [alert] = [one for one in watched.sent() if one.broadcast]
    assert "nobody noted why" in json.dumps(alert.blocks)


def test_what_is_tried_again_though_it_gives_the_same_is_shown_in_the_channel_too(watched: Watched) -> None:
    """As when the worker that was to end the task is lost: only Airflow's own number of tries holds then."""
    a_day(watched.airflow)
    watched.airflow.add_task(RUN, "fetch_prices", "up_for_retry", at=SIX)
    watched.note("fetch_prices", again=True, permanent=True)
    watched.look()
    [alert] = [one for one in watched.sent() if one.broadcast]
    assert "it is tried again" in alert.text


def test_a_failure_that_was_mended_says_so_and_a_second_one_is_a_second_alert(watched: Watched) -> None:
    a_day(watched.airflow, state="failed")
    watched.airflow.add_task(RUN, "train", "failed", at=SIX, number=1)
    watched.note("train", 1)
    watched.look()
    watched.airflow.add_task(RUN, "train", "failed", at=SIX, number=2)
    watched.note("train", 2)
    watched.look(SIX + timedelta(seconds=10))
    watched.airflow.add_task(RUN, "train", "success", at=SIX, number=3)
    watched.airflow.add_run(RUN, "success", at=SIX)
    watched.look(SIX + timedelta(seconds=20))
    alerts = [one for one in watched.sent() if one.broadcast]
    assert len(alerts) == 2
    assert all("Since then: try 3, success" in json.dumps(one.blocks) for one in alerts)
    assert watched.lines()[0].startswith(":large_green_circle:")


def test_a_run_that_takes_long_is_told_once_with_what_it_waits_for(watched: Watched) -> None:
    a_day(watched.airflow)
    watched.airflow.add_task(RUN, "fetch_prices", "running", at=SIX)
    for minutes in (59, 61, 62):
        watched.look(SIX + timedelta(minutes=minutes))
    late = [one for one in watched.sent() if "is late" in one.text]
    assert len(late) == 1 and late[0].broadcast and "`fetch_prices` (running)" in json.dumps(late[0].blocks)


def test_a_trigger_that_nobody_runs_is_told_and_that_it_goes_on(watched: Watched) -> None:
    a_day(watched.airflow)
    watched.airflow.add_task(RUN, "train", "deferred", at=SIX, trigger={"triggerer_id": None})
    for minutes in (20, 21, 23, 24):  # it ran well for long: what counts is since when nobody runs it
        watched.look(SIX + timedelta(minutes=minutes))
        assert len([one for one in watched.sent() if one.broadcast]) == (minutes > 22)
    [alert] = [one for one in watched.sent() if one.broadcast]
    assert "no triggerer runs its trigger" in alert.text
    watched.airflow.add_task(RUN, "train", "deferred", at=SIX, trigger={"triggerer_id": 7})
    for minutes in (25, 26):
        watched.look(SIX + timedelta(minutes=minutes))
    assert alert.text.endswith("_That is over._") and len(watched.slack.calls("chat.update")) == 1


def test_what_airflow_cannot_say_of_itself_is_told_and_its_end(watched: Watched) -> None:
    watched.airflow.health["scheduler"]["status"] = "unhealthy"
    watched.airflow.errors = [{"filename": "market_daily.py", "stack_trace": "Traceback\n  File …\nNameError: name 'x'"}]
    watched.airflow.dags = [dag("market_daily", next_due=SIX), dag("by_hand", is_stale=True, has_import_errors=True)]
    for minutes in (1, 3, 6, 7):
        watched.look(SIX + timedelta(minutes=minutes))
    told = watched.lines()
    wanted = ("scheduler is unhealthy", "market_daily.py` does not load", "`market_daily` should have run at 18:00")
    assert len(told) == 3 and all(any(what in line for line in told) for what in wanted)
    assert "NameError: name 'x'" in told[0] + told[1] and "File" not in told[0] + told[1]
    watched.restart(SIX + timedelta(minutes=8))
    watched.airflow.health["scheduler"]["status"] = "healthy"
    watched.airflow.errors, watched.airflow.dags = [], []
    for minutes in (8, 9):
        watched.look(SIX + timedelta(minutes=minutes))
    assert len(watched.lines()) == 3 and all(line.startswith(":white_check_mark: Over") for line in watched.lines())


def test_a_dag_that_nobody_runs_any_more_is_told_and_its_end(watched: Watched) -> None:
    watched.airflow.dags = [dag("market_daily", next_due=SIX, is_paused=True), dag("market_history", is_stale=True)]
    watched.look(SIX + timedelta(minutes=59))
    assert not watched.lines()
    watched.look(SIX + timedelta(minutes=62))
    assert watched.lines() == [
        ":red_circle: `market_daily` is paused, and was due at 18:00 on Thu 15 Jan 2026",
        ":red_circle: `market_history` is in no DAG file any more, so it does not run",
    ]
    watched.airflow.dags = []
    for minutes in (63, 72, 73):  # both are deleted in the UI, which leaves none at all
        watched.look(SIX + timedelta(minutes=minutes))
    assert [line.split(":")[1] for line in watched.lines()] == ["white_check_mark", "white_check_mark", "red_circle"]
    assert "Airflow knows no DAG" in watched.lines()[-1]


def test_an_api_that_does_not_answer_is_told_and_nothing_is_over_meanwhile(watched: Watched) -> None:
    watched.airflow.health["triggerer"]["status"] = "unhealthy"
    for minutes in (0, 3):
        watched.look(SIX + timedelta(minutes=minutes))
    watched.airflow.down = True
    for minutes in (4, 7, 8):
        watched.look(SIX + timedelta(minutes=minutes))
    assert [line.startswith(":red_circle:") for line in watched.lines()] == [True, True]
    assert "API does not say how runs are getting on: 503 Service Unavailable" in watched.lines()[1]


def test_a_database_that_is_away_is_told_as_that(watched: Watched) -> None:
    watched.look()
    watched.airflow.health["metadatabase"]["status"] = "unhealthy"
    for minutes in (1, 4):
        watched.look(SIX + timedelta(minutes=minutes))
    [line] = watched.lines()
    assert "it cannot reach its database" in line


def test_what_slack_missed_while_it_was_down_is_told_once_it_is_back(watched: Watched) -> None:
    watched.slack.down = True
    a_day(watched.airflow, state="failed")
    watched.airflow.add_task(RUN, "train", "failed", at=SIX)
    watched.note("train")
    for hours in range(5):
        watched.look(SIX + timedelta(hours=hours))
    watched.restart(SIX + timedelta(hours=6))
    watched.look(SIX + timedelta(hours=6))
    watched.slack.down = False
    later(watched.store)
    for hours in (7, 8):
        watched.look(SIX + timedelta(hours=hours))
    assert [one.broadcast for one in watched.slack.channel("workflows")] == [False, True]


@pytest.mark.parametrize(
    "fault", [{"drop": True}, {"status": 503}, {"status": 429, "retry_after": 3}, {"error": "internal_error"}]
)
@pytest.mark.parametrize("restart", [False, True], ids=["same watcher", "restarted"])
def test_an_answer_that_is_lost_doubles_no_message(watched: Watched, fault: dict[str, object], restart: bool) -> None:
    a_day(watched.airflow, state="failed")
    watched.airflow.add_task(RUN, "train", "failed", at=SIX)
    watched.note("train")
    now = datetime.now(UTC)
    for _ in range(3):
        watched.slack.faults({"method": "chat.postMessage", "times": 1, **fault})
        watched.look(SIX)
        if restart:
            watched.restart(SIX)
            later(watched.store)
        watched.look(SIX)
    assert [one.broadcast for one in watched.slack.channel("workflows")] == [False, True]
    assert datetime.now(UTC) - now < timedelta(seconds=30)


def later(store: Store) -> None:
    """Makes every claim old enough that nobody can still be at it."""
    for name in store.list("monitor/channel=workflows"):
        told = json.loads(store.read(name) or b"")
        store.replace(name, json.dumps(told | {"claimed": "2026-01-01T00:00:00+00:00"}).encode())


def test_two_watchers_at_once_tell_nothing_twice(watched: Watched) -> None:
    first = watched.watcher
    watched.restart(SIX)
    a_day(watched.airflow, state="failed")
    watched.airflow.add_task(RUN, "train", "failed", at=SIX)
    watched.note("train")
    for _ in range(3):
        first.round(SIX)
        watched.look(SIX)
    assert len(watched.slack.calls("chat.postMessage")) == 2


def test_a_backfill_is_one_message_whatever_its_sessions_do(watched: Watched) -> None:
    at = SIX + timedelta(seconds=5)
    watched.airflow.backfills = [
        {"id": 3, "dag_id": "market_daily", "from_date": "2026-01-05T00:00:00Z", "to_date": "2026-01-30T00:00:00Z"}
        | {"created_at": SIX.isoformat(), "completed_at": None}
    ]
    for number in range(5, 30):
        state = "failed" if number in (7, 9) else "success"
        day, logical_date = f"2026-01-{number:02}", f"2026-01-{number:02}T09:00:00+00:00"
        watched.airflow.add_run(f"session__{day}", state, at=at, logical_date=logical_date, run_type="backfill")
        watched.look(at)
    assert [one.broadcast for one in watched.slack.channel("workflows")] == [False, True]
    root, alert = watched.slack.channel("workflows")
    assert "*Backfill of market_daily, Mon 5 Jan 2026 to Fri 30 Jan 2026*  23 of 25 done, 2 failed" in root.text
    assert "2026-01-07" in alert.text and "2026-01-09" in alert.text


def test_a_dag_that_is_quiet_is_not_told_of(watched: Watched) -> None:
    watched.airflow.add_run("smoke__1", "failed", at=SIX, dag_id="market_smoke")
    watched.look()
    assert watched.lines() == []


def test_what_was_before_the_first_watcher_is_not_told(watched: Watched) -> None:
    watched.airflow.add_run("session__2026-01-14", "failed", at=SIX - timedelta(days=1))
    watched.look()
    assert watched.lines() == []


def test_a_bucket_that_is_down_is_told_and_its_end(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("no folder")
    for minutes in (0, 1, 2, 3):
        watched.look(SIX + timedelta(minutes=minutes))
    [line] = watched.lines()
    assert line.startswith(":red_circle: the object store cannot be ")
    (tmp_path / "artifacts").unlink()
    for minutes in (4, 5):
        watched.look(SIX + timedelta(minutes=minutes))
    assert [line.startswith(":white_check_mark: Over") for line in watched.lines()] == [True]


def test_a_bucket_that_is_down_silences_nobody(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("no folder")
    a_day(watched.airflow, state="failed")
    watched.airflow.add_task(RUN, "train", "failed", at=SIX)
    for seconds in (0, 60, 70):
        watched.look(SIX + timedelta(seconds=seconds))
    assert [one.broadcast for one in watched.slack.channel("workflows")] == [False, True]


def test_a_message_that_slack_refuses_is_sent_plainly_and_stops_no_other(watched: Watched) -> None:
    watched.slack.faults({"method": "chat.postMessage", "times": 1, "error": "invalid_blocks"})
    a_day(watched.airflow, state="failed")
    watched.airflow.add_task(RUN, "train", "failed", at=SIX)
    watched.note("train")
    for _ in range(2):
        watched.look()
    root, alert = watched.slack.channel("workflows")
    assert root.text.startswith(":red_circle: *Thu 15 Jan 2026*") and alert.broadcast


def test_a_message_that_somebody_deleted_does_not_come_back(watched: Watched) -> None:
    a_day(watched.airflow)
    watched.look()
    watched.slack.faults({"method": "chat.update", "times": 1, "error": "message_not_found"})
    watched.airflow.add_run(RUN, "success", at=SIX)
    for _ in range(3):
        watched.look()
    assert len(watched.slack.calls("chat.postMessage")) == len(watched.slack.calls("chat.update")) == 1


def with_picture(watched: Watched, *, damaged: bool = False) -> None:
    content = Content({"forecast.png": b"\x89PNG a picture"}, rows=0, schema_version=1, facts={})
    made = commit(watched.store, "plots/x", step="plot", session=date(2026, 1, 15), inputs={}, content=content)
    if damaged:
        [picture] = Path(watched.store.root.removeprefix("file://")).rglob("*.png")
        picture.write_bytes(b"something else")
    a_day(watched.airflow, state="success")
    watched.airflow.add_task(RUN, "plot", "success", at=SIX)
    watched.airflow.hand_over(RUN, "plot", {"summary": "plotted"}, made.uri, picture=True)


@pytest.mark.parametrize("fault", [None, {"method": "files.completeUploadExternal", "times": 1, "drop": True}])
def test_the_picture_comes_once_into_the_thread_byte_for_byte(watched: Watched, fault: dict[str, object] | None) -> None:
    with_picture(watched)
    if fault:
        watched.slack.faults(fault)
    for _ in range(3):
        watched.look()
    [message] = [one for one in watched.sent() if one.files]
    assert message.is_reply
    assert watched.slack.workspace.content(message.files[0]) == b"\x89PNG a picture"


def test_a_damaged_picture_is_not_sent_and_stops_nothing(watched: Watched) -> None:
    with_picture(watched, damaged=True)
    for _ in range(2):
        watched.look()
    assert [one for one in watched.sent() if one.files] == [] and len(watched.lines()) == 1


@pytest.mark.parametrize("error", ["invalid_auth", "missing_scope", "channel_not_found", "not_in_channel", "is_archived"])
def test_a_slack_that_is_set_up_wrongly_is_told_once_it_is_mended(
    watched: Watched, error: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.slack.faults({"method": "chat.postMessage", "times": 2, "error": error})
    a_day(watched.airflow)
    for _ in range(4):
        watched.look()
    assert len(watched.lines()) == 1
    assert "make slack-test" in caplog.text + capsys.readouterr().out


def test_without_a_connection_the_log_says_once_what_would_have_been_sent(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_CONN")
    caplog.set_level("INFO")
    a_day(watched.airflow)
    for _ in range(3):
        watched.look()
    assert (caplog.text + capsys.readouterr().out).count("so not sent to #workflows") == 1


def test_a_run_that_somebody_deletes_does_not_go_on_for_ever(watched: Watched) -> None:
    a_day(watched.airflow)
    watched.look()
    watched.airflow.runs = []
    for _ in range(2):
        watched.look()
    assert watched.lines() == [":black_circle: *Thu 15 Jan 2026*  was deleted in Airflow before it had ended"]


def test_a_late_run_that_fails_in_the_end_is_told_as_late_once_and_as_failed_once(watched: Watched) -> None:
    a_day(watched.airflow)
    watched.airflow.add_task(RUN, "train", "running", at=SIX)
    watched.look(SIX + timedelta(minutes=61))
    watched.airflow.add_run(RUN, "failed", at=SIX, took=70 * 60)
    watched.airflow.add_task(RUN, "train", "failed", at=SIX)
    watched.note("train")
    for minutes in (71, 72):
        watched.look(SIX + timedelta(minutes=minutes))
    alerts = [one.text for one in watched.sent() if one.broadcast]
    assert ["is late" in alert for alert in alerts] == [True, False]


def test_a_run_by_hand_whose_logical_date_is_ahead_is_not_late_before_it(watched: Watched) -> None:
    morning = SIX - timedelta(hours=7, minutes=30)
    watched.airflow.add_run("manual__1", at=morning, logical_date=SIX.isoformat(), run_type="manual")
    watched.look(SIX - timedelta(minutes=5))
    assert not [one for one in watched.sent() if "is late" in one.text]
    watched.look(SIX + timedelta(minutes=61))
    assert [one for one in watched.sent() if "is late" in one.text]


def test_a_failed_run_that_is_cleared_the_next_morning_is_not_late(watched: Watched) -> None:
    a_day(watched.airflow, state="failed")
    watched.look(SIX)
    morning = SIX + timedelta(hours=14)
    watched.airflow.add_run(RUN, "running", at=morning, run_after=SIX.isoformat(), updated_at=morning.isoformat())
    watched.look(morning + timedelta(minutes=5))
    assert "is late" not in str([one.text for one in watched.sent()])


def test_another_channel_hears_of_what_comes_and_not_of_what_the_last_one_was_told(watched: Watched) -> None:
    a_day(watched.airflow, state="success")
    for minutes in (0, 8):
        watched.look(SIX + timedelta(minutes=minutes))
    watched.restart(SIX + timedelta(minutes=9), "another")
    watched.airflow.add_run("session__2026-01-16", at=SIX + timedelta(minutes=9), logical_date="2026-01-16T09:00:00+00:00")
    watched.look(SIX + timedelta(minutes=9))
    assert [one.text.split("*")[1] for one in watched.slack.channel("another")] == ["Fri 16 Jan 2026"]
