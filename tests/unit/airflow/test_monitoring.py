"""Alerts and dashboard query metrics that exist, and docs/monitoring.md lists every metric of the pipeline."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow_monitor import metrics as monitor_metrics
from airflow_steps import metrics
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
        assert alert["annotations"].keys() == {"summary", "description"} and all(alert["annotations"].values())
    assert len({alert["alert"] for alert in ALERTS}) == len(ALERTS) > 15


def test_alerts_cover_every_outcome_of_failure() -> None:
    matched = [
        cause for rule in RULES for causes in re.findall(r'outcome=~?"([^"]+)"', rule["expr"]) for cause in causes.split("|")
    ]
    succeeded = (ExitCode.SUCCESS, ExitCode.NOTHING_TO_DO)
    assert sorted(matched) == sorted(end.name.lower() for end in [*ExitCode, *Termination] if end not in succeeded)


def test_repeated_failures_alert_only_after_the_last_attempt() -> None:
    [alert] = [alert for alert in ALERTS if alert["alert"] == "StepFailingRepeatedly"]
    thresholds = re.findall(r'outcome=~?"([^"]+)"} >= (\d+)', alert["expr"])
    limits = {Termination[outcome.upper()]: int(number) for outcomes, number in thresholds for outcome in outcomes.split("|")}
    assert limits == {termination: RETRY_RULES[termination].max_attempts for termination in limits}
    assert len(limits) == 4


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
    page = (ROOT / "docs" / "monitoring.md").read_text()
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(market_daily\w*)` \| ([^|]*) \|", page, re.MULTILINE)}
    mappings = {mapping["name"]: mapping for mapping in MAPPINGS if mapping["name"].startswith("market_daily")}
    assert rows.keys() == mappings.keys()
    for name, labels in rows.items():
        assert set(re.findall(r"`(\w+)`", labels)) == set(mappings[name].get("labels", {}))
    assert [alert["alert"] for alert in ALERTS if f"`{alert['alert']}`" not in page] == []
