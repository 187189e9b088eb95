"""Every argument of the base classes applies to a step, moves it into a worker, or is rejected: none is ignored."""

from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.secret import Secret
from airflow.sdk import DAG, Asset
from airflow_steps import operator_arguments
from airflow_steps.operator import StepOperator
from airflow_steps.operator_arguments import FROM_TRIGGERER, IN_WORKER, NEUTRAL, REJECTED, list_arguments
from airflow_steps.retry_policy import StepRetryPolicy, read_retry_rules
from kubernetes.client import models as k8s
from step_contract.errors import ConfigurationError


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEP_RUNNER", "triggerer")
    monkeypatch.setenv("TRAINER_IMAGE", "trainer:1")


def make_step(**more: Any) -> StepOperator:
    return StepOperator(program="trainer", step="train", options={}, **more)


def make_pod(step: StepOperator) -> dict[str, Any]:
    """Return the pod that the triggerer creates."""
    arguments = step.start_trigger_args
    assert arguments and arguments.trigger_kwargs
    pod: dict[str, Any] = arguments.trigger_kwargs["pod_template_dict"]
    return pod


WORKER_SAMPLES: dict[str, Any] = {
    "pool": "small",
    "pool_slots": 2,
    "max_active_tis_per_dag": 1,
    "max_active_tis_per_dagrun": 1,
    "priority_weight": 7,
    "weight_rule": "absolute",
    "inlets": [Asset("s3://market/prices")],
    "outlets": [Asset("s3://market/models")],
    "on_execute_callback": print,
    "on_success_callback": [print],
    "on_skipped_callback": print,
    "pre_execute": print,
    "post_execute": print,
    "logger_name": "own",
    "kubernetes_conn_id": "another_cluster",
    "in_cluster": False,
    "cluster_context": "another",
    "config_file": "/home/me/kube.config",
    "schedule_timeout_seconds": 900,
    "durable": False,
    "reattach_on_restart": False,
    "on_kill_action": "keep_pod",
    "callbacks": KubernetesPodOperatorCallback,
    "progress_callback": print,
    "get_logs": False,
    "container_logs": True,
    "init_container_logs": True,
    "log_formatter": lambda container, line: line,
    "container_name_log_prefix_enabled": True,
    "log_events_on_failure": True,
}
REJECTED_SAMPLES: dict[str, Any] = {
    "name": "my-pod",
    "random_name_suffix": True,
    "retry_policy": StepRetryPolicy(0, timedelta(minutes=5), read_retry_rules()),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(hours=1),
    "do_xcom_push": False,
    "xcom_sidecar_container_security_context": {"privileged": False},
    "multiple_outputs": True,
    "skip_on_exit_code": 5,
    "render_template_as_native_obj": True,
    "is_delete_operator_pod": True,
    "log_pod_spec_on_failure": True,
    "deferrable": True,
    "poll_interval": 9,
    "logging_interval": 9,
    "trigger_kwargs": {"some": "value"},
}
TEMPLATE = {"metadata": {"annotations": {"from": "template"}}, "spec": {"containers": [{"name": "base"}]}}
POD_SAMPLES: dict[str, Any] = {
    "namespace": "elsewhere",
    "image": "another:1",
    "cmds": ["sh"],
    "arguments": ["--help"],
    "ports": [k8s.V1ContainerPort(container_port=9090)],
    "env_vars": {"LOSS": "huber"},
    "env_from": [k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="feeds"))],
    "configmaps": ["shared"],
    "secrets": [Secret("env", "TOKEN", "api", "token")],
    "pod_runtime_info_envs": [
        k8s.V1EnvVar("NODE", value_from=k8s.V1EnvVarSource(field_ref=k8s.V1ObjectFieldSelector(field_path="spec.nodeName")))
    ],
    "volumes": [k8s.V1Volume(name="cache", empty_dir=k8s.V1EmptyDirVolumeSource())],
    "volume_mounts": [k8s.V1VolumeMount(name="cache", mount_path="/cache")],
    "container_resources": k8s.V1ResourceRequirements(limits={"nvidia.com/gpu": "1"}),
    "image_pull_policy": "Always",
    "image_pull_secrets": [k8s.V1LocalObjectReference("registry")],
    "init_containers": [k8s.V1Container(name="first", image="busybox:1")],
    "base_container_name": "step",
    "labels": {"team": "data"},
    "annotations": {"team": "data"},
    "affinity": k8s.V1Affinity(node_affinity=k8s.V1NodeAffinity()),
    "node_selector": {"disk": "ssd"},
    "tolerations": [k8s.V1Toleration(key="gpu", operator="Exists")],
    "schedulername": "volcano",
    "priority_class_name": "high",
    "runtime_class_name": "gvisor",
    "service_account_name": "other",
    "automount_service_account_token": True,
    "hostnetwork": True,
    "host_aliases": [k8s.V1HostAlias(hostnames=["mirror"], ip="10.0.0.1")],
    "hostname": "trainer",
    "subdomain": "training",
    "dnspolicy": "Default",
    "dns_config": k8s.V1PodDNSConfig(nameservers=["10.0.0.2"]),
    "security_context": k8s.V1PodSecurityContext(run_as_user=1),
    "container_security_context": k8s.V1SecurityContext(run_as_user=1),
    "full_pod_spec": k8s.V1Pod(metadata=k8s.V1ObjectMeta(annotations={"from": "spec"})),
    "pod_template_file": "",
    "pod_template_dict": TEMPLATE,
    "termination_grace_period": 60,
    "termination_message_policy": "File",
    "active_deadline_seconds": 77,
    "execution_timeout": timedelta(minutes=3),
}
# They say how a pod is followed, not what it is.
FOLLOWING = {
    "startup_timeout_seconds",
    "on_finish_action",
    "startup_check_interval_seconds",
    "base_container_status_polling_interval",
    "log_events_on_startup",
}


