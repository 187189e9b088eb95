from __future__ import annotations

from typing import Any

import pytest
from devtools import helm_revisions
from devtools.commands import ToolError


def revision(number: int, status: str, minute: int, description: str = "commit 1") -> dict[str, Any]:
    return {"revision": number, "status": status, "updated": f"2026-01-15T10:{minute:02}:00Z", "description": description}


POLICIES = [revision(1, "superseded", 0), revision(2, "deployed", 10)]


def test_a_rollback_chooses_the_last_successful_revisions_of_both_releases() -> None:
    airflow = [revision(1, "superseded", 1), revision(2, "failed", 5), revision(3, "deployed", 11)]
    assert helm_revisions.choose_rollback({"namespace-policies": POLICIES, "airflow": airflow}) == {
        "airflow": 1,
        "namespace-policies": 1,
    }


def test_a_second_rollback_chooses_other_content() -> None:
    airflow = [revision(1, "superseded", 1), revision(2, "superseded", 5), revision(3, "deployed", 11, "Rollback to 1")]
    assert helm_revisions.choose_rollback({"airflow": airflow}) == {"airflow": 2}
    with pytest.raises(ToolError, match="no earlier revision that succeeded"):
        helm_revisions.choose_rollback({"airflow": [airflow[0], revision(2, "failed", 5), airflow[2]]})


def test_a_failed_revision_cannot_be_chosen() -> None:
    airflow = [revision(1, "superseded", 1), revision(2, "failed", 5), revision(3, "deployed", 11)]
    assert helm_revisions.choose_rollback({"airflow": airflow}, 1) == {"airflow": 1}
    with pytest.raises(ToolError, match="no revision 2 that succeeded"):
        helm_revisions.choose_rollback({"airflow": airflow}, 2)


def test_a_pending_upgrade_is_not_the_deployed_revision() -> None:
    airflow = [revision(1, "superseded", 1), revision(2, "deployed", 5), revision(3, "pending-upgrade", 11)]
    deployed = helm_revisions.find_deployed(airflow)
    assert deployed and deployed["revision"] == 2
