"""The dataset: closes from the price partitions of a symbol, and the inputs and targets made from them."""

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
from step_contract.manifest import MAX_BYTES, File, Manifest, canonical, check_content, digest
from step_contract.schemas import CHANGE_STEP, CLOSE_STEP, PRICES_FILE, PRICES_VERSION
from step_contract.store import Store

Array = npt.NDArray[np.float64]
Indexes = npt.NDArray[np.int64]

# Days between two consecutive sessions. The most since 1995 was 11, from 29 September to 10 October 2017.
MAX_SESSION_GAP_DAYS = 14


@dataclass(frozen=True)
class PricePartitions:
    """The committed price partitions of a symbol, ordered by session.

    Attributes:
        files: the file of each session, by its path in the store.
        digest: sha256 of the sessions and their files' digests.
    """

    symbol: str
    sessions: list[date]
    files: dict[str, File]
    digest: str


class _Bar(NamedTuple):
    """A session's close in index points, and the change that the source reports; None if it reports none."""

    session: date
    close: float
    change: float | None


def list_partitions(
    store: Store, symbol: str, until: date, since: date | None = None, last: int | None = None
) -> PricePartitions:
    """Return the latest revisions of the price partitions from `since` to `until`, both inclusive, or the `last` of them.

    Raises DataError if there are none or a manifest is damaged.
    """
    revisions = paths.latest_revisions(store.list(paths.prices_root(symbol)))
    sessions = [session for session in revisions if session <= until and (since is None or session >= since)]
    sessions = sessions[-last:] if last else sessions
    if not sessions:
        period = f"from {since} to {until}" if since else f"up to {until}"
        raise DataError(
            f"no sessions of {symbol} {period} in {store.uri(paths.prices_root(symbol))}: "
            f"collect them with collector fetch-prices --from YYYY-MM-DD --to {until}"
        )
    files = {}
    for path, manifest in _read_manifests(store, [revisions[session] for session in sessions]).items():
        file = manifest.file(PRICES_FILE)
        files[f"{path.rpartition('/')[0]}/{file.path}"] = file
    content = [[session.isoformat(), file.sha256] for session, file in zip(sessions, files.values(), strict=True)]
    return PricePartitions(symbol, sessions, files, digest(canonical(content)))


def read_closes(store: Store, partitions: PricePartitions) -> Array:
    """Return the close of each session in index points, shape (sessions,).

    Raises DataError if a partition is damaged, a close is invalid, or sessions are missing between two partitions.
    """
    contents = store.read_many(partitions.files)
    bars = [
        _parse_bar(check_content(store.uri(path), file, contents[path]), session, store.uri(path))
        for session, (path, file) in zip(partitions.sessions, partitions.files.items(), strict=True)
    ]
    for previous, bar in pairwise(bars):
        if evidence := _find_gap(previous, bar):
            raise DataError(
                f"{store.uri(paths.prices_root(partitions.symbol))}: sessions between {previous.session} and {bar.session} are "
                f"missing, or one of the two was revised: {evidence}; collect them with collector fetch-prices "
                f"--symbol {partitions.symbol} --from {previous.session} --to {bar.session}"
            )
    return np.array([bar.close for bar in bars])


def _find_gap(previous: _Bar, bar: _Bar) -> str | None:
    """Return the evidence that sessions are missing between the two bars, or None."""
    days = (bar.session - previous.session).days
    if days > MAX_SESSION_GAP_DAYS:
        return f"the exchange has never closed for {days - 1} days"
    if bar.change is None:
        return None
    change = bar.close / previous.close - 1
    if abs(change - bar.change) <= CHANGE_STEP / 2 + CLOSE_STEP / previous.close:
        return None
    return f"the source reports a change of {bar.change:+.2%} for {bar.session}, the closes give {change:+.2%}"


def _read_manifests(store: Store, names: list[str]) -> dict[str, Manifest]:
    contents = store.read_many(names, MAX_BYTES)
    manifests = {}
    for name in names:
        data = contents[name]
        if data is None:
            raise DataError(f"{store.uri(name)} was removed while the history was read: run the step again")
        manifests[name] = Manifest.from_json(data, store.uri(name))
        if manifests[name].schema_version != PRICES_VERSION:
            version = manifests[name].schema_version
            raise DataError(f"{store.uri(name)} has schema version {version}, this program supports {PRICES_VERSION}")
    return manifests


def _parse_bar(data: bytes, session: date, where: str) -> _Bar:
    table = read_parquet(io.BytesIO(data)).read_all()
    dates = table.column("date").to_pylist()
    if dates != [session]:
        found = f"{len(dates)} starting at {dates[0]}" if dates else "none"
        raise DataError(f"{where}: expected one row, for {session}; found {found}")
    close = table.column("close")[0].as_py()
    if close is None or not (np.isfinite(close) and close > 0):
        raise DataError(f"{where}: invalid close {close}; check the collector's source")
    change = table.column("change")[0].as_py() if "change" in table.column_names else None
    return _Bar(session, float(close), change)


def log_returns(closes: Array) -> Array:
    """Return ln(close / previous close) of each session after the first, shape (sessions - 1,)."""
    return np.diff(np.log(closes))


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of a session's log return, computed from the training part only."""

    mean: float
    std: float

    @classmethod
    def fit(cls, returns: Array) -> Scaler:
        """Return the scaler of `returns`."""
        return cls(float(returns.mean()), float(returns.std()))

    def target_scale(self, horizon: int) -> Array:
        """Return the divisor of the targets, shape (horizon,): a random walk's standard deviation at each horizon from 1."""
        return self.std * np.sqrt(np.arange(1, horizon + 1))


def forecast_origins(returns: Array, window: int) -> Indexes:
    """Return the sessions that have `window` log returns up to and including their own, as indexes into the closes."""
    return np.arange(window, len(returns) + 1)


def input_windows(returns: Array, origins: Indexes, window: int) -> Array:
    """Return the last `window` log returns up to each origin, shape (origins, window)."""
    return np.lib.stride_tricks.sliding_window_view(returns, window)[origins - window]


def cumulative_returns(returns: Array, origins: Indexes, horizon: int) -> Array:
    """Return the log return from each origin to 1, 2, … `horizon` sessions later, shape (origins, horizon)."""
    levels = np.concatenate([[0.0], np.cumsum(returns)])
    ahead: Array = levels[origins[:, None] + np.arange(1, horizon + 1)] - levels[origins][:, None]
    return ahead