def test_every_argument_of_the_base_classes_is_classified_once() -> None:
    """Fails on a new version's new argument: find out what the triggerer does with it, and add it to one of the tables."""
    groups = [set(FROM_TRIGGERER), set(IN_WORKER), set(REJECTED)]
    assert set(list_arguments()) == set.union(*groups)
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert set(WORKER_SAMPLES) == set(IN_WORKER) and set(REJECTED_SAMPLES) == set(REJECTED)


def test_every_argument_of_the_pod_has_a_sample() -> None:
    parameters = inspect.signature(KubernetesPodOperator.__init__).parameters
    assert set(POD_SAMPLES) - {"execution_timeout"} == (FROM_TRIGGERER & set(parameters)) - FOLLOWING


@pytest.mark.parametrize("name", WORKER_SAMPLES)
@pytest.mark.parametrize("from_default_args", [False, True], ids=["of the task", "of the DAG"])
@pytest.mark.filterwarnings("ignore:.*reattach_on_restart.*")
def test_an_argument_that_needs_a_worker_gets_one(name: str, from_default_args: bool) -> None:
    given = {name: WORKER_SAMPLES[name]}
    with DAG("own", schedule=None, default_args=given if from_default_args else {}):
        step = make_step(**({} if from_default_args else given))
    assert (step.runner, step.start_from_trigger, step.start_trigger_args) == ("worker", False, None)


def test_the_log_names_the_argument_that_needs_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, step = [], make_step(pool="small")
    monkeypatch.setattr(step.log, "info", lambda text, *values: ran.append(text % values))
    monkeypatch.setattr(KubernetesPodOperator, "execute", lambda self, context: None)
    monkeypatch.setattr(step, "_complete", lambda status, context: "uri")
    assert step.execute({}) == "uri"
    assert ran == ["a worker runs this step because of its argument pool: the scheduler applies it to tasks that it queues"]


@pytest.mark.parametrize("name", ["pool", "on_success_callback", "outlets"])
def test_an_attribute_set_later_moves_the_step_into_a_worker(name: str) -> None:
    step = make_step()
    assert step.start_from_trigger
    setattr(step, name, WORKER_SAMPLES[name])
    assert (step.runner, step.start_from_trigger) == ("worker", False)


def test_an_asset_as_an_outlet_moves_the_step_into_a_worker() -> None:
    step = make_step()
    assert step > Asset("s3://market/models")
    assert (step.runner, step.start_from_trigger) == ("worker", False)


def test_neutral_values_keep_the_step_in_the_triggerer() -> None:
    names = set(list_arguments()) & (set(IN_WORKER) | set(REJECTED))
    with DAG("neutral", schedule=None, default_args={name: list_arguments()[name] for name in names} | NEUTRAL):
        assert make_step().start_from_trigger


def test_a_worker_argument_contradicts_an_explicit_triggerer() -> None:
    with pytest.raises(
        ConfigurationError, match=r"task train: the triggerer cannot apply pool: remove that, or runner='triggerer'"
    ):
        make_step(pool="small", runner="triggerer")


@pytest.mark.parametrize("name", REJECTED_SAMPLES)
@pytest.mark.parametrize("runner", ["triggerer", "worker", "process"])
def test_an_argument_that_cannot_apply_is_an_error_when_parsed(name: str, runner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEP_RUNNER", runner)
    with pytest.raises(ConfigurationError, match=f"task train: {name} does not apply to a StepOperator: .*Remove it"):
        make_step(**{name: REJECTED_SAMPLES[name]})


def test_an_unknown_argument_runs_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a later version of Airflow."""
    monkeypatch.setattr(operator_arguments, "FROM_TRIGGERER", FROM_TRIGGERER - {"ports"})
    assert make_step(ports=POD_SAMPLES["ports"]).runner == "worker"


@pytest.mark.parametrize("name", POD_SAMPLES)
def test_an_argument_of_the_pod_changes_the_triggerers_pod(name: str, tmp_path: Path) -> None:
    value = POD_SAMPLES[name]
    if name == "pod_template_file":
        value = str(tmp_path / "pod.yaml")
        Path(value).write_text("metadata: {annotations: {from: file}}\nspec: {containers: [{name: base}]}\n")
    step = make_step(**{name: value})
    assert step.start_from_trigger
    assert make_pod(step) != make_pod(make_step())
