"""What is reported leads to its section of the runbook: from Slack and from Prometheus."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import yaml
from airflow_monitor.messages.runbook import RunbookSection, find_cause_section
from devtools.commands import ROOT
from slack_simulator.workspace import Message
from step_contract.errors import RETRY_RULES, ExitCode
from step_contract.facts import DecisionFacts

from ..markdown_page import list_anchors
from .fake_airflow_api import dag
from .monitor_harness import RUN_ID, SIX_PM, MonitorHarness, add_session_run, monitor

__all__ = ["monitor"]
RUNBOOK = ROOT / "docs" / "runbook.md"
URL = "https://docs.example/runbook.html"
CAUSES = [rule.meaning for end, rule in RETRY_RULES.items() if end not in (ExitCode.SUCCESS, ExitCode.NOTHING_TO_DO)]


def find_sections(message: Message) -> list[str]:
    """Return the anchors of the runbook that the message links to."""
    return re.findall(rf"<{re.escape(URL)}#([^|>]+)\|runbook>", str(message.blocks))


@pytest.mark.parametrize("section", [*RunbookSection, *map(find_cause_section, CAUSES)])
def test_the_runbook_has_each_section_that_a_message_links_to(section: str) -> None:
    assert section in list_anchors(RUNBOOK)


def test_each_cause_of_a_failed_step_has_a_section_of_its_own() -> None:
    assert len({find_cause_section(meaning) for meaning in CAUSES} - set(RunbookSection)) == len(CAUSES)
    assert find_cause_section("unknown reason") == RunbookSection.OVERVIEW


def test_each_alert_links_to_a_section_of_the_runbook() -> None:
    groups = yaml.safe_load((ROOT / "monitoring" / "alerts.yaml").read_text())["groups"]
    urls = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert [url for url in urls if url.partition("#")[0] != "docs/runbook.md"] == []
    assert {url.partition("#")[2] for url in urls} <= list_anchors(RUNBOOK)


def test_alerts_in_slack_link_to_their_section(monitor: MonitorHarness) -> None:
    monitor.runbook = f"{URL}#top"
    monitor.restart(SIX_PM)
    add_session_run(monitor.airflow, state="failed")
    monitor.airflow.add_task(RUN_ID, "fetch_prices", "failed", at=SIX_PM)
    monitor.record_failure("fetch_prices", meaning=RETRY_RULES[ExitCode.INVALID_DATA].meaning)
    monitor.airflow.health["triggerer"]["status"] = "unhealthy"
    monitor.airflow.dags = [dag("market_daily", is_paused=True, next_run_after=SIX_PM - timedelta(hours=2))]
    for minutes in (1, 4):
        monitor.poll(SIX_PM + timedelta(minutes=minutes))
    linked = {section for message in monitor.channel() for section in find_sections(message)}
    assert linked == {"invalid-data", RunbookSection.COMPONENT, RunbookSection.DAG}


def test_a_suspect_session_links_to_what_to_do(monitor: MonitorHarness) -> None:
    monitor.runbook = URL
    monitor.restart(SIX_PM)
    suspect = DecisionFacts("suspect", "the calendar says open, the source has no bar", "2026-01-15").to_facts()
    add_session_run(monitor.airflow, state="success")
    monitor.airflow.add_result(RUN_ID, "decide", suspect, "file:///x/decisions/manifest.json")
    monitor.poll(SIX_PM + timedelta(minutes=1))
    assert RunbookSection.SUSPECT in [section for message in monitor.channel() for section in find_sections(message)]


def test_without_a_url_no_message_mentions_the_runbook(monitor: MonitorHarness) -> None:
    add_session_run(monitor.airflow, state="failed")
    monitor.record_failure("decide")
    monitor.poll(SIX_PM + timedelta(minutes=1))
    assert monitor.channel() and "runbook" not in str([message.blocks for message in monitor.channel()])
