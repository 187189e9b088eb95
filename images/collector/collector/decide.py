"""The step `decide`: whether the exchange was open on the session's day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from step_contract import paths
from step_contract.commit import Committed, Content
from step_contract.facts import DecisionFacts
from step_contract.lineage.sources import Source
from step_contract.manifest import canonical
from step_contract.revisions import Artifact, Logic
from step_contract.store import Store

from collector.exchange_calendar import MarketStatus, describe_contradiction

LOGIC = Logic("collector", "decide", code_version=1, schema_version=1)


@dataclass(frozen=True)
class Decision:
    """Whether the exchange was open.

    Attributes:
        state: open, closed or suspect.
        reason: a phrase for messages.
    """

    state: str
    reason: str


def make_decision(status: MarketStatus, has_bar: bool | None) -> Decision:
    """Decide from the calendar's status and whether the source has a bar for the day.

    A contradiction is `suspect`. If the calendar does not know the day, the source decides.

    Args:
        status: the status of the day by calendar and overrides.
        has_bar: None if it is not known yet, as on the day itself.
    """
    if status.is_open is None:
        return Decision(
            "open" if has_bar else "closed", f"{status.reason}: the source has {'a' if has_bar else 'no'} bar for it"
        )
    if contradiction := describe_contradiction(status, has_bar):
        return Decision("suspect", contradiction)
    return Decision("open" if status.is_open else "closed", status.reason)


def commit_decision(
    store: Store, symbol: str, session: date, decision: Decision, remake: str = "", sources: Sequence[Source] = ()
) -> Committed:
    """Commit `decision` for `session`, or return the artifact of the same decision that exists (`Artifact.find`).

    `sources` are the files that it was made from.
    """
    directory = paths.decision(symbol, session, decision.state)
    inputs = {"symbol": symbol, "session": session.isoformat(), "state": decision.state}
    artifact = Artifact(store, directory, LOGIC, session=session, inputs=inputs, remake=remake)
    if committed := artifact.find():
        return committed
    facts = DecisionFacts(decision.state, decision.reason, session.isoformat()).to_facts()
    files = {"decision.json": canonical(facts) + b"\n"}
    return artifact.commit(Content(files, 0, LOGIC.schema_version, facts, sources))
