"""The messages that the monitor posts to the Slack simulator, on the cluster, while things go wrong."""

from __future__ import annotations

import time
from collections import Counter

from devtools.airflow_client import AirflowClient
from step_contract.store import Store

from ..conftest import CLUSTER, count_airflow_errors, kubectl, start_run, start_run_once, wait_for_run, wait_until
from ..slack_channel import (
    Message,
    get_alerts,
    get_incidents,
    get_messages,
    get_replies,
    get_run_messages,
    get_run_text,
    set_down,
    to_json,
)


def test_a_training_day_is_one_message_with_metrics_and_plot_and_one_reply_at_its_end() -> None:
    # If this part runs alone, the monitor may not have polled since the run finished.
    wait_until(
        "the finished run's message",
        lambda: get_run_text("market_daily", "session__2026-01-15").startswith(":large_green_circle:"),
        60,
    )
    assert "closed at 4,797.55 (+1.58%)" in get_run_text("market_daily", "session__2026-01-15")
    [root] = get_run_messages("market_daily", "session__2026-01-15")
    assert root["text"].startswith(":large_green_circle: *Thu 15 Jan 2026*") and "model not promoted" in root["text"]
    assert f"http://localhost:{CLUSTER.ui_port}/dags/market_daily/runs/session__2026-01-15|run" in to_json(root)
    wait_until("the end's reply with the picture", lambda: '"slack_file"' in to_json(get_completions()), 60)
    replies = get_replies("market_daily", "session__2026-01-15")
    [picture] = [reply["files"][0] for reply in replies if reply.get("files")]
    assert [True for reply in replies if "Out of sample" in reply["text"]] == [True] and picture["name"] == "plot.png"
    [completion] = get_completions()
    assert completion["text"] == root["text"] and "training day" in root["text"] and "not a training day" not in root["text"]
    assert completion["blocks"][-1]["slack_file"]["id"] == picture["id"]


def get_completions() -> list[Message]:
    """Return the replies of the training day that the channel shows too: it has no alert."""
    replies = get_replies("market_daily", "session__2026-01-15")
    return [reply for reply in replies if reply.get("subtype") == "thread_broadcast"]


def test_each_failure_is_one_alert_with_reason_and_advice(airflow: AirflowClient, bucket: Store) -> None:
    start_run_once(airflow, "drill_failures", "drill")  # exists if the part core has run
    assert wait_for_run(airflow, "drill_failures", "drill", 300) == "failed"
    wait_until("the finished run's message", lambda: get_run_text("drill_failures", "drill").startswith(":red_circle:"), 60)
    wait_until("six alerts", lambda: len(get_alerts("drill_failures", "drill")) == 6, 90)
    replies = get_replies("drill_failures", "drill")
    failed = {reply["text"].split("`")[1]: to_json(reply) for reply in replies if reply.get("subtype") == "thread_broadcast"}
    reasons = {
        "crash": ("crashed", "SIGSEGV", "attempt 2 of 2", "Compare the architectures of image and node"),
        "rejected": ("its pod did not start", "violates PodSecurity", "attempt 1 of 1", "then clear the task"),
        "unpullable": ("its pod did not start", "no-such-image", "attempt 1 of 1", "then clear the task"),
        "not_present": ("its pod did not start", "ErrImageNeverPull", "attempt 1 of 1", "then clear the task"),
        "missing_program": ("its pod did not start", "/no/such/program", "attempt 1 of 1", "then clear the task"),
        "unschedulable": ("its pod did not start", "node affinity", "attempt 1 of 1", "then clear the task"),
    }
    assert failed.keys() == reasons.keys()
    for task, parts in reasons.items():
        expected = (*parts, f"tasks/{task}?try_number=", "*What to do:*")
        assert not [part for part in expected if part not in failed[task]], failed[task]
    retried = Counter(reply["text"].split("`")[1] for reply in replies if reply.get("subtype") != "thread_broadcast")
    errors = count_airflow_errors(bucket, "drill_failures", "drill")
    assert retried - errors == {"memory_triggerer": 1, "memory_worker": 1, "crash": 1}


def test_a_slack_outage_delays_messages_but_no_run(airflow: AirflowClient) -> None:
    run_id, messages_before = "session__2026-01-20", len(get_messages())
    set_down(True)
    try:
        started = time.monotonic()
        start_run(airflow, "market_daily", run_id, "2026-01-20T09:00:00Z")
        assert wait_for_run(airflow, "market_daily", run_id, 120) == "success"
        assert time.monotonic() - started < 100
        kubectl("delete", "pods", "--selector=component=monitor", "--force", "--grace-period=0")
    finally:
        set_down(False)
    wait_until("the message that was delayed", lambda: "closed at" in get_run_text("market_daily", run_id), 150)
    assert len(get_messages()) == messages_before + 1
    # The message is the notification: the run had finished when it was posted.
    assert get_alerts("market_daily", run_id) == []


