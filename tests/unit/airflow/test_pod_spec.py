from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.secret import Secret
from airflow.sdk import DAG
from airflow_steps.callbacks import on_task_failure, on_task_retry
from airflow_steps.operator import StepOperator
from airflow_steps.trigger import StepTrigger
from kubernetes.client import models as k8s
from kubernetes.client.exceptions import ApiException
from step_contract.errors import ConfigurationError

SETTINGS = {
    "STEP_RUNNER": "triggerer",
    "TRAINER_IMAGE": "registry/trainer@sha256:0123",
    "TRAINER_NODE_SELECTOR": "kubernetes.io/arch=amd64",
    "TRAINER_MEMORY": "2Gi",
    "STEP_CREDENTIALS": "bucket",
    "STEP_SERVICE_ACCOUNT": "step",
    "STEP_MAX_PODS": "5",
    "AWS_ENDPOINT_URL": "http://bucket:7070",
    "AWS_SECRET_ACCESS_KEY": "do-not-show",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://airflow:do-not-show@postgres/airflow",
}


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


def make_step(**more: Any) -> StepOperator:
    arguments: dict[str, Any] = {"options": {"session": "{{ ds }}"}} | more
    return StepOperator(program="trainer", step="train", **arguments)


def get_trigger(step: StepOperator) -> tuple[str, dict[str, Any]]:
    """Return the class and the arguments of the trigger that the task starts from."""
    arguments = step.start_trigger_args
    assert arguments and arguments.trigger_kwargs is not None
    return arguments.trigger_cls, arguments.trigger_kwargs


def make_pod(**more: Any) -> dict[str, Any]:
    pod: dict[str, Any] = get_trigger(make_step(**more))[1]["pod_template_dict"]
    return pod


def test_a_step_starts_from_the_trigger_without_a_worker() -> None:
    step = make_step()
    assert isinstance(step, KubernetesPodOperator)
    assert step.start_from_trigger
    name, kwargs = get_trigger(step)
    assert StepTrigger(**kwargs).serialize() == (name, kwargs)
    assert kwargs["max_pods"] == 5
    assert step.task_id == "train"


def test_the_triggerer_renders_the_pod() -> None:
    """It renders what is a template field of the operator and an attribute of the trigger."""
    kwargs = get_trigger(make_step())[1]
    assert set(kwargs) & set(StepOperator.template_fields) == {"pod_template_dict"}
    assert hasattr(StepTrigger(**kwargs), "pod_template_dict")


@pytest.mark.parametrize("runner", ["worker", "process"])
def test_another_runner_starts_in_a_worker(runner: str) -> None:
    assert not make_step(runner=runner).start_from_trigger


def test_the_pod_has_the_programs_image_and_arguments() -> None:
    spec = make_pod()["spec"]
    [container] = spec["containers"]
    assert container["image"] == "registry/trainer@sha256:0123"
    assert container["args"] == ["train", "--session", "{{ ds }}"]
    assert "command" not in container or not container["command"]
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert container["resources"]["limits"] == {"memory": "2Gi"}


def test_the_pod_is_restricted_and_holds_no_secret_in_plain_text() -> None:
    pod = make_pod()
    [container] = pod["spec"]["containers"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["serviceAccountName"] == "step"
    assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "bucket", "key": "AWS_SECRET_ACCESS_KEY"}
    assert "do-not-show" not in str(pod)
    assert len(pod["spec"]["containers"]) == 1


def test_every_pod_has_a_deadline_before_the_tasks_timeout() -> None:
    assert make_pod()["spec"]["activeDeadlineSeconds"] == 24 * 3600
    step = make_step(execution_timeout=timedelta(minutes=10))
    assert get_trigger(step)[1]["pod_template_dict"]["spec"]["activeDeadlineSeconds"] == 600
    assert step.execution_timeout and step.execution_timeout > timedelta(minutes=10)


def test_a_tasks_arguments_take_precedence_over_settings() -> None:
    pod = make_pod(
        image="another:1",
        node_selector={"kubernetes.io/arch": "arm64"},
        service_account_name="other",
        env_vars={"AWS_ENDPOINT_URL": "http://other"},
    )
    [container] = pod["spec"]["containers"]
    assert container["image"] == "another:1"
    assert (pod["spec"]["nodeSelector"], pod["spec"]["serviceAccountName"]) == ({"kubernetes.io/arch": "arm64"}, "other")
    assert [variable["value"] for variable in container["env"] if variable["name"] == "AWS_ENDPOINT_URL"] == ["http://other"]


