"""What `make doctor` asks inside a pod: digests of variables, the steps' pods, the scopes of Slack."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow_monitor import __main__ as monitor
from airflow_monitor.slack_check import check_permissions
from airflow_steps import doctor
from airflow_steps.operator import StepOperator
from slack_simulator.simulator import Simulator
from step_contract.checks.findings import Finding, Status
from step_contract.errors import ConfigurationError

SETTINGS = {
    "STEP_RUNNER": "triggerer",
    "COLLECTOR_IMAGE": "registry/collector:1",
    "TRAINER_IMAGE": "registry/trainer:1",
    "TRAINER_NODE_SELECTOR": "kubernetes.io/arch=amd64",
    "STEP_NAMESPACE": "steps",
    "STEP_CREDENTIALS": "bucket-steps",
    "STEP_SERVICE_ACCOUNT": "step",
    "ARTIFACTS": "s3://market/artifacts",
    "SCHEDULE_ENABLED": "false",
    "AWS_ENDPOINT_URL": "http://bucket:7070",
}
# What differs from one step to another.
OWN = ("args", "name")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


def digest(value: str) -> str:
    return hmac.new(b"salt", value.encode(), hashlib.sha256).hexdigest()


def test_variables_of_this_or_of_the_main_process_are_digested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_CONTAINER", "value-1")
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "environ").write_bytes(b"EXPORTED=value-2\0OF_THE_CONTAINER=older\0")
    names = ("OF_THE_CONTAINER", "EXPORTED", "MISSING")
    digests = doctor.digest_variables(names, "salt", tmp_path)
    assert digests == {"OF_THE_CONTAINER": digest("value-1"), "EXPORTED": digest("value-2"), "MISSING": None}


def test_a_report_contains_no_value(tmp_path: Path) -> None:
    environment = os.environ | {"FERNET": "a-secret-value", "ARTIFACTS": f"file://{tmp_path}", "GIT_COMMIT": "0123"}
    command = [sys.executable, "-m", "airflow_steps.doctor", "--salt", "salt", "--variables", "FERNET,OTHER", "bucket"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout.splitlines()[-1])
    assert "a-secret-value" not in done.stdout + done.stderr
    assert report["digests"] == {"FERNET": digest("a-secret-value"), "OTHER": None}
    assert (report["commit"], report["airflow_version"][:2]) == ("0123", "3.")
    assert {(finding["check"], finding["status"]) for finding in report["findings"]} == {("bucket", "ok"), ("clock", "ok")}


@pytest.mark.parametrize(("program", "step"), [("collector", "decide"), ("trainer", "train")])
def test_the_pod_of_the_check_is_a_steps_pod(settings: None, program: str, step: str) -> None:
    checked = doctor.make_step_pods()[program]
    operator = StepOperator(program=program, step=step, options={})
    assert operator.start_trigger_args and operator.start_trigger_args.trigger_kwargs
    pod: dict[str, Any] = operator.start_trigger_args.trigger_kwargs["pod_template_dict"]
    for spec in (checked["spec"], pod["spec"]):
        spec.pop("activeDeadlineSeconds")
        for name in OWN:
            spec["containers"][0].pop(name, None)
    assert checked["spec"] == pod["spec"]
    assert checked["metadata"]["namespace"] == pod["metadata"]["namespace"] == "steps"
    labels = {"app.kubernetes.io/name": program, "app.kubernetes.io/component": "step"}
    assert labels.items() <= checked["metadata"]["labels"].items(), "network policies select by these"


def test_the_pod_of_the_check_has_a_deadline_and_the_deployments_settings(settings: None) -> None:
    pod = doctor.make_step_pods()["collector"]
    arguments = pod["spec"]["containers"][0]["args"]
    assert pod["spec"]["activeDeadlineSeconds"] == 120
    assert arguments[:1] == ["check"] and "--artifacts" in arguments and "s3://market/artifacts" in arguments
    assert arguments[arguments.index("--scheduled") + 1] == "false"


def test_an_invalid_setting_is_reported(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_NODE_SELECTOR", "amd64")
    with pytest.raises(ConfigurationError, match="TRAINER_NODE_SELECTOR"):
        doctor.make_step_pods()


def test_slack_with_all_scopes_is_ok_and_nothing_is_posted(slack: Simulator) -> None:
    [finding] = check_permissions("workflows")
    assert finding.status is Status.OK, finding
    assert slack.channel("workflows") == []


@pytest.mark.parametrize(
    ("scopes", "status", "message"),
    [
        (("chat:write", "channels:read", "channels:history"), Status.ERROR, "missing scopes: files:write"),
        (("chat:write", "files:write", "channels:read"), Status.WARNING, "optional scopes are missing: channels:history"),
    ],
)
def test_a_missing_scope_of_slack_is_named(slack: Simulator, scopes: tuple[str, ...], status: Status, message: str) -> None:
    slack.scopes = scopes
    [finding] = check_permissions("workflows")
    assert finding.status is status and message in finding.message and finding.advice


def test_a_channel_that_the_bot_does_not_see_is_an_error(slack: Simulator) -> None:
    [finding] = check_permissions("no-such-channel")
    assert finding.status is Status.ERROR and "does not see #no-such-channel" in finding.message


def test_without_a_connection_there_is_a_warning_and_a_wrong_token_is_not_shown(
    slack: Simulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = {"conn_type": "slack", "password": "xapp-secret-token", "extra": {"base_url": slack.url}}
    monkeypatch.setenv("AIRFLOW_CONN_SLACK_CONN", json.dumps(connection))
    assert monitor.main(["slack-scopes"]) == 0
    printed = capsys.readouterr().out
    [finding] = [finding for line in printed.splitlines() if (finding := Finding.parse(line))]
    assert finding.status is Status.ERROR and "not valid" in finding.message and "xapp-secret" not in printed
    monkeypatch.delenv("AIRFLOW_CONN_SLACK_CONN")
    [finding] = check_permissions("workflows")
    assert finding.status is Status.WARNING and "only logged" in finding.advice