def test_a_monitor_that_is_killed_repeatedly_posts_nothing_twice(airflow: AirflowClient) -> None:
    for number in range(3):
        run = f"session__2026-01-{21 + number}"
        start_run(airflow, "market_daily", run, f"2026-01-{21 + number}T09:00:00Z")
        wait_until("the run's message", lambda run=run: get_run_messages("market_daily", run), 90)  # type: ignore[misc]
        kubectl("delete", "pods", "--selector=component=monitor", "--force", "--grace-period=0")
    for number in range(3):
        run = f"session__2026-01-{21 + number}"
        assert wait_for_run(airflow, "market_daily", run, 180) == "success"
        wait_until("the finished run's message", lambda run=run: "closed at" in get_run_text("market_daily", run), 150)  # type: ignore[misc]
        # The end has a reply of its own unless the message was posted after it.
        assert len(get_run_messages("market_daily", run)) == 1 and len(get_alerts("market_daily", run)) <= 1


def test_a_missing_triggerer_is_alerted_and_resolved(airflow: AirflowClient) -> None:
    incidents_before = len([text for text in get_incidents() if text])
    kubectl("scale", "deployment", "airflow-triggerer", "--replicas=0")
    try:
        start_run(airflow, "drill_short", "unattended")
        wait_until("the task's alert", lambda: get_run_messages("drill_short", "unattended"), 60)
        wait_until(
            "the task's alert",
            lambda: "no triggerer is running its trigger" in str(get_alerts("drill_short", "unattended")),
            120,
        )
        wait_until("the triggerer's alert", lambda: get_incidents()[0].startswith(":red_circle:"), 120)
    finally:
        kubectl("scale", "deployment", "airflow-triggerer", "--replicas=1")
    assert wait_for_run(airflow, "drill_short", "unattended", 180) == "success"
    wait_until("the finished run's message", lambda: "Resolved" in str(get_alerts("drill_short", "unattended")), 60)
    wait_until("the resolved incident", lambda: get_incidents()[0].startswith(":white_check_mark: Resolved at"), 120)
    assert len([text for text in get_incidents() if text]) == incidents_before + 1


def test_a_dag_import_error_is_alerted_and_resolved() -> None:
    title = "`market_smoke.py` cannot be imported"

    def run_in_dag_processor(command: str) -> None:
        container = ("deployment/airflow-dag-processor", "--container=dag-processor")
        kubectl("exec", *container, "--", "sh", "-ec", f"cd dags; {command}")

    # Airflow parses only files that contain the words airflow and dag.
    run_in_dag_processor("cp market_smoke.py ..; rm market_smoke.py; echo 'from airflow import no_such_dag' > market_smoke.py")
    try:
        wait_until("the alert", lambda: get_incidents(title)[0].startswith(":red_circle:"), 120)
    finally:
        run_in_dag_processor("cp ../market_smoke.py .")
    assert "cannot import name 'no_such_dag'" in get_incidents(title)[0]
    wait_until("the resolved incident", lambda: get_incidents(title)[0].startswith(":white_check_mark: Resolved at"), 120)


def test_a_backfill_is_one_message(airflow: AirflowClient) -> None:
    # The DAG's scheduled run posts a message too.
    wait_until(
        "the last run's message",
        lambda: [True for message in get_messages() if "drill_days" in message["text"] and "succeeded" in message["text"]],
        180,
    )
    messages_before = len(get_messages())
    backfill = {"dag_id": "drill_days", "from_date": "2026-02-02T00:00:00Z", "to_date": "2026-02-05T12:00:00Z"}
    created = airflow.request("POST", "/backfills", backfill | {"max_active_runs": 4})
    run_id = f"backfill__{created['id']}"
    wait_until("the finished run's message", lambda: "4 of 4 succeeded" in get_run_text("drill_days", run_id), 240)
    assert len(get_messages()) == messages_before + 1 and get_replies("drill_days", run_id) == []


def test_the_monitor_can_check_its_connection_to_slack() -> None:
    output = kubectl("exec", "deployment/monitor", "--", "python", "-m", "airflow_monitor", "slack-check")
    assert "The connection to Slack works" in output
