from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow_steps.operator import StepOperator
from airflow_steps.trigger import StepTrigger
from step_contract.errors import ConfigurationError

SETTINGS = {
    "STEP_RUNNER": "triggerer",
    "TRAINER_IMAGE": "registry/trainer@sha256:0123",
    "TRAINER_NODE_SELECTOR": "kubernetes.io/arch=amd64",
    "TRAINER_MEMORY": "2Gi",
    "STEP_CREDENTIALS": "bucket",
    "STEP_SERVICE_ACCOUNT": "step",
    "STEP_PODS": "5",
    "AWS_ENDPOINT_URL": "http://bucket:7070",
    "AWS_SECRET_ACCESS_KEY": "do-not-show",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://airflow:do-not-show@postgres/airflow",
}


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


def step(**more: Any) -> StepOperator:
    return StepOperator(
        task_id="train", program="trainer", step="train", options={"session": "{{ ds }}"}, do_xcom_push=False, **more
    )


def trigger_of(made: StepOperator) -> tuple[str, dict[str, Any]]:
    """The class and the arguments of the trigger that a task starts from."""
    arguments = made.start_trigger_args
    assert arguments and arguments.trigger_kwargs is not None
    return arguments.trigger_cls, arguments.trigger_kwargs


def pod(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = trigger_of(step(**more))[1]["pod_template_dict"]
    return found


def test_a_step_is_a_kubernetes_pod_operator_that_starts_from_the_trigger_without_a_worker() -> None:
    made = step()
    assert isinstance(made, KubernetesPodOperator)
    assert made.start_from_trigger
    name, kwargs = trigger_of(made)
    assert StepTrigger(**kwargs).serialize() == (name, kwargs)
    assert kwargs["limit"] == 5


@pytest.mark.parametrize("runner", ["worker", "process"])
def test_another_runner_starts_in_a_worker(runner: str) -> None:
    assert not step(runner=runner).start_from_trigger


def test_the_pod_is_of_the_programs_image_with_the_steps_arguments_where_the_setting_says() -> None:
    spec = pod()["spec"]
    [container] = spec["containers"]
    assert container["image"] == "registry/trainer@sha256:0123"
    assert container["args"] == ["train", "--session", "{{ ds }}"]
    assert "command" not in container or not container["command"]
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    assert container["resources"]["limits"] == {"memory": "2Gi"}


def test_the_pod_has_no_right_it_does_not_need_and_no_secret_in_clear() -> None:
    made = pod()
    [container] = made["spec"]["containers"]
    assert made["spec"]["automountServiceAccountToken"] is False
    assert made["spec"]["serviceAccountName"] == "step"
    assert made["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    variables = {one["name"]: one for one in container["env"]}
    assert variables["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"] == {"name": "bucket", "key": "AWS_SECRET_ACCESS_KEY"}
    assert "do-not-show" not in str(made)
    assert len(made["spec"]["containers"]) == 1


def test_every_pod_has_a_deadline_and_the_tasks_own_limit_is_later() -> None:
    assert pod()["spec"]["activeDeadlineSeconds"] == 24 * 3600
    limited = step(execution_timeout=timedelta(minutes=10))
    assert trigger_of(limited)[1]["pod_template_dict"]["spec"]["activeDeadlineSeconds"] == 600
    assert limited.execution_timeout and limited.execution_timeout > timedelta(minutes=10)


def test_what_a_task_says_of_its_pod_goes_before_the_settings() -> None:
    made = pod(image="another:1", labels={"team": "data"}, node_selector={"disk": "ssd"}, service_account_name="other")
    assert made["spec"]["containers"][0]["image"] == "another:1"
    assert made["metadata"]["labels"]["team"] == "data"
    assert (made["spec"]["nodeSelector"], made["spec"]["serviceAccountName"]) == ({"disk": "ssd"}, "other")


def test_two_parses_of_a_file_make_the_same_pod() -> None:
    assert pod() == pod()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("TRAINER_IMAGE", "", "TRAINER_IMAGE is not set"),
        ("TRAINER_NODE_SELECTOR", "amd64", "TRAINER_NODE_SELECTOR is 'amd64'"),
        ("STEP_PODS", "many", "STEP_PODS is 'many'"),
    ],
)
def test_a_setting_that_is_none_is_one_sentence(variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=told):
        step()
