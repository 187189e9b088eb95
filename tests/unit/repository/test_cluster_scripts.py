from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import build_images
import pytest
from devtools import container_images, helm_charts, kubernetes_secrets, pods
from devtools.commands import ToolError, run
from devtools.deployment import Deployment
from devtools.kind_cluster import KindCluster, find_images

ROOT = Path(__file__).resolve().parents[3]


def make_path(folder: Path, **scripts: str) -> str:
    """Return a PATH with only these shell scripts and the programs that a shell needs."""
    for name in ("bash", "sh", "dirname", "cat", "uname"):
        (folder / name).symlink_to(f"/usr/bin/{name}" if Path(f"/usr/bin/{name}").exists() else f"/bin/{name}")
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_all_missing_programs_are_listed_with_their_installation_urls(tmp_path: Path) -> None:
    environment = {"PATH": make_path(tmp_path, docker="exit 0")}
    completed = subprocess.run(
        [sys.executable, ROOT / "scripts" / "kind.py", "up"], env=environment, capture_output=True, text=True
    )
    assert completed.returncode == 1
    for program in ("kind", "helm", "kubectl"):
        assert f"{program}: https://" in completed.stderr
    assert "docker:" not in completed.stderr


def test_a_docker_daemon_that_does_not_run_is_reported(tmp_path: Path) -> None:
    environment = {"PATH": make_path(tmp_path, docker="exit 1", kind="", helm="", kubectl="", git="")}
    completed = subprocess.run(
        [sys.executable, ROOT / "scripts" / "kind.py", "up"], env=environment, capture_output=True, text=True
    )
    assert completed.returncode == 1
    assert "cannot connect to the Docker daemon" in completed.stderr


def test_a_command_that_exceeds_its_timeout_is_killed() -> None:
    with pytest.raises(ToolError, match="timed out after 0 s"):
        run(["sleep", "5"], timeout=0.2)


@pytest.mark.parametrize(("docker", "message"), [("exit 0", ""), ("exit 1", "TRAINER_PLATFORM=linux/arm64")])
def test_without_an_amd64_node_the_trainer_needs_emulation(
    docker: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", make_path(tmp_path, kubectl="echo arm64 arm64", docker=docker))
    monkeypatch.setenv("TAG", "1")
    if message:
        with pytest.raises(ToolError, match=message):
            KindCluster().trainer_options()
    else:
        assert KindCluster().trainer_options() == ["--set-string", "config.market_daily.trainer_node_selector="]


def test_the_images_of_the_manifests_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_SIMULATOR_IMAGE", "registry:5000/slack:1")
    images = find_images(KindCluster().read_manifests())
    assert len(images) == 3 and "registry:5000/slack:1" in images
    assert [image for image in images if image.startswith("postgres:")]


def test_an_images_name_can_be_replaced_by_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IMAGE_PREFIX", "TAG", "COMMIT", "AIRFLOW_IMAGE", "COLLECTOR_IMAGE", "TRAINER_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IMAGE_PREFIX", "registry:5000/team")
    monkeypatch.setenv("TAG", "1.2")
    monkeypatch.setenv("AIRFLOW_IMAGE", "registry:5000/team/airflow@sha256:0123")
    names = {image: container_images.name_of(image) for image in container_images.IMAGES}
    options = helm_charts.image_options(names, {})
    assert "images.airflow.repository=registry:5000/team/airflow" in options
    assert "images.airflow.digest=sha256:0123" in options
    assert "config.market_daily.trainer_image=registry:5000/team/trainer:1.2" in options


def test_a_tag_is_the_commit_with_a_mark_for_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMMIT", raising=False)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git[:3], "init", "--quiet"], check=True)
    (tmp_path / "file").write_text("first")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "first"], check=True)
    monkeypatch.setattr("devtools.commands.ROOT", tmp_path)
    clean = container_images.get_commit()
    (tmp_path / "file").write_text("second")
    assert container_images.get_commit() == f"{clean}-dirty"