OWN = {
    "env_vars": [k8s.V1EnvVar(name="LOSS", value="huber")],
    "labels": {"team": "data"},
    "node_selector": {"disk": "ssd"},
    "tolerations": [k8s.V1Toleration(key="gpu", operator="Exists")],
    "volumes": [k8s.V1Volume(name="cache", empty_dir=k8s.V1EmptyDirVolumeSource())],
    "volume_mounts": [k8s.V1VolumeMount(name="cache", mount_path="/cache")],
    "secrets": [Secret("env", "TOKEN", "api", "token")],
}


@pytest.mark.parametrize("from_default_args", [False, True], ids=["of the task", "of the DAG"])
def test_a_tasks_arguments_are_merged_with_the_deployments(from_default_args: bool) -> None:
    with DAG("merged", schedule=None, default_args=OWN if from_default_args else {}):
        pod = make_pod(**({} if from_default_args else OWN))
    [container] = pod["spec"]["containers"]
    names = {variable["name"] for variable in container["env"]}
    assert names >= {"LOSS", "TOKEN", "STEP_RESULT", "STEP_IMAGE", "AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY"}
    labels = {name: pod["metadata"]["labels"][name] for name in ("team", "app.kubernetes.io/name")}
    assert labels == {"team": "data", "app.kubernetes.io/name": "trainer"}
    assert pod["spec"]["nodeSelector"] == {"disk": "ssd", "kubernetes.io/arch": "amd64"}
    assert pod["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert [volume["name"] for volume in pod["spec"]["volumes"]] == ["tmp", "cache"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp", "/cache"]


def test_tolerations_are_written_as_kubectl_writes_taints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_TOLERATIONS", "nvidia.com/gpu=present:NoSchedule, spot:NoExecute")
    own = k8s.V1Toleration(key="team", operator="Equal", value="data", effect="PreferNoSchedule")
    assert make_pod(tolerations=[own])["spec"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Equal", "value": "present", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
        {"key": "team", "operator": "Equal", "value": "data", "effect": "PreferNoSchedule"},
    ]


def test_a_programs_secrets_are_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is named, never copied: the value is not in the pod's definition."""
    monkeypatch.setenv("TRAINER_SECRETS", "feeds, tracking")
    own = k8s.V1EnvFromSource(config_map_ref=k8s.V1ConfigMapEnvSource(name="own"))
    [container] = make_pod(env_from=[own])["spec"]["containers"]
    assert container["envFrom"] == [
        {"secretRef": {"name": "feeds"}},
        {"secretRef": {"name": "tracking"}},
        {"configMapRef": {"name": "own"}},
    ]


