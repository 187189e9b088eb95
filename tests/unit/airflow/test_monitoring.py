"""Alerts and dashboard query metrics that exist, and docs/monitoring.md lists every metric of the pipeline."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow_monitor import metrics as monitor_metrics
from airflow_steps import metrics
from airflow_steps.retry_policy import StepRetryPolicy, read_retry_rules
from airflow_steps.settings import Settings
from devtools.commands import ROOT
from step_contract.errors import RETRY_RULES, ExitCode, Termination

MAPPINGS: list[dict[str, Any]] = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())["statsd"]["extraMappings"]
GROUPS: list[dict[str, Any]] = yaml.safe_load((ROOT / "monitoring" / "alerts.yaml").read_text())["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "monitoring" / "dashboard.json").read_text())
LABELS = {
    "dag_id": "market_daily",
    "task_id": "train",
    "outcome": "success",
    "measure": "acquired",
    "triggerer": "airflow-triggerer-0",
    "state": "queued",
}


def read_page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def map_name(name: str) -> list[tuple[str, dict[str, str]]]:
    """Return the names and labels that the StatsD exporter gives to a name, one for each mapping that matches."""
    mapped = []
    for mapping in MAPPINGS:
        parts = [r"([^.]+)" if part == "*" else re.escape(part) for part in mapping["match"].split(".")]
        if match := re.fullmatch(r"\.".join(parts), f"airflow.{name}"):
            labels = {key: match[int(value[1:])] for key, value in mapping.get("labels", {}).items()}
            mapped.append((mapping["name"], labels))
    return mapped


def series_names(name: str, kind: str) -> set[str]:
    """Return the names of a metric's series in Prometheus."""
    return {name} | ({f"{name}_sum", f"{name}_count", f"{name}_bucket"} if kind in ("timer", "histogram") else set())


def pipeline_series() -> set[str]:
    series = [series_names(mapping["name"], mapping.get("observer_type", "")) for mapping in MAPPINGS]
    return {name for names in series for name in names if name.startswith("market_daily")}


def airflow_series() -> set[str]:
    """Return the series of the metrics that Airflow documents."""
    package = find_spec("airflow.sdk._shared.observability.metrics")
    assert package and package.origin
    documented = yaml.safe_load(Path(package.origin).with_name("metrics_template.yaml").read_text())["metrics"]
    series = [series_names("airflow_" + re.sub(r"[.-]", "_", metric["name"]), metric["type"]) for metric in documented]
    return {name for names in series for name in names}


def queried_series(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:airflow|market_daily)[\w:]*", re.sub(r'"[^"]*"', "", expression)))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (metrics.POD_SLOTS, {"triggerer"}),
        (metrics.STEP_QUEUE, {"dag_id", "task_id"}),
        (metrics.STEP_START, {"dag_id", "task_id"}),
        (metrics.STEP_RUN, {"dag_id", "task_id"}),
        (metrics.STEP_ATTEMPTS, {"dag_id", "task_id", "outcome"}),
        (monitor_metrics.LAST_POLL, set()),
        (monitor_metrics.DAG_LATE, {"dag_id"}),
        (monitor_metrics.LAST_SESSION, set()),
        (monitor_metrics.TASK_INSTANCES, {"state"}),
    ],
)
def test_each_metric_is_mapped_once_with_its_labels(name: str, labels: set[str]) -> None:
    [(mapped_name, mapped_labels)] = map_name(metrics.format_name(name, **LABELS))
    assert mapped_name in pipeline_series()
    assert mapped_labels == {label: LABELS[label] for label in labels}


def test_a_task_group_stays_part_of_the_task_id_label() -> None:
    [(_, labels)] = map_name(metrics.format_name(metrics.STEP_RUN, dag_id="a.b", task_id="collect.fetch_prices"))
    assert labels == {"dag_id": "a__b", "task_id": "collect__fetch_prices"}


def test_alerts_query_existing_metrics_and_describe_what_to_do() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for rule in RULES:
        queried = queried_series(rule["expr"])
        assert queried and queried <= pipeline_series() | airflow_series() | recorded, rule
    for alert in ALERTS:
        assert alert.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"} and all(alert["annotations"].values())
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS) > 15


def test_alerts_cover_every_outcome_of_failure() -> None:
    matched = [
        cause for rule in RULES for causes in re.findall(r'outcome=~?"([^"]+)"', rule["expr"]) for cause in causes.split("|")
    ]
    succeeded = (ExitCode.SUCCESS, ExitCode.NOTHING_TO_DO)
    assert sorted(matched) == sorted(end.name.lower() for end in [*ExitCode, *Termination] if end not in succeeded)


def read_thresholds(name: str) -> dict[str, int]:
    """Return how many attempts of each outcome fire the alert `name`."""
    [alert] = [alert for alert in ALERTS if alert["alert"] == name]
    thresholds = re.findall(r'outcome=~?"([^"]+)"} >= (\d+)', alert["expr"])
    return {outcome: int(number) for outcomes, number in thresholds for outcome in outcomes.split("|")}


