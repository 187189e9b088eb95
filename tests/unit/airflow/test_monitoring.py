"""The files of monitoring/ ask for numbers that there are, and every number of ours comes out as it is documented."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow_steps import metrics
from commands import ROOT

MAPPINGS: list[dict[str, Any]] = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())["statsd"]["extraMappings"]
RETRY_RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((ROOT / "monitoring" / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "monitoring" / "dashboard.json").read_text())
LABELS = {
    "dag_id": "market_daily",
    "task_id": "train",
    "outcome": "success",
    "measure": "acquired",
    "triggerer": "airflow-triggerer-0",
}


def mapped(name: str) -> list[tuple[str, dict[str, str]]]:
    """The names and labels that the exporter makes of a name, by every mapping that fits it."""
    found = []
    for mapping in MAPPINGS:
        parts = [r"([^.]+)" if part == "*" else re.escape(part) for part in mapping["match"].split(".")]
        if match := re.fullmatch(r"\.".join(parts), f"airflow.{name}"):
            labels = {key: match[int(value[1:])] for key, value in mapping.get("labels", {}).items()}
            found.append((mapping["name"], labels))
    return found


def exported(name: str, kind: str) -> set[str]:
    """The series of a metric, as Prometheus has them."""
    return {name} | ({f"{name}_sum", f"{name}_count", f"{name}_bucket"} if kind in ("timer", "histogram") else set())


def of_ours() -> set[str]:
    found = [exported(one["name"], one.get("observer_type", "")) for one in MAPPINGS]
    return {name for names in found for name in names if name.startswith("market_daily")}


def of_airflow() -> set[str]:
    """The metrics that Airflow itself lists."""
    package = find_spec("airflow.sdk._shared.observability.metrics")
    assert package and package.origin
    listed = yaml.safe_load(Path(package.origin).with_name("metrics_template.yaml").read_text())["metrics"]
    found = [exported("airflow_" + re.sub(r"[.-]", "_", one["name"]), one["type"]) for one in listed]
    return {name for names in found for name in names}


def asked_for(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:airflow|market_daily)[\w:]*", re.sub(r'"[^"]*"', "", expression)))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        (metrics.POD_SLOTS, {"triggerer"}),
        (metrics.STEP_QUEUE, {"dag_id", "task_id"}),
        (metrics.STEP_START, {"dag_id", "task_id"}),
        (metrics.STEP_RUN, {"dag_id", "task_id"}),
        (metrics.STEP_ATTEMPTS, {"dag_id", "task_id", "outcome"}),
        (metrics.WATCHER_ROUND, set()),
        (metrics.DAG_LATE, {"dag_id"}),
        (metrics.SESSION_COLLECTED, set()),
        (metrics.TASKS, {"state"}),
    ],
)
def test_each_number_of_ours_comes_out_under_one_name_with_its_labels(name: str, labels: set[str]) -> None:
    values = LABELS | {"state": "queued"}
    [(exported_as, found)] = mapped(metrics.format_name(name, **values))
    assert exported_as in of_ours()
    assert found == {label: values[label] for label in labels}


def test_a_group_in_a_tasks_name_stays_in_its_label() -> None:
    [(_, labels)] = mapped(metrics.format_name(metrics.STEP_RUN, dag_id="a.b", task_id="collect.fetch_prices"))
    assert labels == {"dag_id": "a__b", "task_id": "collect__fetch_prices"}


def test_the_alerts_ask_for_numbers_that_there_are_and_say_what_to_do() -> None:
    recorded = {rule["record"] for rule in RETRY_RULES if "record" in rule}
    alerts = [rule for rule in RETRY_RULES if "alert" in rule]
    for rule in RETRY_RULES:
        assert asked_for(rule["expr"]) and asked_for(rule["expr"]) <= of_ours() | of_airflow() | recorded, rule
    for alert in alerts:
        assert alert.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert alert["annotations"].keys() == {"summary", "do"} and all(alert["annotations"].values())
    assert len({alert["alert"] for alert in alerts}) == len(alerts) > 15


def test_the_alerts_name_the_causes_that_there_are() -> None:
    from step_contract.errors import ExitCode, Termination

    named = [
        cause
        for rule in RETRY_RULES
        for causes in re.findall(r'outcome=~?"([^"]+)"', rule["expr"])
        for cause in causes.split("|")
    ]
    assert sorted(named) == sorted(
        end.name.lower() for end in [*ExitCode, *Termination] if end not in (ExitCode.SUCCESS, ExitCode.NOTHING_TO_DO)
    )


def test_no_panel_is_dead_and_none_is_tied_to_one_prometheus() -> None:
    targets = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    for target in targets:
        assert asked_for(target["expr"]) and asked_for(target["expr"]) <= of_ours() | of_airflow(), target["expr"]
        assert target["datasource"]["uid"] == "${datasource}"
    shown = set().union(*(asked_for(target["expr"]) for target in targets))
    assert {one["name"] for one in MAPPINGS} <= shown | {name.removesuffix("_sum") for name in shown}
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert asked_for(variables["namespace"]["definition"]) <= of_airflow()


def test_the_page_tells_every_number_of_ours_and_every_alert() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(market_daily\w*)` \| ([^|]*) \|", page, re.MULTILINE)}
    mappings = {one["name"]: one for one in MAPPINGS if one["name"].startswith("market_daily")}
    assert rows.keys() == mappings.keys()
    for name, labels in rows.items():
        assert set(re.findall(r"`(\w+)`", labels)) == set(mappings[name].get("labels", {}))
    assert [rule["alert"] for rule in RETRY_RULES if "alert" in rule and f"`{rule['alert']}`" not in page] == []
