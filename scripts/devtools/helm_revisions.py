"""Which revisions of the releases belong together, and which to go back to. Pure functions on helm's histories."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from devtools.commands import ToolError

Revision = Mapping[str, Any]
WORKED = ("deployed", "superseded")


def deployed(history: Sequence[Revision]) -> Revision | None:
    """The revision that is in force: the last that is deployed; None where none is."""
    return next((one for one in reversed(history) if one["status"] == "deployed"), None)


def content(revision: Revision) -> int:
    """The number of the revision that this one repeats; its own where it is no roll-back."""
    found = re.fullmatch(r"Rollback to (\d+)", revision["description"])
    return int(found[1]) if found else int(revision["revision"])


def before(histories: Mapping[str, Sequence[Revision]], wanted: int | None = None) -> dict[str, int]:
    """The revision of each release to go back to: Airflow's `wanted`, or the last that worked and was another than the one in
    force; and what the other releases were then. Raises ToolError where there is none.
    """
    now = deployed(histories["airflow"])
    worked = [one for one in histories["airflow"] if one["status"] in WORKED]
    if wanted is not None:
        candidates = [one for one in worked if one["revision"] == wanted]
    else:
        candidates = [one for one in worked if now is None or content(one) != content(now)]
    if not candidates:
        raise ToolError(f"there is no {'such ' if wanted else 'earlier '}revision that worked: helm history airflow")
    chosen = candidates[-1]
    found = {"airflow": int(chosen["revision"])}
    for release, history in histories.items():
        then = [one for one in history if one["status"] in WORKED and one["updated"] <= chosen["updated"]]
        if release != "airflow" and then:
            found[release] = int(then[-1]["revision"])
    return found
