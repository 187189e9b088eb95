"""What to run to make anew what `verify` has found damaged or missing; `make repair` runs it.

Nothing is deleted or rewritten: a damaged artifact gets a revision beside it, which readers then use. Steps and training are
deterministic, so that the new revision has the bytes of the old one if its inputs are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from step_contract import paths
from step_contract.checks.findings import Finding, Status

REASON = "damaged"  # of the new revisions
# The step of each kind, in the order of what is made from what.
STEPS = {
    "decisions": ("collector", "decide"),
    "prices": ("collector", "fetch-prices"),
    "headlines": ("collector", "fetch-headlines"),
    "models": ("trainer", "train"),
    "plots": ("trainer", "plot"),
}
CANNOT = {
    "forecasts": "what was issued on a day cannot be made anew: restore it from a backup, or leave it, and it is not scored",
    "pinned-models": "it was made by hand with --as-of: run that command again with --remake",
}


@dataclass(frozen=True)
class Repair:
    """A command that makes an artifact anew: the program, and its arguments without --artifacts."""

    program: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What to run, in order, and the findings that no command repairs, each with the reason."""

    repairs: tuple[Repair, ...]
    remaining: tuple[tuple[Finding, str], ...]


def plan_repairs(findings: Iterable[Finding]) -> Plan:
    """Return what repairs the errors among the findings of `verify`; warnings need no repair."""
    repairs: dict[tuple[int, str, str], Repair] = {}
    remaining = []
    for finding in findings:
        if finding.status is not Status.ERROR:
            continue
        artifact = paths.parse_artifact_path(finding.where)
        if artifact is None or finding.check not in ("artifact", "hole") or artifact.kind not in STEPS:
            known = CANNOT.get(artifact.kind, "") if artifact else ""
            remaining.append((finding, known or finding.advice or "no command repairs it"))
            continue
        program, step = STEPS[artifact.kind]
        arguments = [step, "--session", artifact.session.isoformat()]
        arguments += ["--symbol", artifact.symbol] if artifact.symbol else []
        arguments += ["--remake", REASON] if finding.check == "artifact" else []
        order = list(STEPS).index(artifact.kind)
        repairs[order, artifact.session.isoformat(), artifact.symbol] = Repair(program, tuple(arguments))
    return Plan(tuple(repair for _, repair in sorted(repairs.items(), key=lambda item: item[0])), tuple(remaining))
