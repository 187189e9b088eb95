"""The step `decide`: was the exchange open on the session's day?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from step_contract import paths
from step_contract.commit import Committed, Content, commit, find
from step_contract.manifest import canonical
from step_contract.store import Store

from collector.exchange_calendar import MarketStatus, describe_contradiction

STEP = "decide"
VERSION = 1


@dataclass(frozen=True)
class Decision:
    """`state` is open, closed or suspect; `reason` says why in words."""

    state: str
    reason: str


def make_decision(verdict: MarketStatus, has_bar: bool | None) -> Decision:
    """The decision from what the calendar says and whether the source has a bar for the day.

    `has_bar` is None where that is not known yet, as on the day itself. A contradiction is `suspect`. Where the calendar does
    not know, the source does.
    """
    if verdict.is_open is None:
        return Decision(
            "open" if has_bar else "closed", f"{verdict.reason}: the source has {'a' if has_bar else 'no'} bar for it"
        )
    if wrong := describe_contradiction(verdict, has_bar):
        return Decision("suspect", wrong)
    return Decision("open" if verdict.is_open else "closed", verdict.reason)


def commit_decision(store: Store, symbol: str, session: date, made: Decision) -> Committed:
    """Commits `made` as the decision for `session`, or returns the same decision that was committed before."""
    directory = paths.make_decision(symbol, session, made.state)
    inputs = {"symbol": symbol, "session": session.isoformat(), "state": made.state}
    if before := find(store, directory, inputs):
        return before
    facts = {"state": made.state, "reason": made.reason, "session": session.isoformat()}
    content = Content({"decision.json": canonical(facts) + b"\n"}, rows=0, schema_version=VERSION, facts=facts)
    return commit(store, directory, step=STEP, session=session, inputs=inputs, content=content)
