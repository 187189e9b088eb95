"""A month of runs, as the person on call reads it in the channel. CHANNEL_PAGE=file.html keeps the page to look at."""

from __future__ import annotations

import csv
import os
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest
from airflow_steps.failure_log import FailureRecord
from commands import ROOT
from slack_stand_in.page import render_page
from step_contract import paths
from step_contract.commit import Content, commit

from .test_watcher import OPEN, Watched, watched

__all__ = ["watched"]
HOLIDAYS = {date(2026, 1, 1): "New Year's Day"}
LATE, SUSPECT, DAMAGED, EVICTED = date(2026, 1, 8), date(2026, 1, 13), date(2026, 1, 21), date(2026, 1, 15)
ADVICE = "Look at the object that the message names; another try gives the same."
NOT_BETTER = (
    "ot promoted, as it does not beat repeating the last close and the drift beyond noise: there is still no current model"
)
TRAINED = {
    "summary": "Out of sample (347 forecasts, 5 sessions ahead) it is off by 2.45%, repeating the last close by 2.49%. It does "
    "not reliably beat both that and the mere drift. It has the direction right 53% of the time (42% to 65%), and its 80% "
    f"interval held 66% of the time. N{NOT_BETTER}.",
    "promotion": f"n{NOT_BETTER}",
    "horizon": 5,
    "mae": 0.0245,
    "mae_naive": 0.0249,
    "skill": 0.016,
    "p_value": 0.31,
}


def bars() -> dict[str, dict[str, str]]:
    with (ROOT / "data/krx/index/year_ks11/2026.csv").open(encoding="utf-8-sig") as file:
        return {row["Date"]: row for row in csv.DictReader(file)}


