"""What the team reads while things go wrong: the stand-in for Slack, told by the watcher, on the cluster."""

from __future__ import annotations

import time
from collections import Counter

import kind
from airflow_api import Airflow

from ..conftest import kubectl, run_once, start, wait_for_end, wait_until
from ..slack_channel import about, alerts, channel, down, line, said, thread, unwell


def test_a_training_day_is_one_message_with_metrics_and_picture_in_its_thread() -> None:
    # Alone, this part begins a moment after the run's end, which the watcher has still to see.
    wait_until("its end", lambda: line("market_daily", "session__2026-01-15").startswith(":large_green_circle:"), 60)
    assert "closed at 4,797.55 (+1.58%)" in line("market_daily", "session__2026-01-15")
    [root] = about("market_daily", "session__2026-01-15")
    assert root["text"].startswith(":large_green_circle: *Thu 15 Jan 2026*") and "model not promoted" in root["text"]
    assert f"http://localhost:{kind.UI_PORT}/dags/market_daily/runs/session__2026-01-15|run" in said(root)
    wait_until("the picture", lambda: [one for one in thread("market_daily", "session__2026-01-15") if one.get("files")], 60)
    metrics, picture = thread("market_daily", "session__2026-01-15")
    assert "Out of sample" in metrics["text"] and picture["files"][0]["name"] == "plot.png"


def test_each_failure_is_one_alert_that_says_what_happened_and_what_to_do(airflow: Airflow) -> None:
    run_once(airflow, "drill_failures", "drill")  # part core has run it, where it was run before on this cluster
    assert wait_for_end(airflow, "drill_failures", "drill", 300) == "failed"
    wait_until("its end", lambda: line("drill_failures", "drill").startswith(":red_circle:"), 60)
    wait_until("five alerts", lambda: len(alerts("drill_failures", "drill")) == 5, 90)
    replies = thread("drill_failures", "drill")
    failed = {one["text"].split("`")[1]: said(one) for one in replies if one.get("subtype") == "thread_broadcast"}
    reasons = {
        "crash": ("crashed", "SIGSEGV", "try 2 of 2", "Compare the architectures"),
        "rejected": ("its pod did not start", "violates PodSecurity", "try 1 of 1", "then clear the task"),
        "unpullable": ("its pod did not start", "no-such-image", "try 1 of 1", "then clear the task"),
        "missing_program": ("its pod did not start", "/no/such/program", "try 1 of 1", "then clear the task"),
        "unschedulable": ("its pod did not start", "node affinity", "try 1 of 1", "then clear the task"),
    }
    assert failed.keys() == reasons.keys()
    for task, parts in reasons.items():
        assert not [part for part in (*parts, f"tasks/{task}?try_number=", "*Do:*") if part not in failed[task]], failed[task]
    again = Counter(one["text"].split("`")[1] for one in replies if one.get("subtype") != "thread_broadcast")
    assert again == {"memory_triggerer": 1, "memory_worker": 1, "crash": 1}


def test_a_slack_that_is_down_delays_nothing_and_hears_of_it_later_once(airflow: Airflow) -> None:
    run, before = "session__2026-01-20", len(channel())
    down(True)
    try:
        began = time.monotonic()
        start(airflow, "market_daily", run, "2026-01-20T09:00:00Z")
        assert wait_for_end(airflow, "market_daily", run, 120) == "success"
        assert time.monotonic() - began < 100
        kubectl("delete", "pods", "--selector=component=watcher", "--force", "--grace-period=0")
    finally:
        down(False)
    wait_until("what it missed", lambda: "closed at" in line("market_daily", run), 150)
    assert len(channel()) == before + 1


def test_a_watcher_that_is_killed_again_and_again_says_nothing_twice(airflow: Airflow) -> None:
    for number in range(3):
        run = f"session__2026-01-{21 + number}"
        start(airflow, "market_daily", run, f"2026-01-{21 + number}T09:00:00Z")
        wait_until("its first word", lambda run=run: about("market_daily", run), 90)  # type: ignore[misc]
        kubectl("delete", "pods", "--selector=component=watcher", "--force", "--grace-period=0")
    for number in range(3):
        run = f"session__2026-01-{21 + number}"
        assert wait_for_end(airflow, "market_daily", run, 180) == "success"
        wait_until("its end", lambda run=run: "closed at" in line("market_daily", run), 150)  # type: ignore[misc]
        assert len(about("market_daily", run)) == 1


def test_a_trigger_that_nobody_runs_is_told_and_that_it_goes_on(airflow: Airflow) -> None:
    before = len([text for text in unwell() if text])
    kubectl("scale", "deployment", "airflow-triggerer", "--replicas=0")
    try:
        start(airflow, "drill_short", "unattended")
        wait_until("the task's alert", lambda: about("drill_short", "unattended"), 60)
        wait_until("the task's alert", lambda: "no triggerer runs its trigger" in str(alerts("drill_short", "unattended")), 120)
        wait_until("the triggerer's alert", lambda: unwell()[0].startswith(":red_circle:"), 120)
    finally:
        kubectl("scale", "deployment", "airflow-triggerer", "--replicas=1")
    assert wait_for_end(airflow, "drill_short", "unattended", 180) == "success"
    wait_until("its end", lambda: "That is over" in str(alerts("drill_short", "unattended")), 60)
    wait_until("the triggerer's end", lambda: unwell()[0].startswith(":white_check_mark: Over since"), 60)
    assert len([text for text in unwell() if text]) == before + 1


def test_a_dag_file_that_no_longer_loads_is_told_and_its_end() -> None:
    what = "`market_smoke.py` does not load"

    def in_the_dag_processor(command: str) -> None:
        where = ("deployment/airflow-dag-processor", "--container=dag-processor")
        kubectl("exec", *where, "--", "sh", "-ec", f"cd dags; {command}")

    # Only a file that says airflow and dag is looked at.
    in_the_dag_processor("cp market_smoke.py ..; rm market_smoke.py; echo 'from airflow import no_such_dag' > market_smoke.py")
    try:
        wait_until("its alert", lambda: unwell(what)[0].startswith(":red_circle:"), 120)
    finally:
        in_the_dag_processor("cp ../market_smoke.py .")
    assert "cannot import name 'no_such_dag'" in unwell(what)[0]
    wait_until("its end", lambda: unwell(what)[0].startswith(":white_check_mark: Over since"), 120)


def test_a_backfill_is_one_message(airflow: Airflow) -> None:
    # Its own day, which the schedule runs once.
    wait_until("the last day", lambda: [one for one in channel() if "drill_days" in one["text"] and "done" in one["text"]], 180)
    before = len(channel())
    wanted = {"dag_id": "drill_days", "from_date": "2026-02-02T00:00:00Z", "to_date": "2026-02-05T12:00:00Z"}
    made = airflow.call("POST", "/backfills", wanted | {"max_active_runs": 4})
    run = f"backfill__{made['id']}"
    wait_until("its end", lambda: "4 of 4 done" in line("drill_days", run), 240)
    assert len(channel()) == before + 1 and thread("drill_days", run) == []


def test_the_watcher_itself_can_try_out_the_connection() -> None:
    said = kubectl("exec", "deployment/watcher", "--", "python", "-m", "airflow_watcher", "slack-test")
    assert "Slack hears of everything" in said
