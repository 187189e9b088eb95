"""A month of runs as the channel shows it. CHANNEL_PAGE=file.html writes the channel to that file."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest
from airflow_steps.failure_log import FailureRecord
from devtools.commands import ROOT
from slack_simulator.page import render_page
from step_contract import paths
from step_contract.commit import Content, commit
from step_contract.errors import RETRY_RULES, ExitCode, Termination
from step_contract.facts import DecisionFacts, ForecastFacts, HeadlinesFacts, PricesFacts, SummaryFacts, TrainingFacts

from .monitor_harness import OPEN, MonitorHarness, monitor

__all__ = ["monitor"]
HOLIDAYS = {date(2026, 1, 1): "New Year's Day"}
LATE, SUSPECT, DAMAGED, EVICTED = date(2026, 1, 8), date(2026, 1, 13), date(2026, 1, 21), date(2026, 1, 15)
EVALUATION = (
    "Out of sample (347 forecasts, 5 sessions ahead): mean absolute error 2.45%, naive forecast (last close) 2.49%. "
    "No significant improvement over the naive and drift forecasts. "
    "Directional accuracy 53% (95% CI 42% to 65%), 80% interval coverage 79% (68% to 87%), 66% before calibration. "
    "Coverage by thirds of volatility, low to high: 72%, 78%, 88%. Interval score 11.41% (before calibration 12.15%, "
    "naive 11.59%, drift 11.59%), mean width 7.95% (5.52%, 6.23%, 6.24%). "
    "MASE 2.98 (naive 3.03), quantile loss 0.789% (naive 0.801%)."
)
NOT_PROMOTED = "Not promoted (improvement not significant); there is no current model."
TRAINED = (
    TrainingFacts(
        last_session="2026-01-15",
        last_close=4797.55,
        evaluation=EVALUATION,
        beats_baselines=False,
        p_value=0.31,
        horizon=5,
        mae=0.0245,
        mae_naive=0.0249,
        skill=0.016,
        peak_memory_mib=500,
        threads=1,
        promotion="not promoted",
    ).to_facts()
    | SummaryFacts(f"{EVALUATION} {NOT_PROMOTED}").to_facts()
)


def read_bars() -> dict[str, dict[str, str]]:
    with (ROOT / "data/krx/index/year_ks11/2026.csv").open(encoding="utf-8-sig") as file:
        return {row["Date"]: row for row in csv.DictReader(file)}


class Month:
    """January 2026, one run each evening, with a late, a suspect and a failed one."""

    def __init__(self, monitor: MonitorHarness) -> None:
        self.monitor, self.airflow, self.bars = monitor, monitor.airflow, read_bars()
        picture = (ROOT / "docs" / "forecast.png").read_bytes()
        content = Content({"forecast.png": picture}, rows=0, schema_version=1, facts={})
        plot = commit(monitor.store, "plots/x", step="plot", session=date(2026, 1, 1), inputs={}, content=content)
        self.plot = plot.uri
        self.forecasts: list[tuple[date, float]] = []

    def run_session(self, day: date) -> None:
        at = datetime.combine(day, time(9), UTC)
        run = f"session__{day}"
        self.airflow.add_run(run, at=at)
        self.airflow.add_task(run, "decide", "running", at=at)
        self.monitor.poll(at)
        self.airflow.add_task(run, "decide", "success", at=at)
        if day.weekday() > 4 or day in HOLIDAYS:
            reason = HOLIDAYS.get(day, "Saturday" if day.weekday() == 5 else "Sunday")
            self.airflow.add_result(run, "decide", DecisionFacts("closed", reason, str(day)).to_facts())
        elif day == SUSPECT:
            reason = "the calendar says open, and the source has no bar"
            self.airflow.add_result(run, "decide", DecisionFacts("suspect", reason, str(day)).to_facts())
        else:
            self.airflow.add_result(run, "decide", OPEN, f"{self.monitor.store.root}/decisions/manifest.json")
            self.collect(run, day, at)
        self.airflow.add_task(run, "is_training_day", "upstream_failed" if day == DAMAGED else "success", at=at)
        if day.day in (1, 15):
            self.train(run, at)
        state = "failed" if day == DAMAGED else "success"
        duration = timedelta(minutes=95) if day == LATE else timedelta(seconds=61 if day.day in (1, 15) else 24)
        self.airflow.add_run(run, state, at=at, seconds=duration.total_seconds())
        self.monitor.poll(at + duration)

    def collect(self, run: str, day: date, at: datetime) -> None:
        if day == LATE:
            for try_number in (1, 2, 3):
                self.airflow.add_task(run, "fetch_prices", "up_for_retry", at=at, try_number=try_number)
                self.record_failure(run, "fetch_prices", try_number, at, at + timedelta(minutes=30 * try_number), 12)
                self.monitor.poll(at + timedelta(minutes=30 * try_number - 29))
            self.monitor.poll(at + timedelta(minutes=62))
        if day == DAMAGED:
            self.airflow.add_task(run, "fetch_prices", "failed", at=at)
            self.record_failure(run, "fetch_prices", 1, at, None, 1)
            self.collect_headlines(run, day, at)
            return
        bar = self.bars[str(day)]
        self.airflow.add_task(run, "fetch_prices", "success", at=at, try_number=4 if day == LATE else 1)
        close, change = float(bar["Close"]), float(bar["Change"])
        self.airflow.add_result(run, "fetch_prices", PricesFacts(str(day), close, change).to_facts())
        self.collect_headlines(run, day, at)
        self.forecast(run, day, at, close)

    def forecast(self, run: str, day: date, at: datetime, close: float) -> None:
        """Forecast as a baseline does, and report what became of the forecast of the session before, if there was one."""
        low, high = close * 0.985, close * 1.015
        facts = ForecastFacts(str(day), close, "baseline: naive", 0.8, low, close, high, 5, low, close, high)
        if self.forecasts:
            previous, middle = self.forecasts[-1]
            within = abs(close / middle - 1) < 0.015
            facts = replace(facts, previous_session=str(previous), previous_middle=middle, previous_within=within)
            facts = replace(facts, previous_low=middle * 0.985, previous_high=middle * 1.015)
        self.forecasts.append((day, close))
        self.airflow.add_task(run, "forecast", "success", at=at)
        self.airflow.add_result(run, "forecast", facts.to_facts())

    def collect_headlines(self, run: str, day: date, at: datetime) -> None:
        self.airflow.add_task(run, "fetch_headlines", "success", at=at)
        broken = (1, "economy: HTTP 503: service unavailable") if day.day == 27 else (0, "")
        availability = "partial" if broken[0] else "complete"
        headlines = HeadlinesFacts(day.isoformat(), 9 + day.day % 7, 2, *broken, availability=availability)
        self.airflow.add_result(run, "fetch_headlines", headlines.to_facts())

    def train(self, run: str, at: datetime) -> None:
        if run.endswith(str(EVICTED)):
            self.airflow.add_task(run, "train", "up_for_retry", at=at)
            self.record_failure(run, "train", 1, at, at + timedelta(seconds=30), 6)
            self.monitor.poll(at + timedelta(seconds=30))
        self.airflow.add_task(run, "train", "success", at=at, try_number=2 if run.endswith(str(EVICTED)) else 1)
        self.airflow.add_result(run, "train", TRAINED, f"{self.monitor.store.root}/models/manifest.json")
        self.airflow.add_task(run, "plot", "success", at=at)
        self.airflow.add_result(run, "plot", {"summary": "plotted"}, self.plot, picture=True)

    def record_failure(
        self, run: str, task_id: str, try_number: int, at: datetime, next_at: datetime | None, max_attempts: int
    ) -> None:
        rule = RETRY_RULES[ExitCode.SOURCE_UNAVAILABLE]
        why = "fetch-prices: 2026.csv has no bar of 2026-01-08 yet"
        if max_attempts == 1:
            rule = RETRY_RULES[ExitCode.INVALID_DATA]
            why = "fetch-prices: https://source.example/2026.csv, line 15, column Close: 'x' is not a number"
        if task_id == "train":
            rule = RETRY_RULES[Termination.EVICTED]
            why = "train: Evicted: the node was low on resource: memory"
        times = (at.isoformat(), next_at.isoformat() if next_at else None)
        failure = FailureRecord(
            task_id, -1, try_number, bool(next_at), rule.meaning, why, rule.advice, try_number, max_attempts, *times
        )
        self.monitor.store.create(paths.failure("market_daily", run, task_id, -1, try_number), failure.to_json())


@pytest.mark.slow
def test_a_month_is_one_line_a_day_its_end_and_three_alerts(monitor: MonitorHarness) -> None:
    month = Month(monitor)
    for number in range(31):
        month.run_session(date(2026, 1, 1) + timedelta(days=number))
    if page := os.environ.get("CHANNEL_PAGE"):
        Path(page).write_text(render_page(monitor.slack.workspace))
    days = [message.text for message in monitor.channel() if not message.is_reply]
    # With the forecast and what became of the one before: those need up to 130 characters.
    assert len(days) == 31 and all(len(day) < 160 + 130 and "\n" not in day for day in days)
    assert all(len(day) < 160 for day in days if "forecast" not in day)
    assert sum("became" in day for day in days) == sum("forecast" in day for day in days) - 1 > 15
    icons = [day.split()[0] for day in days]
    assert (icons.count(":large_green_circle:"), icons.count(":white_circle:")) == (19, 10)
    assert ["not a training day" not in day for day in days] == [number in (1, 15) for number in range(1, 32)]
    alerts = [message.text for message in monitor.alerts()]
    assert [alert.split("*")[1] for alert in alerts] == ["Thu 8 Jan 2026", "Tue 13 Jan 2026", "Wed 21 Jan 2026"]
    completions = [message.text for message in monitor.completions()]
    assert completions == [day for day in days if day.split()[0] in (":large_green_circle:", ":white_circle:")]
    uploads = [message for message in monitor.messages() if message.files]
    assert len(uploads) == 2 and all(message.is_reply for message in uploads)


def test_every_message_of_the_month_is_within_slacks_limits(monitor: MonitorHarness) -> None:
    month = Month(monitor)
    for number in range(31):
        month.run_session(date(2026, 1, 1) + timedelta(days=number))
    calls = [call for call in monitor.slack.received if call["method"] in ("chat.postMessage", "chat.update")]
    # The simulator rejects what Slack would reject.
    assert len(calls) > 60 and [call for call in calls if call["error"]] == []
