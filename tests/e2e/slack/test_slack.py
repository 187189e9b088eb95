"""What the channel shows on a cluster while things fail, as the monitor reports it to the Slack simulator."""

from __future__ import annotations

import time
from collections import Counter

import kind
from airflow_api import Airflow

from ..conftest import kubectl, run_once, start, wait_for_end, wait_until
from ..slack_channel import about, alerts, channel, down, incident, line, said, thread


def test_a_training_day_is_one_message_with_metrics_and_plot_in_its_thread() -> None:
    # If this part runs alone, it starts a moment after the run's end, before the monitor polls it.
    wait_until("its end", lambda: line("market_daily", "session__2026-01-15").startswith(":large_green_circle:"), 60)
    assert "closed at 4,797.55 (+1.58%)" in line("market_daily", "session__2026-01-15")
    [root] = about("market_daily", "session__2026-01-15")
    assert root["text"].startswith(":large_green_circle: *Thu 15 Jan 2026*") and "model not promoted" in root["text"]
    assert f"http://localhost:{kind.UI_PORT}/dags/market_daily/runs/session__2026-01-15|run" in said(root)
    wait_until("the picture", lambda: [one for one in thread("market_daily", "session__2026-01-15") if one.get("files")], 60)
    metrics, picture = thread("market_daily", "session__2026-01-15")
    assert "Out of sample" in metrics["text"] and picture["files"][0]["name"] == "plot.png"


def test_each_failure_is_broadcast_once_with_reason_and_advice(airflow: Airflow) -> None:
    run_once(airflow, "drill_failures", "drill")  # part core has run it, where it was run before on this cluster
    assert wait_for_end(airflow, "drill_failures", "drill", 300) == "failed"
    wait_until("its end", lambda: line("drill_failures", "drill").startswith(":red_circle:"), 60)
    wait_until("five alerts", lambda: len(alerts("drill_failures", "drill")) == 5, 90)
    replies = thread("drill_failures", "drill")
    failed = {one["text"].split("`")[1]: said(one) for one in replies if one.get("subtype") == "thread_broadcast"}
    reasons = {
        "crash": ("crashed", "SIGSEGV", "attempt 2 of 2", "Compare the architectures of image and node"),
        "refused": ("its pod did not start", "violates PodSecurity", "attempt 1 of 1", "then clear the task"),
        "unpullable": ("its pod did not start", "no-such-image", "attempt 1 of 1", "then clear the task"),
        "programless": ("its pod did not start", "/no/such/program", "attempt 1 of 1", "then clear the task"),
        "unschedulable": ("its pod did not start", "node affinity", "attempt 1 of 1", "then clear the task"),
    }
    assert failed.keys() == reasons.keys()
    for task, parts in reasons.items():
        expected = (*parts, f"tasks/{task}?try_number=", "*What to do:*")
        assert not [part for part in expected if part not in failed[task]], failed[task]
    again = Counter(one["text"].split("`")[1] for one in replies if one.get("subtype") != "thread_broadcast")
    assert again == {"memory_triggerer": 1, "memory_worker": 1, "crash": 1}


def test_a_slack_outage_delays_no_step_and_messages_follow_once(airflow: Airflow) -> None:
    run, before = "session__2026-01-20", len(channel())
    down(True)
    try:
        began = time.monotonic()
        start(airflow, "market_daily", run, "2026-01-20T09:00:00Z")
        assert wait_for_end(airflow, "market_daily", run, 120) == "success"
        assert time.monotonic() - began < 100
        kubectl("delete", "pods", "--selector=component=monitor", "--force", "--grace-period=0")
    finally:
        down(False)
    wait_until("what it missed", lambda: "closed at" in line("market_daily", run), 150)
    assert len(channel()) == before + 1


def test_a_monitor_that_is_killed_repeatedly_posts_nothing_twice(airflow: Airflow) -> None:
    for number in range(3):
        run = f"session__2026-01-{21 + number}"
        start(airflow, "market_daily", run, f"2026-01-{21 + number}T09:00:00Z")
        wait_until("its first word", lambda run=run: about("market_daily", run), 90)  # type: ignore[misc]
        kubectl("delete", "pods", "--selector=component=monitor", "--force", "--grace-period=0")
    for number in range(3):
        run = f"session__2026-01-{21 + number}"
        assert wait_for_end(airflow, "market_daily", run, 180) == "success"
        wait_until("its end", lambda run=run: "closed at" in line("market_daily", run), 150)  # type: ignore[misc]
        assert len(about("market_daily", run)) == 1


def test_an_orphaned_trigger_is_reported_and_resolved(airflow: Airflow) -> None:
    before = len([text for text in incident() if text])
    kubectl("scale", "deployment", "airflow-triggerer", "--replicas=0")
    try:
        start(airflow, "drill_short", "unattended")
        wait_until("the task's alert", lambda: about("drill_short", "unattended"), 60)
        reason = "no triggerer is running its trigger"
        wait_until("the task's alert", lambda: reason in str(alerts("drill_short", "unattended")), 120)
        wait_until("the triggerer's alert", lambda: incident()[0].startswith(":red_circle:"), 120)
    finally:
        kubectl("scale", "deployment", "airflow-triggerer", "--replicas=1")
    assert wait_for_end(airflow, "drill_short", "unattended", 180) == "success"
    wait_until("its end", lambda: "Resolved" in str(alerts("drill_short", "unattended")), 60)
    wait_until("the triggerer's end", lambda: incident()[0].startswith(":white_check_mark: Resolved at"), 60)
    assert len([text for text in incident() if text]) == before + 1


def test_an_import_error_is_reported_and_resolved() -> None:
    what = "`market_smoke.py` cannot be imported"

    def in_the_dag_processor(command: str) -> None:
        where = ("deployment/airflow-dag-processor", "--container=dag-processor")
        kubectl("exec", *where, "--", "sh", "-ec", f"cd dags; {command}")

    # Airflow parses only files that contain the words airflow and dag.
    in_the_dag_processor("cp market_smoke.py ..; rm market_smoke.py; echo 'from airflow import no_such_dag' > market_smoke.py")
    try:
        wait_until("its alert", lambda: incident(what)[0].startswith(":red_circle:"), 120)
    finally:
        in_the_dag_processor("cp ../market_smoke.py .")
    assert "cannot import name 'no_such_dag'" in incident(what)[0]
    wait_until("its end", lambda: incident(what)[0].startswith(":white_check_mark: Resolved at"), 120)


def test_a_backfill_is_one_message(airflow: Airflow) -> None:
    # Its own day, which the schedule runs once.
    texts = ("drill_days", "succeeded")
    wait_until("the last day", lambda: [one for one in channel() if all(text in one["text"] for text in texts)], 180)
    before = len(channel())
    wanted = {"dag_id": "drill_days", "from_date": "2026-02-02T00:00:00Z", "to_date": "2026-02-05T12:00:00Z"}
    made = airflow.call("POST", "/backfills", wanted | {"max_active_runs": 4})
    run = f"backfill__{made['id']}"
    wait_until("its end", lambda: "4 of 4 succeeded" in line("drill_days", run), 240)
    assert len(channel()) == before + 1 and thread("drill_days", run) == []


def test_the_monitor_can_check_its_connection_to_slack() -> None:
    output = kubectl("exec", "deployment/monitor", "--", "python", "-m", "airflow_monitor", "slack-check")
    assert "The connection to Slack works" in output
