"""A rollback to an Airflow that does not support the database's revision is refused, with what to do."""

from __future__ import annotations

import json
import time
from pathlib import Path

import deploy
import pytest
from devtools import database_migrations
from devtools.commands import ToolError
from devtools.database_migrations import DatabaseState, find_head, is_supported, read_state
from devtools.deployment import Deployment

# Of Airflow 3.3: the versions with migrations, and the database's revision after them.
HEADS = {
    "3.0.3": "fe199e1abd77",
    "3.1.0": "cc92b33c6709",
    "3.1.8": "509b94a1042d",
    "3.2.0": "1d6611b6ab7c",
    "3.3.0": "d2f4e1b3c5a7",
}
OLD_HEADS = {version: head for version, head in HEADS.items() if version != "3.3.0"}
DEPLOYMENT = Deployment("context", "market-daily-staging", "staging")


@pytest.mark.parametrize(
    ("version", "head"),
    [
        ("3.3.2", "d2f4e1b3c5a7"),
        ("3.3.0", "d2f4e1b3c5a7"),
        ("3.2.9", "1d6611b6ab7c"),
        ("3.1.10", "509b94a1042d"),
        ("3.1.7", "cc92b33c6709"),
        ("2.10.5", None),
    ],
)
def test_a_versions_head_is_that_of_the_last_migration_before_it(version: str, head: str | None) -> None:
    assert find_head(version, HEADS) == head


@pytest.mark.parametrize(
    ("revision", "heads", "target", "supported"),
    [
        ("d2f4e1b3c5a7", HEADS, "3.3.1", True),  # the same minor version
        ("1d6611b6ab7c", HEADS, "3.2.2", True),  # the deployment failed before its migration
        ("1d6611b6ab7c", OLD_HEADS, "3.3.0", True),  # forward again: its migration job comes first
        ("d2f4e1b3c5a7", HEADS, "3.2.2", False),
        ("509b94a1042d", HEADS, "3.1.0", False),  # a migration within a minor version
        ("d2f4e1b3c5a7", OLD_HEADS, "3.2.2", False),  # only pods of the old version run
        ("d2f4e1b3c5a7", HEADS, "2.10.5", False),
    ],
)
def test_a_version_supports_its_own_and_earlier_revisions(
    revision: str, heads: dict[str, str], target: str, supported: bool
) -> None:
    assert is_supported(DatabaseState("pod", revision, heads), target) is supported


def test_the_refusal_names_both_versions_and_the_commands_in_order() -> None:
    state = DatabaseState("airflow-dag-processor-1", "d2f4e1b3c5a7", HEADS)
    message = database_migrations.explain_refusal(DEPLOYMENT, state, "3.2.2", 4)
    assert "cannot roll back to Airflow 3.2.2" in message and "of Airflow 3.3.0" in message
    commands = (
        "back up the database",
        "kubectl --context context --namespace market-daily-staging scale deployment airflow-api-server airflow-scheduler "
        "airflow-triggerer --replicas=0",
        "kubectl --context context --namespace market-daily-staging exec airflow-dag-processor-1 --container=dag-processor -- "
        "airflow db downgrade --to-version 3.2.2 --yes",
        "make rollback ENV=staging REVISION=4",
    )
    positions = [message.index(command) for command in commands]
    assert positions == sorted(positions)


def test_without_a_pod_of_the_newer_version_it_must_be_deployed_again() -> None:
    state = DatabaseState("airflow-dag-processor-1", "d2f4e1b3c5a7", OLD_HEADS)
    message = database_migrations.explain_refusal(DEPLOYMENT, state, "3.2.2", 4)
    assert "no running pod has the Airflow that migrated it" in message
    assert "db downgrade" not in message and "make rollback ENV=staging REVISION=4" in message


def make_pod(name: str, *, ready: bool = True) -> dict[str, object]:
    state = {"running": {}} if ready else {"waiting": {"reason": "CrashLoopBackOff"}}
    component = name.removeprefix("airflow-")[:-2]
    return {
        "metadata": {"name": name, "labels": {"component": component}},
        "status": {"phase": "Running", "containerStatuses": [{"name": component, "state": state}]},
    }


