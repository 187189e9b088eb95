"""The model registry: which model is current. A rule promotes models, a person rolls them back.

The rule is `trainer.evaluation.find_significant_horizons`: a model with at least one significant horizon is promoted, unless
it was rolled back or is older than the current model.

Each promotion and rollback is an object of its own, created only if its number is free: concurrent trainers take turns, and
each decides on the entries before its own. `current.json` repeats the result for readers of a single object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import NamedTuple

from step_contract import paths
from step_contract.commit import Committed
from step_contract.errors import DataError, NothingToDoError
from step_contract.manifest import canonical
from step_contract.store import Store

PROMOTED, ROLLED_BACK = "promoted", "rolled back"


@dataclass(frozen=True)
class RegistryEntry:
    """A promotion or a rollback.

    Attributes:
        number: counts from 1.
        action: PROMOTED or ROLLED_BACK.
        model: the path of the manifest of the model that was promoted or rolled back.
        session: the model's session, YYYY-MM-DD.
        reason: the evaluation's summary, or the person's reason.
        time: UTC, ISO 8601.
    """

    number: int
    action: str
    model: str
    session: str
    reason: str
    time: str


class Outcome(StrEnum):
    """The outcome of an attempt to promote a model."""

    PROMOTED = "promoted"
    NOT_PROMOTED = "not promoted"
    ALREADY_CURRENT = "already current"


class Promotion(NamedTuple):
    """The outcome of an attempt to promote a model, and a sentence that explains it."""

    outcome: Outcome
    explanation: str


def current_entry(entries: Sequence[RegistryEntry]) -> RegistryEntry | None:
    """Return the promotion of the current model; None if no model was promoted or all were rolled back."""
    promotions: list[RegistryEntry] = []
    for entry in entries:
        if entry.action == PROMOTED:
            promotions.append(entry)
        elif promotions:
            promotions.pop()
    return promotions[-1] if promotions else None


def read_entries(store: Store, symbol: str) -> list[RegistryEntry]:
    """Return all entries for `symbol` in their order. Raises DataError if one is damaged or missing."""
    # An entry that is being written has another suffix.
    names = [name for name in store.list(paths.promotions(symbol)) if name.endswith(".json")]
    entries = []
    for number, (name, data) in enumerate(store.read_many(names).items(), start=1):
        try:
            entries.append(RegistryEntry(**json.loads(data or b"")))
        except (ValueError, TypeError):
            raise DataError(
                f"{store.uri(name)} is not a valid registry entry: restore it, or remove it and all later ones"
            ) from None
        if entries[-1].number != number:
            raise DataError(f"{store.uri(name)} has number {entries[-1].number}, expected {number}: restore the missing entry")
    return entries


def promote(store: Store, symbol: str, session: date, model: Committed) -> Promotion:
    """Make `model` the current one if its improvement over the baselines is significant.

    A model that was rolled back is not promoted again, nor is one that is older than the current model.
    """
    path = model.uri.removeprefix(f"{store.root}/")

    def next_entry(entries: Sequence[RegistryEntry]) -> RegistryEntry | Promotion:
        current = current_entry(entries)
        if not model.manifest.facts["beats_baselines"]:
            return _reject("improvement not significant", current)
        if any(entry.model == path and entry.action == PROMOTED for entry in entries):
            if current is not None and current.model == path:
                return Promotion(Outcome.ALREADY_CURRENT, "Already the current model.")
            return _reject("rolled back earlier", current)
        if current and current.session > session.isoformat():
            return _reject("older than the current model", current)
        reason = str(model.manifest.facts["evaluation"])
        return RegistryEntry(len(entries) + 1, PROMOTED, path, session.isoformat(), reason, _now())

    return _append_entry(store, symbol, next_entry) or Promotion(Outcome.PROMOTED, "Promoted to current model.")


def _reject(reason: str, current: RegistryEntry | None) -> Promotion:
    remains = f"the current model remains that of {current.session}" if current else "there is no current model"
    return Promotion(Outcome.NOT_PROMOTED, f"Not promoted ({reason}); {remains}.")


def roll_back(store: Store, symbol: str, reason: str) -> str:
    """Roll back the current model; return a sentence that names its successor.

    Raises NothingToDoError if there is no current model.
    """

    def next_entry(entries: Sequence[RegistryEntry]) -> RegistryEntry:
        current = current_entry(entries)
        if current is None:
            raise NothingToDoError(f"there is no current model of {symbol}: nothing to roll back")
        return RegistryEntry(len(entries) + 1, ROLLED_BACK, current.model, current.session, reason, _now())

    _append_entry(store, symbol, next_entry)
    return f"Rolled back; {describe_current(read_entries(store, symbol))}."


def describe_current(entries: Sequence[RegistryEntry]) -> str:
    """Return a phrase that names the current model."""
    current = current_entry(entries)
    return f"the current model is that of {current.session}" if current else "there is no current model"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _append_entry(
    store: Store, symbol: str, next_entry: Callable[[Sequence[RegistryEntry]], RegistryEntry | Promotion]
) -> Promotion | None:
    """Append the entry that `next_entry` returns for the entries so far, or return its Promotion if it returns that instead.

    `next_entry` is called again if another writer was first.
    """
    while True:
        entries = read_entries(store, symbol)
        decision = next_entry(entries)
        if isinstance(decision, Promotion):
            _update_current_model(store, symbol)
            return decision
        path = f"{paths.promotions(symbol)}/{decision.number:06}.json"
        if store.create(path, canonical(asdict(decision)) + b"\n"):
            _update_current_model(store, symbol)
            return None


def _update_current_model(store: Store, symbol: str) -> None:
    """Write current.json to match the entries; repeat until none was added meanwhile, so that the last writer has seen all."""
    entries = read_entries(store, symbol)
    while entries:
        current = current_entry(entries)
        content = canonical(asdict(current) if current else {"number": entries[-1].number, "model": None}) + b"\n"
        if store.read(paths.current_model(symbol)) != content:
            store.replace(paths.current_model(symbol), content)
        if (latest := read_entries(store, symbol)) == entries:
            return
        entries = latest
