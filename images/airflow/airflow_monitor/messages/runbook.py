"""The sections of docs/runbook.md that messages link to. A test compares them with its headings."""

from __future__ import annotations

import re
from enum import StrEnum

from step_contract.errors import RETRY_RULES

from airflow_monitor.messages.block_kit import optional_link
from airflow_monitor.messages.message import Links


class RunbookSection(StrEnum):
    """The anchor of a section that describes what a message reports; the causes of a failed step have one each."""

    OVERVIEW = "find-the-cause"
    LATE = "a-run-is-late"
    STALLED = "a-task-waits"
    RUN_FAILED = "a-run-failed-although-none-of-its-tasks-did"
    BACKFILL = "sessions-of-a-backfill-failed"
    SUSPECT = "decide-is-suspect"
    DRIFT = "the-forecasts-drift"
    MODEL_UNUSABLE = "the-current-model-cannot-be-used"
    API = "airflows-api-is-unavailable"
    COMPONENT = "a-component-of-airflow-is-unhealthy"
    OBJECT_STORE = "the-object-store-is-unavailable"
    IMPORT_ERROR = "a-dag-file-cannot-be-imported"
    DAG = "a-dag-is-paused-stale-or-missing"
    MISSING_RUN = "a-run-is-missing"
    LATE_TAG = "a-dag-has-an-invalid-tag"


def find_cause_section(meaning: str) -> str:
    """Return the anchor of the section about a kind of failure: the kind's name; the overview if it is none of a step's."""
    if meaning not in {rule.meaning for rule in RETRY_RULES.values()}:
        return RunbookSection.OVERVIEW
    return re.sub(r"[^a-z0-9]+", "-", meaning.lower()).strip("-")


def runbook_link(links: Links, section: str) -> str:
    """Return a link to a section of the runbook; empty if the runbook's URL is not set."""
    return optional_link(links.runbook_url(section), "runbook")