def test_existing_secrets_are_kept_and_no_value_is_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    existing = "postgres airflow-metadata bucket airflow-fernet-key airflow-admin"
    body = f'echo "$@" >> {calls}; case "$*" in *get*) echo {existing};; *) cat >> {tmp_path}/in; echo >> {tmp_path}/in;; esac'
    monkeypatch.setenv("PATH", make_path(tmp_path, kubectl=body))
    deployment = Deployment("context", "namespace", "kind")
    assert kubernetes_secrets.create_missing_secrets(deployment.kubectl, "namespace", "kind") == []
    created = [json.loads(text)["metadata"]["name"] for text in (tmp_path / "in").read_text().splitlines()]
    assert created == ["airflow-jwt-secret", "airflow-api-secret-key", "airflow-monitor", "slack"]
    assert "stringData" not in calls.read_text()


def test_outside_kind_passwords_are_generated_and_external_secrets_are_listed() -> None:
    inputs: list[str] = []

    def kubectl(*arguments: str, input: str = "") -> str:
        inputs.append(input)
        return ""

    commands = "\n".join(kubernetes_secrets.create_missing_secrets(kubectl, "namespace", "prod"))
    assert "generic airflow-metadata" in commands and "generic bucket" in commands
    [login] = [json.loads(text) for text in inputs if "airflow-admin" in text]
    assert len(login["stringData"]["password"]) > 20
    assert not [text for text in inputs if '"postgres"' in text]


RENDERED = "    step_namespace = market-daily-prod-steps\n    step_credentials = bucket-steps\n"


def record_kubectl(folder: Path, monkeypatch: pytest.MonkeyPatch, secrets: str) -> Path:
    """Put a kubectl on the PATH that has the `secrets` in every namespace; return the file with its calls and their input."""
    calls = folder / "calls"
    bucket = '{"data": {"AWS_ACCESS_KEY_ID": "a2V5"}}'
    body = f"""case "$*" in
    *"get secrets"*) echo {secrets};; *"get secret bucket"*) echo '{bucket}';;
    *) echo "$@" >> {calls}; cat >> {calls}; echo >> {calls};; esac"""
    monkeypatch.setenv("PATH", make_path(folder, kubectl=body))
    return calls


def test_all_missing_secrets_are_listed_at_once_each_with_its_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_kubectl(tmp_path, monkeypatch, secrets="")
    with pytest.raises(ToolError) as raised:
        Deployment("context", "market-daily-prod", "prod").prepare_namespaces(RENDERED)
    for command in ("prod create secret generic airflow-metadata", "prod-steps create secret generic bucket-steps"):
        assert f"kubectl --namespace market-daily-{command}" in str(raised.value)
    assert "make bucket-policy ENV=prod" in str(raised.value)
    namespaces = [json.loads(line) for line in calls.read_text().splitlines() if '"Namespace"' in line]
    assert [namespace["metadata"]["name"] for namespace in namespaces] == ["market-daily-prod", "market-daily-prod-steps"]
    for namespace in namespaces:
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_prepared_deployment_is_left_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*kubernetes_secrets.generate_keys("prod"), *kubernetes_secrets.EXTERNAL, "bucket-steps"]
    calls = record_kubectl(tmp_path, monkeypatch, secrets=" ".join(names))
    assert not Deployment("context", "market-daily-prod", "prod").prepare_namespaces(RENDERED)
    commands = [line for line in calls.read_text().splitlines() if line.startswith("--context")]
    assert len(commands) == 2 and all("apply --filename -" in command for command in commands)  # the two namespaces
    assert '"Secret"' not in calls.read_text()


def test_in_kind_a_separate_steps_namespace_gets_the_buckets_only_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*kubernetes_secrets.generate_keys("kind"), *kubernetes_secrets.generate_kind_credentials("airflow")]
    calls = record_kubectl(tmp_path, monkeypatch, secrets=" ".join(names))
    Deployment("context", "airflow", "kind").prepare_namespaces(RENDERED)
    assert "--namespace market-daily-prod-steps create" in calls.read_text()
    assert '"name": "bucket-steps"}, "stringData": {"AWS_ACCESS_KEY_ID": "key"}' in calls.read_text()


def test_steps_that_share_airflows_namespace_need_no_further_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*kubernetes_secrets.generate_keys("prod"), *kubernetes_secrets.EXTERNAL]
    calls = record_kubectl(tmp_path, monkeypatch, secrets=" ".join(names))
    Deployment("context", "market-daily-prod", "prod").prepare_namespaces(
        "    step_namespace = \n    step_credentials = bucket\n"
    )
    assert "-steps" not in calls.read_text()