class Month:
    """January 2026: every evening at six, with what can go wrong in a month."""

    def __init__(self, watched: Watched) -> None:
        self.watched, self.airflow, self.bars = watched, watched.airflow, bars()
        picture = (ROOT / "docs" / "forecast.png").read_bytes()
        content = Content({"forecast.png": picture}, rows=0, schema_version=1, facts={})
        plot = commit(watched.store, "plots/x", step="plot", session=date(2026, 1, 1), inputs={}, content=content)
        self.plot = plot.uri

    def evening(self, day: date) -> None:
        at = datetime.combine(day, time(9), UTC)
        run = f"session__{day}"
        self.airflow.add_run(run, at=at)
        self.airflow.add_task(run, "decide", "running", at=at)
        self.watched.look(at)
        self.airflow.add_task(run, "decide", "success", at=at)
        if day.weekday() > 4 or day in HOLIDAYS:
            reason = HOLIDAYS.get(day, "Saturday" if day.weekday() == 5 else "Sunday")
            self.airflow.hand_over(run, "decide", {"state": "closed", "reason": reason, "summary": f"closed: {reason}"})
        elif day == SUSPECT:
            reason = "the calendar says open, and the source has no bar"
            self.airflow.hand_over(run, "decide", {"state": "suspect", "reason": reason, "summary": f"suspect: {reason}"})
        else:
            self.airflow.hand_over(run, "decide", OPEN, f"{self.watched.store.root}/decisions/manifest.json")
            self.collect(run, day, at)
        if day.day in (1, 15):
            self.train(run, at)
        state = "failed" if day == DAMAGED else "success"
        took = timedelta(minutes=95) if day == LATE else timedelta(seconds=61 if day.day in (1, 15) else 24)
        self.airflow.add_run(run, state, at=at, took=took.total_seconds())
        self.watched.look(at + took)

    def collect(self, run: str, day: date, at: datetime) -> None:
        if day == LATE:
            for number in (1, 2, 3):
                self.airflow.add_task(run, "fetch_prices", "up_for_retry", at=at, number=number)
                self.note(run, "fetch_prices", number, at + timedelta(minutes=30 * number), number, 12)
                self.watched.look(at + timedelta(minutes=30 * number - 29))
            self.watched.look(at + timedelta(minutes=62))
        if day == DAMAGED:
            self.airflow.add_task(run, "fetch_prices", "failed", at=at)
            self.airflow.add_task(run, "fetch_headlines", "upstream_failed", at=at)
            self.note(run, "fetch_prices", 1, None, 1, 1)
            return
        bar = self.bars[str(day)]
        self.airflow.add_task(run, "fetch_prices", "success", at=at, number=4 if day == LATE else 1)
        close, change = float(bar["Close"]), float(bar["Change"])
        self.airflow.hand_over(run, "fetch_prices", {"close": close, "change": change, "summary": f"KS11 closed at {close}"})
        self.airflow.add_task(run, "fetch_headlines", "success", at=at)
        broken = {"broken": 1, "broken economy": "HTTP 503: the server is not well"} if day.day == 27 else {}
        self.airflow.hand_over(
            run, "fetch_headlines", {"headlines": 9 + day.day % 7, "feeds": 2, "summary": "headlines"} | broken
        )

    def train(self, run: str, at: datetime) -> None:
        if run.endswith(str(EVICTED)):
            self.airflow.add_task(run, "train", "up_for_retry", at=at)
            self.note(run, "train", 1, at + timedelta(seconds=30), 1, 6)
            self.watched.look(at + timedelta(seconds=30))
        self.airflow.add_task(run, "train", "success", at=at, number=2 if run.endswith(str(EVICTED)) else 1)
        self.airflow.hand_over(run, "train", TRAINED, f"{self.watched.store.root}/models/manifest.json")
        self.airflow.add_task(run, "plot", "success", at=at)
        self.airflow.hand_over(run, "plot", {"summary": "drawn"}, self.plot, picture=True)

    def note(self, run: str, task: str, number: int, next_at: datetime | None, times: int, tries: int) -> None:
        meaning, why, advice = (
            "the source has nothing yet or is down",
            "fetch-prices: 2026.csv has no bar of 2026-01-08 yet",
            "Wait.",
        )
        if tries == 1:
            meaning, advice = "the data is wrong", ADVICE
            why = "fetch-prices: https://source.example/2026.csv, line 15, column Close: 'x' is not a number"
        if task == "train":
            meaning, why = "its pod was taken away", "train: Evicted: the node was low on resource: memory"
            advice = "Nothing, while it is tried again; when it lasts, look at the nodes."
        next_text = next_at.isoformat() if next_at else None
        made = FailureRecord(task, -1, number, bool(next_at), meaning, why, advice, times, tries, f"{number}", next_text)
        self.watched.store.create(paths.failure("market_daily", run, task, -1, number), made.to_json())


@pytest.mark.slow
def test_a_month_is_a_line_a_day_and_an_alert_for_each_thing_that_a_person_must_see(watched: Watched) -> None:
    month = Month(watched)
    for number in range(31):
        month.evening(date(2026, 1, 1) + timedelta(days=number))
    if page := os.environ.get("CHANNEL_PAGE"):
        Path(page).write_text(render_page(watched.slack.workspace))
    channel = watched.slack.channel("workflows")
    days = [one.text for one in channel if not one.is_reply]
    assert len(days) == 31 and all(len(day) < 160 and "\n" not in day for day in days)
    signs = [day.split()[0] for day in days]
    assert (signs.count(":large_green_circle:"), signs.count(":white_circle:")) == (19, 10)
    alerts = [one.text for one in channel if one.is_reply]
    assert [alert.split("*")[1] for alert in alerts] == ["Thu 8 Jan 2026", "Tue 13 Jan 2026", "Wed 21 Jan 2026"]
    files = [one for one in watched.sent() if one.files]
    assert len(files) == 2 and all(one.is_reply for one in files)


def test_every_message_of_the_month_is_within_slacks_limits(watched: Watched) -> None:
    month = Month(watched)
    for number in range(31):
        month.evening(date(2026, 1, 1) + timedelta(days=number))
    asked = [one for one in watched.slack.received if one["method"] in ("chat.postMessage", "chat.update")]
    # The stand-in refuses what Slack would.
    assert len(asked) > 60 and [one for one in asked if one["error"]] == []
