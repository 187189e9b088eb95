"""`make doctor` on a cluster that is healthy, and with each thing broken: its line, what to do, and the exit code."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import doctor
import pytest
from checks.resources import find_trainer_node
from checks.secrets import RULES, judge

from .fake_cluster import HEADS, KEYS, NAMESPACE, STEPS, FakeCluster, make_lease, make_node

pytestmark = pytest.mark.slow
Report = dict[str, Any]
Run = Callable[..., tuple[int, Report]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    for name in ("CONTEXT", "NAMESPACE", "VALUES", "JSON", "STRICT", "AIRFLOW_CHART", "CHART_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("checks.step_pods.WAIT_SECONDS", 1)
    monkeypatch.setattr("checks.step_pods.POLL_SECONDS", 0.1)
    return FakeCluster(tmp_path)


@pytest.fixture
def run(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_doctor(*arguments: str) -> tuple[int, Report]:
        cluster.save()
        code = doctor.main(["staging", "--json", *arguments])
        printed = capsys.readouterr()
        for value in (value for secret in KEYS.values() for value in secret.values()):
            assert value not in printed.out + printed.err, "a secret's value was printed"
        return code, json.loads(printed.out)

    return run_doctor


def find(report: Report, check: str, status: str = "error") -> list[str]:
    """Return the findings of a check that have the status, as text; each must say what to do."""
    findings = [finding for finding in report["findings"] if finding["check"] == check and finding["status"] == status]
    assert all(finding["advice"] for finding in findings if status != "ok")
    return [f"{finding['where']}: {finding['message']} -> {finding['advice']}" for finding in findings]


def list_bad(report: Report) -> set[str]:
    """Return the checks that have a warning or an error."""
    return {finding["check"] for finding in report["findings"] if finding["status"] != "ok"}


def test_a_healthy_deployment_has_only_ok_lines(cluster: FakeCluster, run: Run) -> None:
    code, report = run()
    assert [finding for finding in report["findings"] if finding["status"] != "ok"] == []
    assert (code, report["status"], report["skipped"]) == (0, "ok", [])
    assert cluster.list_created_pods() == []
    assert " apply " not in cluster.read_calls() and " patch " not in cluster.read_calls()


def break_nothing_else(report: Report, *checks: str) -> None:
    assert list_bad(report) == set(checks), "other lines must not change"


def test_an_unreachable_cluster_is_one_error_that_names_what_was_not_checked(cluster: FakeCluster, run: Run) -> None:
    cluster.state["unreachable"] = True
    code, report = run()
    assert code == 1 and "i/o timeout" in find(report, "cluster")[0]
    assert {"secrets", "images", "inside"} <= set(report["skipped"])
    assert find(report, "programs", "ok")


def test_an_api_server_that_hangs_is_given_up(cluster: FakeCluster, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checks.cluster.READ_TIMEOUT_SECONDS", 1)
    cluster.state["hang"] = 30
    started = time.monotonic()
    code, report = run()
    assert code == 1 and "timed out" in find(report, "cluster")[0]
    assert time.monotonic() - started < 15


def test_without_kubectl_the_installation_is_named(cluster: FakeCluster, run: Run) -> None:
    (cluster.folder / "kubectl").unlink()
    code, report = run()
    assert code == 1 and "https://kubernetes.io" in find(report, "programs")[0] and "inside" in report["skipped"]


def test_an_environment_without_values_file_is_named(cluster: FakeCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["nowhere"]) == 1
    assert "helm/values-nowhere.yaml does not exist" in " ".join(capsys.readouterr().out.split())


def test_a_cluster_without_the_release_says_how_to_install_it(cluster: FakeCluster, run: Run) -> None:
    cluster.state["releases"] = {}
    code, report = run()
    assert code == 1 and "make deploy ENV=staging" in find(report, "releases")[0]
    assert "inside" in report["skipped"] and find(report, "permissions", "ok")


def test_an_interrupted_upgrade_is_an_error_and_one_in_progress_a_warning(cluster: FakeCluster, run: Run) -> None:
    history = cluster.state["releases"]["airflow"]
    history.append(history[0] | {"revision": 4, "status": "pending-upgrade"})
    _, report = run()
    assert "pending-upgrade" in find(report, "releases")[0] and find(report, "migrations", "ok")
    history[-1]["updated"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.123456789+00:00}"
    _, report = run()
    assert "is being deployed since" in find(report, "releases", "warning")[0] and not find(report, "releases")


def test_another_chart_or_kubectl_version_is_a_warning(cluster: FakeCluster, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.state["releases"]["airflow"][0]["chart"] = "airflow-1.21.0"
    cluster.state["server_minor"] = "31+"
    code, report = run()
    assert code == 0 and "airflow-1.21.0" in find(report, "versions", "warning")[0]
    assert "kubectl 1.34, server 1.31" in find(report, "cluster", "warning")[0]
    monkeypatch.setenv("STRICT", "1")
    assert run()[0] == 1


def test_a_person_without_permissions_gets_warnings_and_the_other_lines(cluster: FakeCluster, run: Run) -> None:
    cluster.state["forbidden"] = ["create pods", "create pods/exec", "list secrets", "create deployments", "list nodes"]
    code, report = run()
    denied = "\n".join(find(report, "permissions", "warning"))
    for request in ("create pods (market-daily-staging-steps)", "create pods/exec", "list secrets", "create deployments.apps"):
        assert request in denied
    assert find(report, "secrets", "warning") and find(report, "inside", "warning")
    assert find(report, "components", "ok") and find(report, "images", "ok")
    assert code == 1, "the database's revision could not be read"


def test_a_person_who_may_not_create_pods_gets_one_warning_for_each_program(cluster: FakeCluster, run: Run) -> None:
    cluster.state["forbidden"] = ["create pods"]
    code, report = run()
    assert code == 0 and len(find(report, "step-pod", "warning")) == 2
    assert "you may not create pods" in find(report, "step-pod", "warning")[0]


def test_secrets_that_may_not_be_read_are_still_compared_between_pods(cluster: FakeCluster, run: Run) -> None:
    cluster.state["forbidden"] = ["list secrets"]
    cluster.state["values_by_pod"] = {"airflow-scheduler-1": {"AIRFLOW__API_AUTH__JWT_SECRET": "another" * 9}}
    _, report = run()
    [line] = find(report, "secrets-in-pods")
    assert "airflow-api-server-1, airflow-scheduler-1 have different values of airflow-jwt-secret" in line


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("airflow-fernet-key", "fernet-key", "c2hvcnQ=", "32 bytes in URL-safe base64"),
        ("airflow-fernet-key", "fernet-key", KEYS["airflow-fernet-key"]["fernet-key"] + "\n", "white space"),
        ("airflow-jwt-secret", "jwt-secret", "short", "5 characters"),
        ("airflow-api-secret-key", "api-secret-key", "", "0 characters"),
        ("airflow-metadata", "connection", "mysql://a:b@c/d", "postgresql+psycopg2://"),
        ("airflow-metadata", "connection", "postgresql://user:pa[ss@host/db", "percent-encode"),
        ("bucket", "AWS_ACCESS_KEY_ID", " the-access-key", "white space"),
        ("slack", "AIRFLOW_CONN_SLACK_CONN", '{"conn_type": "slack", "password": "xapp-1-secret"}', "must begin with xoxb-"),
        ("slack", "AIRFLOW_CONN_SLACK_CONN", "xoxb-1-bare", "neither JSON"),
    ],
)
def test_a_malformed_secret_is_named_without_its_value(name: str, key: str, value: str, message: str) -> None:
    secrets = KEYS | {name: KEYS[name] | {key: value}}
    [finding] = judge(secrets, RULES, NAMESPACE)
    assert finding.status == "error" and f"the key {key} of the secret {name}" in finding.message and message in finding.message
    assert f"--namespace {NAMESPACE}" in finding.advice
    assert not value.strip() or value.strip() not in finding.message + finding.advice


def test_a_missing_secret_of_either_namespace_is_named(cluster: FakeCluster, run: Run) -> None:
    del cluster.state["secrets"][NAMESPACE]["airflow-monitor"]
    del cluster.state["secrets"][STEPS]["bucket-steps"]
    _, report = run()
    lines = "\n".join(find(report, "secrets"))
    assert "airflow-monitor does not exist" in lines and f"{STEPS}: the secret bucket-steps does not exist" in lines


def test_a_pod_from_before_a_rotation_is_named_with_the_restart(cluster: FakeCluster, run: Run) -> None:
    cluster.state["values_by_pod"] = {"airflow-triggerer-1": {"AWS_SECRET_ACCESS_KEY": "of-last-month"}}
    code, report = run()
    [line] = find(report, "secrets-in-pods")
    assert code == 1 and "airflow-triggerer-1 have another value of bucket/AWS_SECRET_ACCESS_KEY" in line
    assert "rollout restart" in line
    break_nothing_else(report, "secrets-in-pods")


def test_a_component_that_is_scaled_to_0_or_does_not_start_is_named(cluster: FakeCluster, run: Run) -> None:
    deployments = cluster.objects["deployments.apps,statefulsets.apps"]
    deployments[3]["spec"]["replicas"], deployments[3]["status"] = 0, {}
    deployments[0]["status"] = {}
    status = cluster.pod("api-server")["status"]["containerStatuses"][0]
    status["ready"], status["state"] = False, {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
    failure = {"type": "ReplicaFailure", "status": "True", "message": "forbidden: violates PodSecurity"}
    deployments[4]["status"] = {"conditions": [failure]}
    del cluster.objects["pods"][3:]
    _, report = run()
    lines = "\n".join(find(report, "components"))
    assert "airflow-triggerer: it is scaled to 0" in lines and "scale deployment airflow-triggerer --replicas=1" in lines
    assert "airflow-api-server: 0 of 1 pods are available: CrashLoopBackOff: back-off 40s" in lines
    assert "airflow-monitor: 0 of 1 pods are available: forbidden: violates PodSecurity" in lines


@pytest.mark.parametrize(
    ("revision", "message"), [(HEADS["3.2.0"], "of Airflow 3.2.0; Airflow 3.3.2 expects"), ("ffff", "does not know")]
)
def test_a_database_that_is_not_migrated_or_newer_is_an_error(
    cluster: FakeCluster, run: Run, revision: str, message: str
) -> None:
    cluster.state["database"]["revision"] = revision
    code, report = run()
    assert code == 1 and message in find(report, "migrations")[0]


def test_what_a_pod_reports_is_shown_once_for_all_pods(cluster: FakeCluster, run: Run) -> None:
    broken = {"check": "bucket", "status": "error", "message": "no bucket", "advice": "create it", "where": ""}
    for component in ("scheduler", "triggerer"):
        cluster.state["reports"][component]["findings"] = [broken]
    _, report = run()
    assert find(report, "bucket") == ["scheduler, triggerer: no bucket -> create it"]


def test_an_older_image_is_named_and_the_rest_is_checked(cluster: FakeCluster, run: Run) -> None:
    for component in cluster.state["reports"]:
        cluster.state["reports"][component] = "/usr/local/bin/python: No module named airflow_steps.doctor"
    _, report = run()
    [line] = find(report, "inside")
    assert "its image is older" in line and "scheduler" in line and find(report, "migrations", "ok")


def test_a_nodes_clock_is_compared(cluster: FakeCluster, run: Run) -> None:
    cluster.state["clock_skew"] = {"scheduler": 60}
    cluster.state["objects"]["kube-node-lease"]["leases"] = [make_lease("node-1"), make_lease("node-2", age=-120)]
    _, report = run()
    assert "scheduler: the clock of the node of airflow-scheduler-1 is at least " in find(report, "clock")[0]
    assert "node-2: its lease was renewed 1" in find(report, "clock", "warning")[0]


def test_nodes_quotas_and_claims_in_trouble_are_named(cluster: FakeCluster, run: Run) -> None:
    nodes = [make_node("node-1", "arm64"), make_node("node-2", "arm64")]
    nodes[0]["status"]["conditions"] = [{"type": "Ready", "status": "Unknown", "message": "the kubelet stopped"}]
    nodes[1]["status"]["conditions"] = [{"type": "DiskPressure", "status": "True", "message": "no space"}]
    cluster.objects["nodes"] = nodes
    cluster.state["objects"][STEPS]["resourcequotas"][0]["status"]["used"]["pods"] = "7"
    cluster.objects["persistentvolumeclaims"] = [{"metadata": {"name": "data"}, "status": {"phase": "Pending"}}]
    _, report = run()
    assert "7 of 8 pods of the quota steps are used" in find(report, "quota", "warning")[0]
    assert "data: the claim is Pending" in find(report, "volumes")[0]
    lines = "\n".join(find(report, "nodes"))
    assert "node-1: not ready: the kubelet stopped" in lines and "node-2: DiskPressure: no space" in lines
    assert "kubernetes.io/arch=amd64" in find(report, "trainer-node")[0]


def test_a_quota_that_is_used_up_is_no_error_of_the_steps_pod(cluster: FakeCluster, run: Run) -> None:
    cluster.state["quota_exceeded"] = True
    code, report = run()
    assert code == 0 and "the quota is used up" in find(report, "step-pod", "warning")[0]


def test_a_steps_pod_that_cannot_start_says_why_and_is_deleted(cluster: FakeCluster, run: Run) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "manifest unknown"}
    cluster.state["step_status"]["collector"] = {
        "phase": "Pending",
        "containerStatuses": [{"name": "base", "state": {"waiting": waiting}}],
    }
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available: 2 node(s) didn't match"}
    cluster.state["step_status"]["trainer"] = {"phase": "Pending", "conditions": [unscheduled]}
    _, report = run()
    lines = "\n".join(find(report, "step-pod"))
    assert "collector: a pod like a step's does not run: ImagePullBackOff: manifest unknown" in lines
    assert "trainer_node_selector" in lines and "didn't match" in lines
    assert cluster.list_created_pods() == []


def test_a_program_that_crashes_or_finds_an_error_is_reported(cluster: FakeCluster, run: Run) -> None:
    crashed = {"phase": "Failed", "containerStatuses": [{"name": "base", "state": {"terminated": {"exitCode": 139}}}]}
    failed = {"phase": "Failed", "containerStatuses": [{"name": "base", "state": {"terminated": {"exitCode": 78}}}]}
    cluster.state["step_status"] = {"trainer": crashed, "collector": failed}
    cluster.state["step_log"]["trainer"] = "platform: image x86_64, node aarch64 (emulated)"
    prices = {"check": "prices", "status": "error", "message": "no bar", "advice": "check the source", "where": ""}
    cluster.state["step_log"]["collector"] += f"\n{json.dumps(prices)}\ncollector check: errors in prices"
    _, report = run()
    assert "segmentation fault" in find(report, "step-pod")[0] and "emulated" in find(report, "step-pod")[0]
    assert find(report, "prices") == ["collector: no bar -> check the source"]


def test_pods_of_an_interrupted_run_are_deleted_and_an_older_program_is_named(cluster: FakeCluster, run: Run) -> None:
    leftover = {"metadata": {"name": "doctor-left-behind", "creationTimestamp": "2026-01-15T09:00:00Z"}, "status": {}}
    (cluster.folder / "pods" / "doctor-left-behind.json").write_text(json.dumps(leftover))
    failed = {"phase": "Failed", "containerStatuses": [{"name": "base", "state": {"terminated": {"exitCode": 78}}}]}
    cluster.state["step_status"]["trainer"] = failed
    cluster.state["step_log"]["trainer"] = "trainer: argument STEP: invalid choice: 'check'; see trainer --help"
    _, report = run()
    assert "an image from before this version has no command check" in find(report, "step-pod")[0]
    assert any("left behind" in line for line in find(report, "step-pod", "ok"))
    assert cluster.list_created_pods() == []


def test_an_answer_that_is_no_report_is_an_error_of_that_pod(cluster: FakeCluster, run: Run) -> None:
    cluster.state["reports"]["triggerer"] = {"findings": "nonsense", "digests": None}
    _, report = run()
    assert "triggerer: its answer is no report" in find(report, "inside")[0] and find(report, "migrations", "ok")


def test_a_check_that_raises_names_itself_and_the_others_run(
    cluster: FakeCluster, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.objects["nodes"][0]["status"] = {}
    code, report = run()
    assert code == 1 and "the check failed: KeyError" in find(report, "nodes")[0]
    assert find(report, "secrets", "ok") and find(report, "step-pod", "ok")


def test_images_that_do_not_fit_are_named(cluster: FakeCluster, run: Run) -> None:
    status = cluster.pod("monitor")["status"]["containerStatuses"][0]
    status["state"] = {"waiting": {"reason": "ImagePullBackOff", "message": "no match for platform in manifest"}}
    cluster.pod("scheduler")["spec"]["containers"][0]["image"] = "registry.example/airflow:0"
    cluster.state["reports"]["scheduler"]["commit"] = "4567"
    cluster.state["reports"]["triggerer"]["airflow_version"] = "3.3.1"
    _, report = run()
    assert "registry.example/airflow:1: no match for platform" in find(report, "images")[0]
    assert "airflow-scheduler-1: it runs registry.example/airflow:0" in find(report, "images", "warning")[0]
    assert "4567: scheduler" in find(report, "image-commits", "warning")[0]
    assert "the pods have Airflow 3.3.1, the values say 3.3.2" in find(report, "versions")[0]


def test_a_tainted_or_cordoned_node_does_not_take_the_trainer() -> None:
    selector, node = "kubernetes.io/arch=amd64", make_node("node-1")
    node["spec"]["taints"] = [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]
    assert find_trainer_node([node], selector).status == "error"
    assert find_trainer_node([node], selector, "gpu=yes:NoSchedule").status == "ok"
    node["spec"]["unschedulable"] = True
    assert find_trainer_node([node], selector, "gpu=yes:NoSchedule").status == "error"
    assert find_trainer_node([make_node("node-2", "arm64")], "").status == "warning"


def test_without_slack_there_is_a_warning_and_two_fernet_keys_are_well_formed() -> None:
    rotated = f"{base64.urlsafe_b64encode(b'n' * 32).decode()},{KEYS['airflow-fernet-key']['fernet-key']}"
    secrets = {name: data for name, data in KEYS.items() if name != "slack"} | {"airflow-fernet-key": {"fernet-key": rotated}}
    [finding] = judge(secrets, RULES, NAMESPACE)
    assert finding.status == "warning" and "messages are only logged" in finding.advice
