"""What the embedded Airflow runs: one session, or a range of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from devtools.backfill_request import read_request
from devtools.commands import ToolError


@dataclass(frozen=True)
class RunRequest:
    """A run of a DAG.

    Attributes:
        dag_id: the DAG.
        name: what the run is about, such as a session.
        day: the day of its logical date, in the DAG's time zone.
        conf: the run's configuration, in addition to `remake`.
    """

    dag_id: str
    name: str
    day: date
    conf: dict[str, Any] = field(default_factory=dict)


def read_run_request(environment: Mapping[str, str]) -> tuple[date, RunRequest]:
    """Return the first day, and the run that SESSION, or FROM, TO and STEPS, ask for.

    Raises:
        ToolError: FROM, TO or STEPS is invalid, or SESSION is set with them.
        ValueError: SESSION is invalid.
    """
    if not (environment.get("FROM") or environment.get("TO")):
        session = date.fromisoformat(environment["SESSION"])
        return session, RunRequest("market_daily", f"session {session}", session)
    if environment.get("SESSION"):
        raise ToolError("SESSION is set, and FROM or TO too: use either a session or a range")
    wanted = read_request(environment)
    return wanted.first, RunRequest("market_history", f"{wanted.first} to {wanted.last}", wanted.last, wanted.conf)