def test_the_state_is_read_from_a_pod_that_knows_the_revision() -> None:
    asked = []

    def kubectl(*arguments: str, timeout: float = 0) -> str:
        if arguments[0] == "get":
            names = ("airflow-scheduler-1", "airflow-dag-processor-1", "airflow-dag-processor-2")
            return json.dumps({"items": [make_pod(name) for name in names] + [make_pod("airflow-triggerer-1", ready=False)]})
        asked.append(arguments[1])
        heads = HEADS if arguments[1] == "airflow-dag-processor-2" else OLD_HEADS
        return json.dumps({"revision": "d2f4e1b3c5a7", "heads": heads})

    state = read_state(kubectl)
    assert state and state.pod == "airflow-dag-processor-2"
    assert asked == ["airflow-dag-processor-1", "airflow-dag-processor-2"]


def write_program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs helm and kubectl for a cluster with Airflow 3.3.0 deployed over 3.2.2; their calls are in the file `calls`."""
    history = [
        {"revision": number, "status": status, "description": "", "updated": f"2026-01-0{number}", "chart": "airflow"}
        for number, status in ((1, "superseded"), (2, "deployed"))
    ]
    (tmp_path / "history").write_text(json.dumps(history))
    (tmp_path / "pods").write_text(json.dumps({"items": [make_pod("airflow-dag-processor-1")]}))
    (tmp_path / "state").write_text(json.dumps({"revision": HEADS["3.3.0"], "heads": HEADS}))
    write_program(
        tmp_path,
        "helm",
        f'echo helm "$@" >> {tmp_path}/calls\n'
        f'case "$*" in *" list "*) echo namespace-policies airflow;; *" history "*) cat {tmp_path}/history;;\n'
        """*"get values"*"--revision=1"*) echo '{"airflowVersion": "3.2.2"}';;\n"""
        """*"get values"*) echo '{"airflowVersion": "3.3.0"}';; esac""",
    )
    write_program(
        tmp_path,
        "kubectl",
        f'echo kubectl "$@" >> {tmp_path}/calls\n'
        f'case "$*" in *" get pods "*) cat {tmp_path}/pods;; *" exec "*) cat {tmp_path}/state;; esac',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("YES", "1")
    monkeypatch.delenv("REVISION", raising=False)
    return tmp_path


def test_make_rollback_refuses_at_once_and_changes_nothing(cluster: Path) -> None:
    started = time.monotonic()
    with pytest.raises(ToolError, match=r"cannot roll back to Airflow 3\.2\.2"):
        deploy.roll_back(DEPLOYMENT)
    assert time.monotonic() - started < 20
    calls = (cluster / "calls").read_text()
    assert "exec airflow-dag-processor-1" in calls
    assert "rollback" not in calls and "delete" not in calls


def test_a_failed_deployment_that_migrated_is_not_rolled_back(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ToolError) as raised:
        deploy.recover(DEPLOYMENT, {"airflow": 1, "namespace-policies": 1}, ToolError("the pods do not start"))
    assert "the deployment failed" in str(raised.value) and "airflow db downgrade --to-version 3.2.2" in str(raised.value)
    assert "the pods do not start" in capsys.readouterr().err
    assert "rollback" not in (cluster / "calls").read_text()


def test_a_failed_deployment_without_migration_is_rolled_back(cluster: Path) -> None:
    (cluster / "state").write_text(json.dumps({"revision": HEADS["3.2.0"], "heads": HEADS}))
    with pytest.raises(ToolError, match="was rolled back to revision 1"):
        deploy.recover(DEPLOYMENT, {"airflow": 1, "namespace-policies": 1}, ToolError("the pods do not start"))
    assert "helm --kube-context context --namespace market-daily-staging rollback airflow 1" in (cluster / "calls").read_text()


@pytest.mark.parametrize(("version", "refused"), [("3.2.2", True), ("3.3.0", False)])
def test_without_a_running_pod_only_the_same_version_is_rolled_back(cluster: Path, version: str, refused: bool) -> None:
    (cluster / "pods").write_text('{"items": []}')
    revision = 1 if version == "3.2.2" else 2
    if refused:
        with pytest.raises(ToolError, match=r"cannot verify that Airflow 3\.2\.2 supports the database"):
            database_migrations.check_rollback(DEPLOYMENT, revision)
    else:
        database_migrations.check_rollback(DEPLOYMENT, revision)