def test_an_unhealthy_pod_is_described_by_events_and_log() -> None:
    pod_list = """{"items": [
      {"metadata": {"name": "healthy"}, "status": {"phase": "Running", "containerStatuses": [{"name": "a", "ready": true}]}},
      {"metadata": {"name": "succeeded"}, "status": {"phase": "Succeeded"}},
      {"metadata": {"name": "broken"}, "status": {"phase": "Running", "containerStatuses": [{"name": "b", "ready": false}]}}
      ]}"""
    events = '{"items": [{"reason": "BackOff", "message": "restarting failed container"}]}'

    def kubectl(*arguments: str) -> str:
        if arguments[0] == "logs":
            return "the last line"
        return pod_list if arguments[1] == "pods" else events

    description = pods.describe_unhealthy_pods(kubectl)
    assert "pod broken" in description and "BackOff: restarting failed container" in description
    assert "the last line" in description
    assert "healthy" not in description and "succeeded" not in description


def test_a_pod_watch_keeps_first_and_last_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [("a", "Pending"), ("b", "Pending"), ("a", "Running")]
    output = "\n".join(
        json.dumps({"metadata": {"name": name, "labels": {"app": name}}, "status": {"phase": phase}}, indent=4)
        for name, phase in states
    )
    (tmp_path / "output").write_text(f"{output}\n")
    monkeypatch.setenv("PATH", make_path(tmp_path, kubectl=f'echo "$@" > {tmp_path}/arguments; exec cat {tmp_path}/output'))
    with Deployment("context", "namespace", "kind").watch_pods("app") as watch:
        watch._process.wait(timeout=10)
    assert {name: pod["status"]["phase"] for name, pod in watch.first.items()} == {"a": "Pending", "b": "Pending"}
    assert {name: pod["status"]["phase"] for name, pod in watch.last.items()} == {"a": "Running", "b": "Pending"}
    assert [pod["metadata"]["name"] for pod in watch.select({"app": "a"})] == ["a"]
    arguments = (tmp_path / "arguments").read_text().split()
    assert {"get", "pods", "--watch", "--namespace", "namespace", "--selector=app"} <= set(arguments)


def test_chart_and_airflow_versions_are_pinned_once_each() -> None:
    makefile = (ROOT / "Makefile").read_text()
    version = next(line.split(":=")[1].strip() for line in makefile.splitlines() if "CHART_VERSION :=" in line)
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = [
        ROOT / name for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    ]
    settings = [
        file for file in files if file.is_file() and (file.suffix in (".yaml", ".sh", ".in") or file.name == "Dockerfile")
    ]
    settings += [file for file in files if file.is_file() and ROOT / "scripts" in file.parents and file.suffix == ".py"]
    assert [file.name for file in settings if version in file.read_text()] == []
    assert [file.name for file in settings if container_images.read_airflow_version() in file.read_text()] == [
        "requirements.in"
    ]
    assert f"airflowVersion={container_images.read_airflow_version()}" in helm_charts.environment_options("kind")
    assert os.environ.get("CHART_VERSION") in (None, version)


def test_the_slack_simulator_is_built_and_never_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    digests = " ".join(f"market-daily/{image}@sha256:0" for image in (*container_images.IMAGES, *container_images.LOCAL_IMAGES))
    body = f'echo "$@" >> {calls}; case "$*" in *RepoDigests*) echo {digests};; *Size*) echo 1000000;; esac'
    monkeypatch.setenv("PATH", make_path(tmp_path, docker=body, git="echo 0123"))
    for name in ("IMAGE_PREFIX", "TAG", "COMMIT", "AIRFLOW_IMAGE", "COLLECTOR_IMAGE", "TRAINER_IMAGE", "SLACK_SIMULATOR_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    assert build_images.main(["push"]) == 0
    assert "push market-daily/airflow:0123" in calls.read_text() and "slack" not in calls.read_text()
    assert build_images.main([]) == 0
    assert "dev/slack_simulator/Dockerfile" in calls.read_text()
