"""The model registry: which model is current. A rule promotes models, a person rolls them back.

The rule is `trainer.evaluation.find_significant_horizons`: a model with at least one significant horizon is promoted, unless
it was rolled back, or a model of a later session was trained, promoted or not: a backfill never replaces what was decided on
newer data. A later revision of the same model counts like a later session; it is a candidate by the same rule.

Each promotion and rollback is an object of its own, created only if its number is free: concurrent trainers take turns, and
each decides on the entries before its own. Models are committed outside this log, so a promotion looks for a later one before
and after its entry, and rolls itself back if it was late. `current.json` repeats the result for readers of a single object.
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
from step_contract.schemas import MARKET_TIME_ZONE, parse_iso_date
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
    rolled_back = _rolled_back(entries)
    promotions = [entry for entry in entries if entry.action == PROMOTED and entry.model not in rolled_back]
    return promotions[-1] if promotions else None


def entry_as_of(entries: Sequence[RegistryEntry], session: date) -> RegistryEntry | None:
    """Return the promotion of the model that was current when `session` closed; None if there was none.

    Only models of earlier sessions count: the training of a session ends after its close, whenever it is run. So a backfilled
    session never uses a model that was trained on later closes. Of several models of one session, such as revisions, those
    that were promoted by then replace the ones that were promoted later: a revision may know revised closes. A rollback counts
    from the day on which a person made it: what led to it was not known before. If the model was promoted after the session,
    in a backfill, its rollback always counts.
    """
    known = [entry for entry in entries if entry.session < session.isoformat()]
    promoted_on = {entry.model: _day(entry) for entry in known if entry.action == PROMOTED}
    promoted_by_then = {entry.session for entry in known if entry.action == PROMOTED and _day(entry) <= session}

    def counts(entry: RegistryEntry) -> bool:
        if _day(entry) <= session:
            return True
        if entry.action == PROMOTED:
            return entry.session not in promoted_by_then
        return promoted_on.get(entry.model, session) > session

    return current_entry([entry for entry in known if counts(entry)])


def _day(entry: RegistryEntry) -> date:
    """Return the day in the market's time zone on which the entry was made."""
    return datetime.fromisoformat(entry.time).astimezone(MARKET_TIME_ZONE).date()


def _rolled_back(entries: Sequence[RegistryEntry]) -> set[str]:
    return {entry.model for entry in entries if entry.action == ROLLED_BACK}


def read_entries(store: Store, symbol: str) -> list[RegistryEntry]:
    """Return all entries for `symbol` in their order. Raises DataError if one is damaged or missing."""
    # An entry that is being written has another suffix.
    names = [name for name in store.list(paths.promotions(symbol)) if name.endswith(".json")]
    entries = []
    for number, (name, data) in enumerate(store.read_many(names).items(), start=1):
        try:
            entries.append(_check_entry(RegistryEntry(**json.loads(data or b""))))
        except (ValueError, TypeError):
            raise DataError(
                f"{store.uri(name)} is not a valid registry entry: restore it, or remove it and all later ones"
            ) from None
        if entries[-1].number != number:
            raise DataError(f"{store.uri(name)} has number {entries[-1].number}, expected {number}: restore the missing entry")
    return entries


def _check_entry(entry: RegistryEntry) -> RegistryEntry:
    """Return the entry. Raises ValueError or TypeError if a value is not what the program writes."""
    parse_iso_date(entry.session)
    if entry.action not in (PROMOTED, ROLLED_BACK) or datetime.fromisoformat(entry.time).tzinfo is None:
        raise ValueError("its action is unknown, or its time has no zone")
    if not (isinstance(entry.model, str) and isinstance(entry.reason, str)):
        raise TypeError("its model or its reason is no text")
    return entry


def promote(store: Store, symbol: str, session: date, model: Committed) -> Promotion:
    """Make `model` the current one if its improvement over the baselines is significant and its session is the latest.

    A model is not promoted if a committed model of a later session exists, whatever its configuration, its evaluation or the
    state of its files, or if the model itself was rolled back. A later model that is committed while this one is promoted
    counts too: the promotion is rolled back at once.
    """
    path = model.uri.removeprefix(f"{store.root}/")

    def next_entry(entries: Sequence[RegistryEntry]) -> RegistryEntry | Promotion:
        current = current_entry(entries)
        if not model.manifest.facts["beats_baselines"]:
            predecessor = current and _directory(current.model) == _directory(path) and current.model != path
            advice = "; an earlier revision of it is current: run trainer rollback if it should not be" if predecessor else ""
            return _reject(f"improvement not significant{advice}", current)
        if current and current.model == path:
            return Promotion(Outcome.ALREADY_CURRENT, "Already the current model.")
        if path in _rolled_back(entries):
            return _reject("rolled back earlier", current)
        if current and current.session > session.isoformat():
            return _reject("older than the current model", current)
        if later := _find_later_model(store, symbol, path):
            return _reject(f"{later.description} was trained: {store.uri(later.path)}", current)
        if any(entry.model == path for entry in entries):
            return _reject("replaced by the current model", current)
        reason = str(model.manifest.facts["evaluation"])
        return RegistryEntry(len(entries) + 1, PROMOTED, path, session.isoformat(), reason, _now())

    if rejected := _append_entry(store, symbol, next_entry):
        return rejected
    if later := _find_later_model(store, symbol, path):
        return _withdraw(store, symbol, session, path, f"{later.description} was trained meanwhile: {store.uri(later.path)}")
    return Promotion(Outcome.PROMOTED, f"Promoted to current model{_describe_predecessor(store, symbol, path)}.")


