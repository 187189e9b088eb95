"""Which model is the current one: moved to a better one by rule, and back by hand.

Each move is an object of its own, created only if its number is free: of two trainers at once one is first, and the other sees
it. `current.json` repeats where that led, for whoever reads one object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime

from step_contract import paths
from step_contract.commit import Committed
from step_contract.errors import DataError, NothingToDoError
from step_contract.manifest import canonical
from step_contract.store import Store

PROMOTED, ROLLED_BACK = "promoted", "rolled back"


@dataclass(frozen=True)
class RegistryEntry:
    """One move: its number from 1, what was done, the model's manifest and session, why, and when (UTC).

    A roll-back names the model that it took away.
    """

    number: int
    done: str
    model: str
    session: str
    why: str
    at: str


def current(moves: Sequence[RegistryEntry]) -> RegistryEntry | None:
    """The promotion that is in force after `moves`; None where there is none or the last one was taken back."""
    standing: list[RegistryEntry] = []
    for move in moves:
        if move.done == PROMOTED:
            standing.append(move)
        elif standing:
            standing.pop()
    return standing[-1] if standing else None


def read_entries(store: Store, symbol: str) -> list[RegistryEntry]:
    """All moves for `symbol` in their order; raises DataError where one is damaged or missing."""
    # A writer's unfinished file has another ending.
    names = [name for name in store.list(paths.promotions(symbol)) if name.endswith(".json")]
    moves = []
    for number, (name, data) in enumerate(store.read_many(names).items(), start=1):
        try:
            moves.append(RegistryEntry(**json.loads(data or b"")))
        except (ValueError, TypeError):
            raise DataError(f"{store.uri(name)} is no promotion: restore it, or remove it and all after it") from None
        if moves[-1].number != number:
            raise DataError(f"{store.uri(name)} has number {moves[-1].number}, and {number} is missing: restore it")
    return moves


def promote(store: Store, symbol: str, session: date, model: Committed) -> str:
    """Makes `model` the current one if it beats the naive forecast beyond noise; returns in a sentence what became of it.

    A model that was promoted once is not promoted again, so a roll-back holds; nor is one of an earlier session.
    """
    name = model.uri.removeprefix(f"{store.root}/")

    def wanted(moves: Sequence[RegistryEntry]) -> RegistryEntry | str:
        now = current(moves)
        stays = f"the current model stays that of {now.session}" if now else "there is still no current model"
        if not model.manifest.facts["beats_baselines"]:
            return f"not promoted, as it does not beat repeating the last close and the drift beyond noise: {stays}"
        if any(move.model == name and move.done == PROMOTED for move in moves):
            is_current = now is not None and now.model == name
            return "the current one" if is_current else f"not promoted again, as it was rolled back: {stays}"
        if now and now.session > session.isoformat():
            return f"not promoted, as it is older: {stays}"
        return RegistryEntry(len(moves) + 1, PROMOTED, name, session.isoformat(), str(model.manifest.facts["in_words"]), _now())

    return _append_entry(store, symbol, wanted) or "promoted: it is the current one"


def roll_back(store: Store, symbol: str, why: str) -> str:
    """Takes the last promotion back; returns in a sentence what is current now. Raises NothingToDoError where nothing is."""

    def wanted(moves: Sequence[RegistryEntry]) -> RegistryEntry | str:
        now = current(moves)
        if now is None:
            raise NothingToDoError(f"no model of {symbol} is current: there is nothing to roll back")
        return RegistryEntry(len(moves) + 1, ROLLED_BACK, now.model, now.session, why, _now())

    _append_entry(store, symbol, wanted)
    now = current(read_entries(store, symbol))
    return f"rolled back: the current model is that of {now.session}" if now else "rolled back: no model is current"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _append_entry(store: Store, symbol: str, wanted: Callable[[Sequence[RegistryEntry]], RegistryEntry | str]) -> str:
    """Makes the move that is `wanted` after those there are, asked again when another came first; or says why not."""
    while True:
        moves = read_entries(store, symbol)
        move = wanted(moves)
        if isinstance(move, str):
            _update_current_model(store, symbol)
            return move
        if store.create(f"{paths.promotions(symbol)}/{move.number:06}.json", canonical(asdict(move)) + b"\n"):
            _update_current_model(store, symbol)
            return ""


def _update_current_model(store: Store, symbol: str) -> None:
    """Has current.json say what the moves say; again when another moved meanwhile, so the last to write has seen all."""
    moves = read_entries(store, symbol)
    while moves:
        now = current(moves)
        said = canonical(asdict(now) if now else {"number": moves[-1].number, "model": None}) + b"\n"
        if store.read(paths.current_model(symbol)) != said:
            store.replace(paths.current_model(symbol), said)
        if (later := read_entries(store, symbol)) == moves:
            return
        moves = later