def test_a_programs_variables_are_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part without a name belongs to the value before it: a list of hosts has commas too."""
    monkeypatch.setenv("TRAINER_ENV", "HTTPS_PROXY=http://proxy:3128, NO_PROXY=.svc,10.0.0.0/8, AWS_REGION=eu-west-1")
    [container] = make_pod(env_vars={"NO_PROXY": "localhost"})["spec"]["containers"]
    values = [(variable["name"], variable.get("value")) for variable in container["env"]]
    assert [value for name, value in values if name == "HTTPS_PROXY"] == ["http://proxy:3128"]
    assert [value for name, value in values if name == "NO_PROXY"] == ["localhost"]
    assert [value for name, value in values if name == "AWS_REGION"] == ["eu-west-1"]
    [container] = make_pod()["spec"]["containers"]
    assert {"name": "NO_PROXY", "value": ".svc,10.0.0.0/8"} in container["env"]


def test_gpus_are_a_limit_of_the_programs_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_GPUS", "1")
    [container] = make_pod()["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "2Gi", "nvidia.com/gpu": "1"}


def test_a_step_knows_its_cpu_request() -> None:
    [container] = make_pod()["spec"]["containers"]
    [variable] = [variable for variable in container["env"] if variable["name"] == "STEP_CPU_MILLICORES"]
    assert variable["valueFrom"] == {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}


@pytest.mark.parametrize(
    ("task", "merged"),
    [
        (
            k8s.V1ResourceRequirements(limits={"nvidia.com/gpu": "1"}),
            {"requests": {"cpu": "100m", "memory": "2Gi"}, "limits": {"memory": "2Gi", "nvidia.com/gpu": "1"}},
        ),
        (
            k8s.V1ResourceRequirements(limits={"memory": "128Mi"}),
            {"requests": {"cpu": "100m"}, "limits": {"memory": "128Mi"}},
        ),
        (
            k8s.V1ResourceRequirements(requests={"cpu": "2", "memory": "1Gi"}),
            {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {}},
        ),
    ],
    ids=["a GPU keeps the memory limit", "a lower limit has no higher request", "a request replaces the limit"],
)
def test_resources_are_merged_by_name(task: k8s.V1ResourceRequirements, merged: dict[str, Any]) -> None:
    [container] = make_pod(container_resources=task)["spec"]["containers"]
    assert {"requests": {}, "limits": {}} | container["resources"] == merged


def test_a_tasks_callbacks_are_added_to_those_that_record_failures() -> None:
    step = make_step(on_failure_callback=print, on_retry_callback=[print, on_task_retry])
    assert step.on_failure_callback == [on_task_failure, print]
    assert step.on_retry_callback == [print, on_task_retry]


def test_an_xcom_as_an_option_is_a_template_and_a_dependency() -> None:
    with DAG("chained", schedule=None):
        first = make_step()
        second = make_step(task_id="second", options={"model": first.facts})
    assert second.upstream_task_ids == {"train"}
    pulled = "{{ task_instance.xcom_pull(task_ids='train', dag_id='chained', key='facts') }}"
    assert get_trigger(second)[1]["pod_template_dict"]["spec"]["containers"][0]["args"] == ["train", "--model", pulled]


def test_two_parses_of_a_file_make_the_same_pod() -> None:
    assert make_pod() == make_pod()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TRAINER_IMAGE", "", "TRAINER_IMAGE is not set"),
        ("TRAINER_NODE_SELECTOR", "amd64", "invalid TRAINER_NODE_SELECTOR 'amd64'"),
        ("TRAINER_TOLERATIONS", "gpu", "invalid TRAINER_TOLERATIONS 'gpu': must be key=value:effect or key:effect"),
        ("TRAINER_TOLERATIONS", "gpu:Never", "an effect is NoSchedule, PreferNoSchedule or NoExecute"),
        ("TRAINER_ENV", "http://proxy:3128", "invalid TRAINER_ENV 'http://proxy:3128': must be NAME=value"),
        ("TRAINER_ENV", "STEP_RESULT=/tmp/x", "invalid TRAINER_ENV: STEP_RESULT is set by the operator"),
        ("TRAINER_GPUS", "one", "invalid TRAINER_GPUS 'one'"),
        ("STEP_MAX_PODS", "many", "invalid STEP_MAX_PODS 'many'"),
    ],
)
def test_an_invalid_setting_is_an_error_at_parse_time(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=message):
        make_step()


def forbidden(reason: str) -> ApiException:
    error = ApiException(status=403, reason="Forbidden")
    error.body = f'{{"message": "pods is forbidden: {reason}"}}'
    return error


def test_a_worker_waits_while_the_quota_is_exhausted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replies: list[Any] = [forbidden("exceeded quota: steps, used: pods=8"), forbidden("exceeded quota: steps"), "pod"]

    def get_or_create_pod(self: Any, pod_request_obj: Any, context: Any) -> Any:
        if isinstance(reply := replies.pop(0), Exception):
            raise reply
        return reply

    monkeypatch.setattr(KubernetesPodOperator, "get_or_create_pod", get_or_create_pod)
    monkeypatch.setattr("airflow_steps.operator.QUOTA_POLL_SECONDS", 0.01)
    step: Any = make_step(runner="worker")
    assert step.get_or_create_pod(None, {}) == "pod"
    reason = "pods is forbidden: exceeded quota: steps, used: pods=8"
    assert capsys.readouterr().out.count(f"waiting for the cluster to admit the pod: {reason}") == 1
    replies[:] = [forbidden('violates PodSecurity "restricted:latest"')]
    with pytest.raises(ApiException, match="403"):
        step.get_or_create_pod(None, {})
    monkeypatch.setenv("STEP_QUEUE_TIMEOUT_SECONDS", "0")
    replies[:] = [forbidden("exceeded quota: steps"), forbidden("exceeded quota: steps")]
    with pytest.raises(ApiException, match="403"):
        step.get_or_create_pod(None, {})
