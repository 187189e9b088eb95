"""What a backfill is asked for: the days, the steps, and a reason to make anew what is committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from devtools.commands import ToolError

# In the order of the pipeline; the same as in dags/market_history.py.
STEPS = ("decide", "fetch_prices", "fetch_headlines", "forecast", "train", "plot")
# What an ordinary day leaves.
DEFAULT_STEPS = ("decide", "fetch_prices", "fetch_headlines", "forecast")
Json = dict[str, Any]


@dataclass(frozen=True)
class BackfillRequest:
    """What is to be backfilled: a range of days, the steps, and a reason to make anew what is committed."""

    first: date
    last: date
    steps: tuple[str, ...]
    remake: str

    @property
    def conf(self) -> Json:
        """The configuration of the backfill's runs."""
        conf: Json = {"from": self.first.isoformat(), "to": self.last.isoformat(), "steps": list(self.steps)}
        return conf | ({"remake": self.remake} if self.remake else {})

    def __str__(self) -> str:
        made = f", made anew ({self.remake})" if self.remake else ""
        return f"{self.first} to {self.last}: {', '.join(self.steps)}{made}"


def read_day(environment: Mapping[str, str], name: str) -> date:
    """Return the date of the variable `name`. Raises ToolError if it is missing or invalid."""
    text = environment.get(name, "")
    try:
        return date.fromisoformat(text)
    except ValueError:
        problem = f"invalid {name} {text!r}" if text else f"{name} is not set"
        raise ToolError(f"{problem}: use YYYY-MM-DD, as in FROM=2025-01-01 TO=2025-12-31") from None


def read_request(environment: Mapping[str, str]) -> BackfillRequest:
    """Return what FROM, TO, STEPS and REMAKE ask for. Raises ToolError if one of them is missing or invalid."""
    first, last = read_day(environment, "FROM"), read_day(environment, "TO")
    if first > last:
        raise ToolError(f"FROM {first} is after TO {last}: exchange them")
    given = environment.get("STEPS", "").replace(",", " ").replace("-", "_").split()
    if unknown := [step for step in given if step not in STEPS]:
        raise ToolError(f"invalid STEPS: {', '.join(unknown)}; must be some of {', '.join(STEPS)}, separated by commas")
    steps = tuple(step for step in STEPS if step in given) or DEFAULT_STEPS
    return BackfillRequest(first, last, steps, " ".join(environment.get("REMAKE", "").split()))
