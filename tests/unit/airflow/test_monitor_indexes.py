"""A run of several indexes, as the channel shows it: one message with a line for each index."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

from step_contract.facts import DecisionFacts

from .monitor_harness import FORECAST, PRICES, RUN_ID, SIX_PM, MonitorHarness, monitor

__all__ = ["monitor"]
SYMBOLS = ("KS11", "KQ11")
TITLE = "*Thu 15 Jan 2026*"


def add_step(monitor: MonitorHarness, task_id: str, map_index: int, facts: Any, *, picture: bool = False) -> None:
    """Add a step that has succeeded for one of SYMBOLS, or for INDEX02 and so on."""
    symbol = (*SYMBOLS, *(f"INDEX{number:02}" for number in range(2, 50)))[map_index]
    uri = f"file:///market/{task_id}/symbol={symbol}/session=2026-01-15/manifest.json"
    monitor.airflow.add_task(RUN_ID, task_id, "success", at=SIX_PM, map_index=map_index)
    monitor.airflow.add_result(RUN_ID, task_id, facts, uri, map_index=map_index, picture=picture)


def decide(state: str, reason: str = "a session") -> Any:
    return DecisionFacts(state, reason, "2026-01-15").to_facts()


def test_each_index_has_a_line_and_what_holds_for_all_is_said_once(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    for map_index in range(2):
        add_step(monitor, "decide", map_index, decide("open"))
        add_step(monitor, "fetch_prices", map_index, PRICES | {"close": 4797.55 - 4000 * map_index})
        monitor.airflow.add_task(RUN_ID, "is_training_day", "success", at=SIX_PM, map_index=map_index)
    monitor.poll()
    [root] = [message for message in monitor.channel() if not message.is_reply]
    assert root.text.splitlines() == [
        f":large_green_circle: {TITLE}  training day",
        "*KS11*  closed at 4,797.55 (+1.59%)",
        "*KQ11*  closed at 797.55 (+1.59%)",
    ]
    assert root.text.replace("\n", "\\n") in json.dumps(root.blocks, ensure_ascii=False)


def test_an_index_that_fails_is_named_beside_the_results_of_the_others(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run(RUN_ID, "failed", at=SIX_PM)
    for map_index in range(2):
        add_step(monitor, "decide", map_index, decide("open"))
    add_step(monitor, "fetch_prices", 0, PRICES)
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "failed", at=SIX_PM, map_index=1)
    monitor.record_failure("fetch_prices", map_index=1, reason="the file is damaged")
    for seconds in (0, 50, 100):
        monitor.poll(SIX_PM + timedelta(seconds=seconds))
    root, alert = monitor.channel()
    assert root.text.splitlines() == [
        f":red_circle: {TITLE}  `fetch_prices[KQ11]` failed: invalid data",
        "*KS11*  closed at 4,797.55 (+1.59%)",
        "*KQ11*  :red_circle: `fetch_prices` failed",
    ]
    assert "`fetch_prices[KQ11]` failed" in alert.text and "the file is damaged" in json.dumps(alert.blocks)


def test_indexes_that_fail_for_different_reasons_have_all_of_them_in_one_alert(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run(RUN_ID, "failed", at=SIX_PM)
    for map_index, reason in enumerate(("line 3 is damaged", "line 7 is damaged")):
        name: dict[str, Any] = {"map_index": map_index, "rendered_map_index": SYMBOLS[map_index]}
        monitor.airflow.add_task(RUN_ID, "decide", "failed", at=SIX_PM, **name)
        monitor.record_failure("decide", map_index=map_index, reason=reason)
    monitor.poll()
    [alert] = [message for message in monitor.channel() if message.broadcast]
    shown = json.dumps(alert.blocks)
    assert "decide (2 mapped tasks)" in alert.text
    assert all(text in shown for text in ("line 3 is damaged", "line 7 is damaged", "decide[KS11]", "decide[KQ11]"))


def test_a_day_is_closed_if_it_is_for_all_and_a_suspect_index_is_alerted_by_its_name(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    add_step(monitor, "decide", 0, decide("closed", "a holiday"))
    add_step(monitor, "decide", 1, decide("closed", "a holiday"))
    monitor.poll()
    assert monitor.first_lines()[0].startswith(f":white_circle: {TITLE}")
    add_step(monitor, "decide", 1, decide("suspect", "no bar"))
    monitor.airflow.task_instances[RUN_ID][-1]["try_number"] = 2
    monitor.poll(SIX_PM + timedelta(seconds=30))
    assert monitor.first_lines()[0].startswith(f":large_orange_circle: {TITLE}")
    [alert] = [message for message in monitor.channel() if message.broadcast and "is suspect" in message.text]
    assert "*Thu 15 Jan 2026, KQ11* is suspect: no bar" in alert.text


def test_drift_of_one_index_is_one_alert_whatever_becomes_known_of_the_names(monitor: MonitorHarness) -> None:
    """The keys of messages do not depend on names, which are known only once an index has an artifact."""
    monitor.airflow.add_run(RUN_ID, at=SIX_PM)
    drifting = replace(FORECAST, is_calibrated=True, drift="they cover too little", drift_since="2026-01-02", advice="train")
    facts = drifting.to_facts()
    monitor.airflow.add_task(RUN_ID, "forecast", "success", at=SIX_PM, map_index=1)
    monitor.airflow.add_result(RUN_ID, "forecast", facts, map_index=1)
    monitor.poll()
    add_step(monitor, "forecast", 1, facts)
    add_step(monitor, "decide", 0, decide("open"))
    monitor.airflow.task_instances[RUN_ID][0]["try_number"] = 2
    monitor.poll(SIX_PM + timedelta(seconds=30))
    [alert] = [message for message in monitor.channel() if message.broadcast]
    assert "drifting" in alert.text and "KQ11" in alert.text


def test_fifty_indexes_fit_into_one_message(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    for map_index in range(50):
        add_step(monitor, "decide", map_index, decide("open"))
        add_step(monitor, "fetch_prices", map_index, PRICES)
        add_step(monitor, "plot", map_index, {"summary": "plotted"}, picture=True)
    monitor.poll()
    assert [call["error"] for call in monitor.slack.received if call["error"]] == []
    [root] = [message for message in monitor.channel() if not message.is_reply]
    shown = json.dumps(root.blocks)
    assert all(f"INDEX{number:02}" in shown for number in range(2, 50))
    assert len(root.blocks) <= 10


def test_map_indexes_that_are_no_indexes_keep_their_numbers(monitor: MonitorHarness) -> None:
    """A mapped DAG of another kind, whose instances all have artifacts of one symbol."""
    monitor.airflow.add_run(RUN_ID, "running", at=SIX_PM)
    for map_index in range(2):
        monitor.airflow.add_task(RUN_ID, "fetch", "success", at=SIX_PM, map_index=map_index)
        uri = f"file:///market/prices/symbol=KS11/session=2026-01-1{map_index}/manifest.json"
        monitor.airflow.add_result(RUN_ID, "fetch", PRICES, uri, map_index=map_index)
        monitor.airflow.add_task(RUN_ID, "next", "running", at=SIX_PM, map_index=map_index)
    monitor.poll()
    assert "`next[0]`, `next[1]` …" in monitor.first_lines()[0]


def test_an_index_that_fails_hours_after_another_has_an_alert_of_its_own(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run(RUN_ID, "running", at=SIX_PM)
    for map_index, hours in enumerate((0, 5)):
        at = SIX_PM + timedelta(hours=hours)
        name: dict[str, Any] = {"map_index": map_index, "rendered_map_index": SYMBOLS[map_index]}
        monitor.airflow.add_task(RUN_ID, "decide", "failed", at=at, **name)
        for minutes in (10, 20):  # no failure is recorded
            monitor.poll(at + timedelta(minutes=minutes))
    alerts = [message.text for message in monitor.channel() if message.broadcast and " failed: " in message.text]
    assert len(alerts) == 2
    assert "decide[KS11]" in alerts[0] and "decide[KQ11]" in alerts[1]


def test_the_end_of_a_day_is_notified_of_if_one_index_is_suspect_and_another_open(monitor: MonitorHarness) -> None:
    monitor.airflow.add_run(RUN_ID, "running", at=SIX_PM)
    add_step(monitor, "decide", 0, decide("open"))
    add_step(monitor, "fetch_prices", 0, PRICES)
    add_step(monitor, "decide", 1, decide("suspect", "no bar"))
    monitor.poll()
    monitor.airflow.add_run(RUN_ID, "success", at=SIX_PM)
    monitor.poll(SIX_PM + timedelta(minutes=1))
    assert any(message.broadcast and "*KS11*  closed at 4,797.55" in message.text for message in monitor.channel())
