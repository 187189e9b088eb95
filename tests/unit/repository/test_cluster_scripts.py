from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from devtools import container_images, helm_charts, kind_cluster, kubernetes_secrets
from devtools.commands import ToolError, run
from devtools.deployment import Deployment

ROOT = Path(__file__).resolve().parents[3]


def programs(folder: Path, **bodies: str) -> str:
    """A PATH with these programs alone, and what a shell needs."""
    for name in ("bash", "sh", "dirname", "cat", "uname"):
        (folder / name).symlink_to(f"/usr/bin/{name}" if Path(f"/usr/bin/{name}").exists() else f"/bin/{name}")
    for name, body in bodies.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_all_missing_programs_are_named_at_once_with_where_to_get_them(tmp_path: Path) -> None:
    environment = {"PATH": programs(tmp_path, docker="exit 0")}
    done = subprocess.run([sys.executable, ROOT / "scripts" / "kind.py", "up"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    for program in ("kind", "helm", "kubectl"):
        assert f"{program}: https://" in done.stderr
    assert "docker:" not in done.stderr


def test_an_engine_that_does_not_run_is_told(tmp_path: Path) -> None:
    environment = {"PATH": programs(tmp_path, docker="exit 1", kind="", helm="", kubectl="", git="")}
    done = subprocess.run([sys.executable, ROOT / "scripts" / "kind.py", "up"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "docker is installed and its engine does not answer" in done.stderr


def test_a_program_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(ToolError, match="took longer than 0 s"):
        run(["sleep", "5"], seconds=0.2)


@pytest.mark.parametrize(("emulates", "told"), [("exit 0", ""), ("exit 1", "TRAINER_PLATFORM=linux/arm64")])
def test_without_an_amd64_node_the_trainer_is_emulated_or_one_is_told_what_to_do(
    emulates: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, kubectl="echo arm64 arm64", docker=emulates))
    monkeypatch.setenv("TAG", "1")
    if told:
        with pytest.raises(ToolError, match=told):
            kind_cluster.trainer_selector()
    else:
        assert kind_cluster.trainer_selector() == ["--set-string", "config.market_daily.trainer_node_selector="]


def test_the_images_names_come_from_one_place_and_a_digest_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMAGE_PREFIX", "TAG", "COMMIT", "AIRFLOW_IMAGE", "COLLECTOR_IMAGE", "TRAINER_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IMAGE_PREFIX", "registry:5000/team")
    monkeypatch.setenv("TAG", "1.2")
    monkeypatch.setenv("AIRFLOW_IMAGE", "registry:5000/team/airflow@sha256:0123")
    names = {image: container_images.name_of(image) for image in container_images.IMAGES}
    options = helm_charts.image_values(names, {})
    assert "images.airflow.repository=registry:5000/team/airflow" in options
    assert "images.airflow.digest=sha256:0123" in options
    assert "config.market_daily.trainer_image=registry:5000/team/trainer:1.2" in options


def test_a_tag_is_the_commit_and_says_when_the_tree_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMMIT", raising=False)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git[:3], "init", "--quiet"], check=True)
    (tmp_path / "file").write_text("one")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "one"], check=True)
    monkeypatch.setattr("devtools.commands.ROOT", tmp_path)
    clean = container_images.commit()
    (tmp_path / "file").write_text("two")
    assert container_images.commit() == f"{clean}-dirty"


def test_secrets_that_are_there_are_left_and_no_value_is_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    there = "postgres airflow-metadata bucket airflow-fernet-key airflow-admin"
    body = f'echo "$@" >> {calls}; case "$*" in *get*) echo {there};; *) cat > {tmp_path}/in;; esac'
    monkeypatch.setenv("PATH", programs(tmp_path, kubectl=body))
    target = Deployment("context", "namespace", "kind")
    assert kubernetes_secrets.make(target.kubectl, "namespace", "kind") == [
        "airflow-jwt-secret",
        "airflow-api-secret-key",
        "airflow-watcher",
        "slack",
    ]
    assert "stringData" in (tmp_path / "in").read_text()
    assert "stringData" not in calls.read_text()


def test_outside_kind_the_login_is_made_up_and_what_only_a_person_can_give_is_asked_for_at_once() -> None:
    made: list[str] = []

    def kubectl(*arguments: str, input: str = "") -> str:
        made.append(input)
        return ""

    with pytest.raises(ToolError) as failed:
        kubernetes_secrets.make(kubectl, "namespace", "prod")
    assert "generic airflow-metadata" in str(failed.value) and "generic bucket" in str(failed.value)
    [login] = [json.loads(text) for text in made if "airflow-admin" in text]
    assert len(login["stringData"]["password"]) > 20
    assert not [text for text in made if '"postgres"' in text]


def test_what_is_wrong_with_a_pod_is_told_with_its_events_and_last_lines() -> None:
    pods = """{"items": [
      {"metadata": {"name": "well"}, "status": {"phase": "Running", "containerStatuses": [{"name": "a", "ready": true}]}},
      {"metadata": {"name": "ended"}, "status": {"phase": "Succeeded"}},
      {"metadata": {"name": "sick"}, "status": {"phase": "Running", "containerStatuses": [{"name": "b", "ready": false}]}}]}"""
    events = '{"items": [{"reason": "BackOff", "message": "restarting failed container"}]}'

    def kubectl(*arguments: str) -> str:
        if arguments[0] == "logs":
            return "the last line"
        return pods if arguments[1] == "pods" else events

    told = pods.unhealthy(kubectl)
    assert "pod sick" in told and "BackOff: restarting failed container" in told and "the last line" in told
    assert "well" not in told and "ended" not in told


def test_the_versions_of_chart_and_airflow_are_pinned_in_one_place_each() -> None:
    makefile = (ROOT / "Makefile").read_text()
    version = next(line.split(":=")[1].strip() for line in makefile.splitlines() if "CHART_VERSION :=" in line)
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = [
        ROOT / name for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    ]
    settings = [
        file for file in files if file.is_file() and (file.suffix in (".yaml", ".sh", ".in") or file.name == "Dockerfile")
    ]
    settings += [file for file in files if file.is_file() and file.parent.name == "scripts" and file.suffix == ".py"]
    assert [file.name for file in settings if version in file.read_text()] == []
    assert [file.name for file in settings if container_images.airflow_version() in file.read_text()] == ["requirements.in"]
    assert f"airflowVersion={container_images.airflow_version()}" in helm_charts.values("kind")
    assert os.environ.get("CHART_VERSION") in (None, version)


def test_the_stand_in_for_slack_is_built_and_never_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    digests = " ".join(f"market-daily/{image}@sha256:0" for image in (*container_images.IMAGES, *container_images.LOCAL_IMAGES))
    body = f'echo "$@" >> {calls}; case "$*" in *RepoDigests*) echo {digests};; *Size*) echo 1000000;; esac'
    monkeypatch.setenv("PATH", programs(tmp_path, docker=body, git="echo 0123"))
    for name in ("IMAGE_PREFIX", "TAG", "COMMIT", "AIRFLOW_IMAGE", "COLLECTOR_IMAGE", "TRAINER_IMAGE", "SLACK_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    assert container_images.main(["push"]) == 0
    assert "push market-daily/airflow:0123" in calls.read_text() and "slack" not in calls.read_text()
    assert container_images.main([]) == 0
    assert "images/slack/Dockerfile" in calls.read_text()
