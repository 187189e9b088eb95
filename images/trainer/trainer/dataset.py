"""Reads the price partitions of a symbol, and makes of their closes what the network sees and what it is to say."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from arro3.io import read_parquet
from step_contract import paths
from step_contract.errors import DataError
from step_contract.manifest import File, Manifest, canonical, check_content, digest
from step_contract.schemas import PRICES_FILE, PRICES_VERSION
from step_contract.store import Store

Array = npt.NDArray[np.float64]

# Days between two sessions: the Korean exchange's longest closure since 1995 led from 29 September to 10 October 2017.
LONGEST_CLOSURE_DAYS = 14
# The source rounds a change to four decimals, and a close to two.
CHANGE_STEP, CLOSE_STEP = 0.0001, 0.01


@dataclass(frozen=True)
class PricePartitions:
    """The committed price partitions of a symbol in order of their sessions, and the digest of all that they hold."""

    symbol: str
    sessions: list[date]
    files: dict[str, File]
    digest: str


class _Bar(NamedTuple):
    """What is read of a session: its close, and by how much it changed as the source says it, if it does."""

    session: date
    close: float
    change: float | None


def committed(store: Store, symbol: str, until: date, since: date | None = None, last: int | None = None) -> PricePartitions:
    """The partitions of `symbol` up to `until`, that day included: those from `since` on, and of them the `last` ones.

    Of a session that was revised it is the latest revision.

    Raises DataError when there is none and when a manifest is damaged.
    """
    found = paths.latest_revisions(store.list(paths.prices_root(symbol)))
    sessions = [session for session in found if session <= until and (since is None or session >= since)]
    sessions = sessions[-last:] if last else sessions
    if not sessions:
        between = f"from {since} to {until}" if since else f"up to {until}"
        raise DataError(
            f"there is no session of {symbol} {between} below {store.uri(paths.prices_root(symbol))}: "
            f"collect them with collector fetch-prices --from YYYY-MM-DD --to {until}"
        )
    files = {}
    for path, manifest in _read_manifests(store, [found[session] for session in sessions]).items():
        file = manifest.file(PRICES_FILE)
        files[f"{path.rpartition('/')[0]}/{file.path}"] = file
    held = [[session.isoformat(), file.sha256] for session, file in zip(sessions, files.values(), strict=True)]
    return PricePartitions(symbol, sessions, files, digest(canonical(held)))


def read_closes(store: Store, partitions: PricePartitions) -> Array:
    """The close of each of the partitions' sessions, in index points.

    Raises DataError when a partition is damaged, when its close is no price, and when sessions are missing between two.
    """
    contents = store.read_many(partitions.files)
    bars = [
        _parse_bar(check_content(store.uri(path), file, contents[path]), session, store.uri(path))
        for session, (path, file) in zip(partitions.sessions, partitions.files.items(), strict=True)
    ]
    for before, after in pairwise(bars):
        if wrong := _gap(before, after):
            raise DataError(
                f"{store.uri(paths.prices_root(partitions.symbol))}: between {before.session} and {after.session} sessions are "
                f"missing, or one of the two was corrected: {wrong}; collect them with collector fetch-prices "
                f"--symbol {partitions.symbol} --from {before.session} --to {after.session}"
            )
    return np.array([bar.close for bar in bars])


def _gap(before: _Bar, after: _Bar) -> str:
    """What shows that `after` is not the session that follows `before`; or nothing."""
    days = (after.session - before.session).days
    if days > LONGEST_CLOSURE_DAYS:
        return f"the exchange was never closed for {days - 1} days"
    if after.change is None:
        return ""
    change = after.close / before.close - 1
    if abs(change - after.change) <= CHANGE_STEP / 2 + CLOSE_STEP / before.close:
        return ""
    return f"the source says that {after.session} changed by {after.change:+.2%}, the closes differ by {change:+.2%}"


def _read_manifests(store: Store, names: list[str]) -> dict[str, Manifest]:
    contents = store.read_many(names)
    manifests = {}
    for name in names:
        data = contents[name]
        if data is None:
            raise DataError(f"{store.uri(name)} was removed while the history was read: run the step again")
        manifests[name] = Manifest.from_json(data, store.uri(name))
        if manifests[name].schema_version != PRICES_VERSION:
            version = manifests[name].schema_version
            raise DataError(f"{store.uri(name)} has schema version {version}, this program reads {PRICES_VERSION}")
    return manifests


def _parse_bar(data: bytes, session: date, where: str) -> _Bar:
    table = read_parquet(io.BytesIO(data)).read_all()
    days = table.column("date").to_pylist()
    if days != [session]:
        held = f"{len(days)} rows, the first of {days[0]}," if days else "no row"
        raise DataError(f"{where} holds {held} and must hold {session} alone")
    close = table.column("close")[0].as_py()
    if close is None or not (np.isfinite(close) and close > 0):
        raise DataError(f"{where} has the close {close}, which is no price; look at the collector's source")
    change = table.column("change")[0].as_py() if "change" in table.column_names else None
    return _Bar(session, float(close), change)


def log_returns(closes: Array) -> Array:
    """The log return of each session after the first: ln(close / close before), without a unit."""
    return np.diff(np.log(closes))


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of log returns a session, taken from the training part alone."""

    mean: float
    deviation: float

    @classmethod
    def fit(cls, returns: Array) -> Scaler:
        """The scaler of `returns`."""
        return cls(float(returns.mean()), float(returns.std()))

    def units(self, horizon: int) -> Array:
        """What a target of each horizon 1 to `horizon` is divided by: log returns grow with the root of time."""
        return self.deviation * np.sqrt(np.arange(1, horizon + 1))


def origins(returns: Array, window: int) -> npt.NDArray[np.int64]:
    """The sessions that can be forecast from, as indexes of closes: those with `window` log returns up to them."""
    return np.arange(window, len(returns) + 1)


def windows(returns: Array, at: npt.NDArray[np.int64], window: int) -> Array:
    """For each origin the `window` log returns up to it; shape (origins, window)."""
    return np.lib.stride_tricks.sliding_window_view(returns, window)[at - window]


def targets(returns: Array, at: npt.NDArray[np.int64], horizon: int) -> Array:
    """For each origin the log return from it to 1, 2, … `horizon` sessions later; shape (origins, horizon)."""
    level = np.concatenate([[0.0], np.cumsum(returns)])
    ahead: Array = level[at[:, None] + np.arange(1, horizon + 1)] - level[at][:, None]
    return ahead
