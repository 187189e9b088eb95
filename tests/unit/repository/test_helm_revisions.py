from __future__ import annotations

from typing import Any

import pytest
from devtools import helm_revisions
from devtools.commands import ToolError


def revision(number: int, status: str, minute: int, description: str = "commit 1") -> dict[str, Any]:
    return {"revision": number, "status": status, "updated": f"2026-01-15T10:{minute:02}:00Z", "description": description}


POLICIES = [revision(1, "superseded", 0), revision(2, "deployed", 10)]


def test_a_roll_back_goes_to_the_last_that_worked_and_to_what_it_stood_on() -> None:
    airflow = [revision(1, "superseded", 1), revision(2, "failed", 5), revision(3, "deployed", 11)]
    assert helm_revisions.before({"namespace-policies": POLICIES, "airflow": airflow}) == {
        "airflow": 1,
        "namespace-policies": 1,
    }


def test_a_roll_back_after_a_roll_back_does_not_go_to_the_same_again() -> None:
    airflow = [revision(1, "superseded", 1), revision(2, "superseded", 5), revision(3, "deployed", 11, "Rollback to 1")]
    assert helm_revisions.before({"airflow": airflow}) == {"airflow": 2}
    with pytest.raises(ToolError, match="no earlier revision that worked"):
        helm_revisions.before({"airflow": [airflow[0], revision(2, "failed", 5), airflow[2]]})


def test_a_revision_that_failed_cannot_be_asked_for() -> None:
    airflow = [revision(1, "superseded", 1), revision(2, "failed", 5), revision(3, "deployed", 11)]
    assert helm_revisions.before({"airflow": airflow}, 1) == {"airflow": 1}
    with pytest.raises(ToolError, match="no such revision"):
        helm_revisions.before({"airflow": airflow}, 2)


def test_a_release_that_a_deployment_was_cut_off_in_goes_back_to_what_was_in_force() -> None:
    airflow = [revision(1, "superseded", 1), revision(2, "deployed", 5), revision(3, "pending-upgrade", 11)]
    now = helm_revisions.deployed(airflow)
    assert now and now["revision"] == 2
