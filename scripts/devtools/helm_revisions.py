"""Choose the Helm revisions to roll back to, from the output of `helm history --output=json`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from devtools.commands import ToolError

Revision = Mapping[str, Any]
# The statuses of a revision whose installation or upgrade succeeded.
SUCCESSFUL = ("deployed", "superseded")


def find_deployed(history: Sequence[Revision]) -> Revision | None:
    """Return the last revision that is deployed; None if there is none."""
    return next((revision for revision in reversed(history) if revision["status"] == "deployed"), None)


def resolve_rollback(revision: Revision) -> int:
    """Return the number of the revision that this one is a rollback to; its own number if it is no rollback."""
    rollback = re.fullmatch(r"Rollback to (\d+)", revision["description"])
    return int(rollback[1]) if rollback else int(revision["revision"])


def choose_rollback(histories: Mapping[str, Sequence[Revision]], target: int | None = None) -> dict[str, int]:
    """Return the revision of each release to roll back to.

    Airflow's is `target`, or the last successful one whose content is not deployed now. The revision of any other release is
    the one that was deployed at that time.

    Args:
        histories: the revisions of each release, the oldest first.
        target: a revision of Airflow's release.

    Raises:
        ToolError: there is no such revision.
    """
    deployed = find_deployed(histories["airflow"])
    successful = [revision for revision in histories["airflow"] if revision["status"] in SUCCESSFUL]
    if target is not None:
        candidates = [revision for revision in successful if revision["revision"] == target]
    else:
        candidates = [
            revision for revision in successful if deployed is None or resolve_rollback(revision) != resolve_rollback(deployed)
        ]
    if not candidates:
        wanted = f"revision {target} that succeeded" if target else "earlier revision that succeeded"
        raise ToolError(f"no {wanted}: run helm history airflow for all revisions")
    chosen = candidates[-1]
    revisions = {"airflow": int(chosen["revision"])}
    for release, history in histories.items():
        earlier = [
            revision for revision in history if revision["status"] in SUCCESSFUL and revision["updated"] <= chosen["updated"]
        ]
        if release != "airflow" and earlier:
            revisions[release] = int(earlier[-1]["revision"])
    return revisions