class _LaterModel(NamedTuple):
    """What is later than a model, as a phrase, and the path of its manifest."""

    description: str
    path: str


def _find_later_model(store: Store, symbol: str, path: str) -> _LaterModel | None:
    """Return the model of the latest session, or the latest revision of the model at `path`, if it is later than that.

    One request lists 1,000 names.
    """
    names = store.list(paths.models_root(symbol))
    latest = paths.latest_model(names)
    if latest and paths.parse_session(latest) > paths.parse_session(path):
        return _LaterModel("a model of a later session", latest)
    revisions = paths.group_revisions(names).get(_directory(path), {})
    if revisions and max(revisions) > paths.parse_revision(path):
        return _LaterModel("a later revision of the model", revisions[max(revisions)])
    return None


def _directory(path: str) -> str:
    """Return the directory of a model by the path of a revision's manifest."""
    [directory] = paths.group_revisions([path])
    return directory


def _describe_predecessor(store: Store, symbol: str, path: str) -> str:
    """Return a phrase that states which earlier revision of the model at `path` it replaces, or that one was rolled back."""
    entries = [
        entry for entry in read_entries(store, symbol) if entry.model != path and _directory(entry.model) == _directory(path)
    ]
    if not entries:
        return ""
    last = entries[-1]
    number = paths.parse_revision(last.model)
    if last.action == ROLLED_BACK:
        return f"; its revision {number} was rolled back ({last.reason})"
    return f"; it replaces its revision {number}"


def reject_pinned(store: Store, symbol: str, as_of: datetime) -> Promotion:
    """Return the outcome for a model that was trained on past revisions: it reproduces a result and is no candidate."""
    return _reject(f"trained on the revisions of {as_of.isoformat()}", current_entry(read_entries(store, symbol)))


def _withdraw(store: Store, symbol: str, session: date, path: str, reason: str) -> Promotion:
    """Roll back the promotion of the model at `path`; models that were promoted after it remain."""

    def next_entry(entries: Sequence[RegistryEntry]) -> RegistryEntry | Promotion:
        if path in _rolled_back(entries):  # by a person, who was faster
            return _reject(reason, current_entry(entries))
        return RegistryEntry(len(entries) + 1, ROLLED_BACK, path, session.isoformat(), reason, _now())

    return _append_entry(store, symbol, next_entry) or _reject(reason, current_entry(read_entries(store, symbol)))


def _reject(reason: str, current: RegistryEntry | None) -> Promotion:
    remains = f"the current model remains {_name(current)}" if current else "there is no current model"
    return Promotion(Outcome.NOT_PROMOTED, f"Not promoted ({reason}); {remains}.")


def roll_back(store: Store, symbol: str, reason: str) -> str:
    """Roll back the model that is current now; return a sentence that names its successor.

    Raises NothingToDoError if there is no current model, or another writer has rolled it back or replaced it meanwhile: the
    person who asked for it has not seen that one.
    """
    if not (bad := current_entry(read_entries(store, symbol))):
        raise NothingToDoError(f"there is no current model of {symbol}: nothing to roll back")

    def next_entry(entries: Sequence[RegistryEntry]) -> RegistryEntry:
        if current_entry(entries) != bad:
            changed = f"{_name(bad)} was rolled back or replaced meanwhile; {describe_current(entries)}"
            raise NothingToDoError(f"{changed}: run the command again to roll back that one too")
        return RegistryEntry(len(entries) + 1, ROLLED_BACK, bad.model, bad.session, reason, _now())

    _append_entry(store, symbol, next_entry)
    return f"Rolled back; {describe_current(read_entries(store, symbol))}."


def describe_current(entries: Sequence[RegistryEntry]) -> str:
    """Return a phrase that names the current model."""
    current = current_entry(entries)
    return f"the current model is {_name(current)}" if current else "there is no current model"


def _name(entry: RegistryEntry) -> str:
    revision = paths.parse_revision(entry.model)
    return f"that of {entry.session}" + (f", revision {revision}" if revision > 1 else "")


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
        path, data = f"{paths.promotions(symbol)}/{decision.number:06}.json", canonical(asdict(decision)) + b"\n"
        # As in `commit.try_commit`, an entry that exists may be ours: a second rollback would be that of another model.
        if store.create(path, data) or store.read(path) == data:
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