def read_settings(environment: str) -> dict[str, str]:
    """Return the settings of an environment, as variables."""
    files = [ROOT / "helm" / "values.yaml", ROOT / "helm" / f"values-{environment}.yaml"]
    sections = [yaml.safe_load(file.read_text()).get("config", {}).get("market_daily", {}) for file in files]
    return {name.upper(): str(value) for section in sections for name, value in section.items()}


@pytest.mark.parametrize("environment", sorted(file.stem[7:] for file in (ROOT / "helm").glob("values-*.yaml")))
def test_repeated_failures_alert_only_after_the_last_attempt(environment: str) -> None:
    settings, limits = read_settings(environment), read_thresholds("StepFailingRepeatedly")
    policy = StepRetryPolicy(Settings.read(settings).retries, timedelta(), read_retry_rules(settings))
    attempts = {outcome: policy.max_attempts(Termination[outcome.upper()]) for outcome in limits}
    assert limits == attempts, f"change the numbers in monitoring/alerts.yaml to the attempts of values-{environment}.yaml"
    assert len(limits) == 4


def test_an_unavailable_source_alerts_after_the_hours_that_the_summary_names() -> None:
    [alert] = [alert for alert in ALERTS if alert["alert"] == "SourceUnavailable"]
    match = re.fullmatch(r'market_daily:step_attempts:increase(\d+)h{outcome="source_unavailable"} >= (\d+)', alert["expr"])
    stated = re.search(r"for (\d+) hours", alert["annotations"]["summary"])
    assert match and stated
    window_hours, attempts, rule = int(match[1]), int(match[2]), RETRY_RULES[ExitCode.SOURCE_UNAVAILABLE]
    assert rule.delay_seconds and attempts < rule.max_attempts
    # The attempts themselves take a moment each: the window has room for one more.
    assert attempts * rule.delay_seconds <= window_hours * 3600
    assert (attempts - 1) * rule.delay_seconds == int(stated[1]) * 3600


def test_the_decision_on_retries_has_the_numbers_of_the_retry_rules() -> None:
    """No other page repeats them."""
    lines = read_page("decisions/0006-exit-codes-and-retries.md").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines if line.startswith("| ")]
    beginnings = {
        "65, 78": (ExitCode.INVALID_DATA, ExitCode.INVALID_CONFIGURATION),
        "69": (ExitCode.SOURCE_UNAVAILABLE,),
        "75": (ExitCode.TRANSIENT,),
        "OOM-killed": (Termination.OOM_KILLED,),
        "crashed": (Termination.CRASHED,),
        "timed out": (Termination.TIMED_OUT,),
        "evicted": (Termination.EVICTED,),
        "not started": (Termination.START_FAILED,),
    }
    for beginning, terminations in beginnings.items():
        [(attempts, delay)] = [row[1:] for row in rows if row[0].startswith(beginning)]
        number, unit = delay.split() if delay else ("", "")
        seconds = int(number) * {"s": 1, "min": 60}[unit] if number else None
        for termination in terminations:
            rule = RETRY_RULES[termination]
            assert (int(re.split(r"\D", attempts)[0]), seconds) == (rule.max_attempts, rule.delay_seconds), beginning
    pages = ("../README.md", "runbook.md", "../monitoring/alerts.yaml", "../dags/market_daily.py")
    text = "".join(read_page(name) for name in pages)
    assert re.findall(r"every \d+ minutes|after \d+ minutes", text) == []


@pytest.mark.parametrize("environment", sorted(file.stem[7:] for file in (ROOT / "helm").glob("values-*.yaml")))
def test_an_unavailable_source_alerts_before_the_attempts_are_used_up(environment: str) -> None:
    rule = read_retry_rules(read_settings(environment))[ExitCode.SOURCE_UNAVAILABLE]
    threshold = read_thresholds("SourceUnavailable")["source_unavailable"]
    advice = f"with values-{environment}.yaml the alert never fires: change its numbers in monitoring/alerts.yaml"
    assert rule.max_attempts >= threshold and (threshold - 1) * (rule.delay_seconds or 0) <= 3 * 3600, advice


def test_panels_query_existing_metrics_of_the_chosen_prometheus() -> None:
    targets = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    for target in targets:
        queried = queried_series(target["expr"])
        assert queried and queried <= pipeline_series() | airflow_series(), target["expr"]
        assert target["datasource"]["uid"] == "${datasource}"
    shown = set().union(*(queried_series(target["expr"]) for target in targets))
    assert {mapping["name"] for mapping in MAPPINGS} <= shown | {name.removesuffix("_sum") for name in shown}
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert queried_series(variables["namespace"]["definition"]) <= airflow_series()


def test_the_page_lists_every_metric_of_the_pipeline_and_every_alert() -> None:
    page = read_page("monitoring.md")
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(market_daily\w*)` \| ([^|]*) \|", page, re.MULTILINE)}
    mappings = {mapping["name"]: mapping for mapping in MAPPINGS if mapping["name"].startswith("market_daily")}
    assert rows.keys() == mappings.keys()
    for name, labels in rows.items():
        assert set(re.findall(r"`(\w+)`", labels)) == set(mappings[name].get("labels", {}))
    assert [alert["alert"] for alert in ALERTS if f"`{alert['alert']}`" not in page] == []
