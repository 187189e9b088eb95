"""helm rejects unknown settings and invalid values, by the schema of helm/namespace-policies."""

from __future__ import annotations

from pathlib import Path

import pytest
from devtools import helm_charts
from devtools.commands import ROOT, ToolError, run
from e2e import FAST_SETTINGS

from .container_checks import parse_objects

PREFIX = "config.market_daily."


@pytest.fixture(scope="session")
def kind_options(helm: str, images: None) -> list[str]:
    return helm_charts.environment_options("kind")


def render_policies(*options: str) -> str:
    return run(["helm", "template", helm_charts.POLICIES, helm_charts.chart_of(helm_charts.POLICIES), *options], timeout=60)


def test_lint_passes_in_every_environment(helm: str, images: None, environment: str) -> None:
    helm_charts.lint(environment)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("config.market_daily.symbl=KS11", "additional properties 'symbl' not allowed"),
        ("config.market_daily.step_surce_tries=3", "'step_surce_tries' not allowed"),
        ("config.market_daily.trianer_memory=2Gi", "trianer_memory: unknown program trianer"),
        ("config.market_daily.step_runner=kubernetes", "step_runner': value must be one of 'process', 'worker', 'triggerer'"),
        ("config.market_daily.schedule_enabled=daily", "schedule_enabled': value must be one of"),
        ("config.market_daily.schedule_time=6pm", "schedule_time': '6pm' does not match"),
        ("config.market_daily.step_max_pods=many", "step_max_pods': 'many' does not match"),
        ("config.market_daily.step_max_pods=0", "step_max_pods': minimum: got 0, want 1"),
        ("config.market_daily.step_evicted_max_attempts=1.5", "step_evicted_max_attempts': '1.5' does not match"),
        ("config.market_daily.step_memory_factor=20", "step_memory_factor': maximum: got 20, want 16"),
        ("config.market_daily.trainer_memory=2048", "trainer_memory': got number, want string"),
        ("config.market_daily.trainer_node_selector=amd64", "trainer_node_selector': 'amd64' does not match"),
        ("config.market_daily.trainer_tolerations=gpu", "trainer_tolerations': 'gpu' does not match"),
        ("config.market_daily.trianer_tolerations=gpu:NoSchedule", "trianer_tolerations: unknown program trianer"),
        ("config.market_daily.collector_secrets=Feeds", "collector_secrets': 'Feeds' does not match"),
        ("config.market_daily.collector_env=http://proxy:3128", "collector_env': 'http://proxy:3128' does not match"),
        ("config.market_daily.colector_env=A=b", "colector_env: unknown program colector"),
        ("config.market_daily.trainer_gpus=one", "trainer_gpus': 'one' does not match"),
        ("config.market_daily.training_days=friday", "training_days': 'friday' does not match"),
        ("config.market_daily.training_days=32", "training_days': maximum: got 32, want 31"),
        ("config.market_daily.slack_channel=null", "slack_channel': got null, want string"),
        ("network.buckets.ports={443}", "additional properties 'buckets' not allowed"),
        ("network.bucket.port=443", "additional properties 'port' not allowed"),
        ("network.database.ports={postgres}", "network/database/ports/0': 'postgres' does not match"),
        (
            "network.ui.from[0].podselector.matchLabels.a=b",
            "network/ui/from/0': additional properties 'podselector' not allowed",
        ),
        ("monitor.resources.limit.memory=1Gi", "monitor/resources': additional properties 'limit' not allowed"),
    ],
)
def test_an_unknown_setting_or_invalid_value_is_rejected(kind_options: list[str], option: str, message: str) -> None:
    with pytest.raises(ToolError) as raised:
        render_policies(*kind_options, "--set", option)
    assert message in str(raised.value)


def test_a_number_that_helm_would_round_is_rejected(kind_options: list[str], tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("config: {market_daily: {step_run_timeout_seconds: 2592000}}")
    with pytest.raises(ToolError, match="step_run_timeout_seconds': maximum"):
        render_policies(*kind_options, "--values", str(values))
    values.write_text("config: {market_daily: {step_run_timeout_seconds: '2592000'}}")
    assert 'STEP_RUN_TIMEOUT_SECONDS, value: "2592000"' in render_policies(*kind_options, "--values", str(values))


def test_numbers_and_booleans_may_be_strings(kind_options: list[str]) -> None:
    settings = {
        "step_max_pods": "32",
        "schedule_enabled": "false",
        "history_years": "5",
        "trainer_cpu": "2",
        "training_days": "15",
        "late_minutes": "0",
    }
    rendered = []
    for option in ("--set", "--set-string"):
        options = [word for name, value in settings.items() for word in (option, f"{PREFIX}{name}={value}")]
        rendered.append(parse_objects(render_policies(*kind_options, *options)))
    assert rendered[0] == rendered[1]


def test_settings_of_the_scripts_and_cluster_tests_are_accepted(kind_options: list[str]) -> None:
    settings = ["trainer_node_selector=", "ui_url=http://localhost:8091", *FAST_SETTINGS]
    options = [word for setting in settings for word in ("--set-string", f"{PREFIX}{setting}")]
    files = sorted((ROOT / "tests" / "e2e").rglob("values-*.yaml"))
    assert files
    render_policies(*kind_options, *options, *(word for file in files for word in ("--values", str(file))))


def test_a_new_program_has_settings_of_its_name(kind_options: list[str]) -> None:
    options = helm_charts.image_options({"airflow": "team/airflow:1", "my-scorer": "team/my-scorer:1"}, {})
    assert "config.market_daily.my_scorer_image=team/my-scorer:1" in options
    settings = {"my_scorer_cpu": "1", "my_scorer_memory": "4Gi", "my_scorer_gpus": "1", "my_scorer_node_selector": "gpu=yes"}
    settings |= {
        "my_scorer_tolerations": "nvidia.com/gpu=present:NoSchedule",
        "my_scorer_secrets": "tracking",
        "my_scorer_env": "A=b",
    }
    options += [word for name, value in settings.items() for word in ("--set-string", f"{PREFIX}{name}={value}")]
    render_policies(*kind_options, *options)
