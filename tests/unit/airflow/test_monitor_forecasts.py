"""The forecast in a run's line, what became of the one before, and the alerts about them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from step_contract.facts import DecisionFacts, ForecastFacts, SummaryFacts

from .monitor_harness import FORECAST as FACTS
from .monitor_harness import OPEN, PRICES, RUN_ID, SIX_PM, MonitorHarness, monitor

__all__ = ["monitor"]
ADVICE = 'Train a new model, or return to the one before, trainer rollback --symbol KS11 --reason "drift since 2025-12-01".'


def end_run(monitor: MonitorHarness, facts: ForecastFacts, state: str = "success") -> None:
    monitor.airflow.add_run(RUN_ID, state, at=SIX_PM, logical_date=SIX_PM.isoformat())
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "fetch_prices", PRICES)
    monitor.airflow.add_task(RUN_ID, "forecast", "success", at=SIX_PM + timedelta(seconds=5))
    summary = SummaryFacts("Forecast from 4,798 …", 0).to_facts()
    monitor.airflow.add_result(RUN_ID, "forecast", facts.to_facts() | summary, f"{monitor.store.root}/forecasts/manifest.json")
    monitor.poll(SIX_PM + timedelta(seconds=30))


@pytest.mark.parametrize(
    ("previous", "within", "shown"),
    [
        ({}, None, ""),
        ({"previous_session": "2026-01-14"}, True, " · yesterday: 4,723 [4,651; 4,798], became 4,798, within"),
        ({"previous_session": "2026-01-14"}, False, " · yesterday: 4,723 [4,651; 4,798], became 4,798, above"),
        ({"previous_session": "2026-01-12"}, True, " · Mon 12 Jan 2026: 4,723 [4,651; 4,798], became 4,798, within"),
    ],
)
def test_the_line_shows_the_forecast_and_what_became_of_the_one_before(
    monitor: MonitorHarness, previous: dict[str, str], within: bool | None, shown: str
) -> None:
    values = {"previous_low": 4650.9, "previous_middle": 4723.1, "previous_high": 4797.6} if previous else {}
    monitor.airflow.add_run(RUN_ID, at=SIX_PM)
    monitor.poll()
    end_run(monitor, replace(FACTS, **previous, **values, previous_within=within))  # type: ignore[arg-type]
    line = f"closed at 4,797.55 (+1.59%) · forecast 4,798 [4,719; 4,877] (baseline: naive){shown}"
    assert monitor.first_lines() == [f":large_green_circle: *Thu 15 Jan 2026*  {line}"] * 2, "the run's message and its end"
    assert monitor.alerts() == [] and len(monitor.replies()) == 1


def test_a_small_index_is_shown_with_decimals(monitor: MonitorHarness) -> None:
    end_run(monitor, replace(FACTS, next_low=838.214, next_middle=851.0, next_high=864.5, source="model of 2026-01-02"))
    assert "forecast 851.00 [838.21; 864.50] (model of 2026-01-02)" in monitor.first_lines()[0]


def test_a_drift_is_one_alert_with_what_since_when_and_what_to_do(monitor: MonitorHarness) -> None:
    drift = "the 80% intervals of 40 forecasts one session ahead since 2025-12-01 covered only 45% of the outcomes"
    facts = replace(FACTS, source="model of 2025-11-15", drift=drift, advice=ADVICE, drift_since="2025-12-01")
    for _ in range(2):
        end_run(monitor, facts)
    [alert] = monitor.alerts()
    assert alert.text == ":large_orange_circle: *Thu 15 Jan 2026*: the forecasts are drifting"
    shown = json.dumps(alert.blocks, ensure_ascii=False)
    assert drift in shown and "*What to do:* Train a new model" in shown and "|artifact>" in shown


def test_a_remade_forecast_is_not_presented_as_issued_and_raises_no_alert(monitor: MonitorHarness) -> None:
    end_run(monitor, replace(FACTS, revision=2, drift="they are drifting", problem="damaged", alerts_problem=True))
    assert "remade forecast, not the one issued: 4,798 [4,719; 4,877]" in monitor.first_lines()[0]
    assert monitor.alerts() == []


def test_the_following_evenings_of_a_drift_raise_no_alert(monitor: MonitorHarness) -> None:
    end_run(monitor, replace(FACTS, drift_since="2025-12-01"))
    assert monitor.alerts() == []


@pytest.mark.parametrize("is_new", [True, False])
def test_a_model_that_cannot_be_used_is_named_each_evening_and_alerted_once(monitor: MonitorHarness, is_new: bool) -> None:
    problem = "s3://market/models/manifest.json is <truncated>"
    end_run(monitor, replace(FACTS, problem=problem, alerts_problem=is_new))
    assert "(baseline: naive, the current model cannot be used)" in monitor.first_lines()[0]
    alerts = monitor.alerts()
    assert len(alerts) == is_new
    assert all(
        "&lt;truncated&gt;" in json.dumps(alert.blocks) and "roll it back" in json.dumps(alert.blocks) for alert in alerts
    )


@pytest.mark.parametrize("state", ["open", "closed"])
def test_an_open_day_without_a_forecast_says_why(monitor: MonitorHarness, state: str) -> None:
    decision = OPEN if state == "open" else DecisionFacts(state, "a holiday", "2026-01-15").to_facts()
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.airflow.add_task(RUN_ID, "decide", "success", at=SIX_PM)
    monitor.airflow.add_result(RUN_ID, "decide", decision)
    monitor.airflow.add_task(RUN_ID, "forecast", "skipped", at=SIX_PM)
    monitor.poll()
    assert ("no forecast: too few sessions" in monitor.first_lines()[0]) == (state == "open")
