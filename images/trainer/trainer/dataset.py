"""The dataset: closes from the price partitions of a symbol, and the inputs and targets made from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from step_contract import paths
from step_contract.errors import DataError
from step_contract.manifest import check_content
from step_contract.schemas import CHANGE_STEP, CLOSE_STEP, PRICES
from step_contract.store import Store
from step_contract.tables import ReadRows, read_rows

from trainer.partitions import PricePartitions

Array = npt.NDArray[np.float64]
Indexes = npt.NDArray[np.int64]

# Days between two consecutive sessions. The most since 1995 was 11, from 29 September to 10 October 2017.
MAX_SESSION_GAP_DAYS = 14


@dataclass(frozen=True)
class Feature:
    """An input of the network beside the log return: one value of each session.

    Attributes:
        name: its name in the weights' metadata. Give it another name when its values change: a model is used while its names
            are those of this program.
        columns: the columns of the schema PRICES that it is made from.
        values: returns it from a DataFrame of these columns with the sessions as index, shape (sessions,). It may use a
            session and earlier ones only. A missing value, as in sessions of before a column was collected, or one that is not
            finite, such as the logarithm of 0, is replaced by the mean.
    """

    name: str
    columns: tuple[str, ...]
    values: Callable[[pd.DataFrame], pd.Series]


# To add one, add a line. The network, its scaling and the forecasts follow.
FEATURES: tuple[Feature, ...] = ()


def read_prices(store: Store, partitions: PricePartitions, columns: Sequence[str] = ("close",)) -> pd.DataFrame:
    """Return `columns` of the schema PRICES, with the sessions as index.

    Raises DataError if a partition is damaged, a value is invalid, or sessions are missing between two partitions.
    """
    prices = _read_partitions(store, partitions, columns)
    if (gaps := _find_gaps(prices)).any():
        raise DataError(_describe_gap(store, partitions.symbol, prices, int(gaps.argmax())))
    return prices[list(columns)]


class SegmentedPrices(NamedTuple):
    """A history with gaps.

    Attributes:
        prices: the columns that a model is made from, `model_columns`, with the sessions as index.
        segments: for each session, the number of gaps before it, shape (sessions,).
        last_gap: what is missing before the last segment, and how to collect it; empty if there is no gap.
    """

    prices: pd.DataFrame
    segments: Indexes
    last_gap: str

    @property
    def closes(self) -> pd.Series:
        """Index points, with the sessions as index."""
        return self.prices["close"]


def read_segmented_prices(store: Store, partitions: PricePartitions) -> SegmentedPrices:
    """Return the prices, divided where sessions are missing.

    Raises DataError if a partition is damaged or a value is invalid.
    """
    prices = _read_partitions(store, partitions, model_columns())
    gaps = _find_gaps(prices)
    last_gap = _describe_gap(store, partitions.symbol, prices, int(np.flatnonzero(gaps)[-1])) if gaps.any() else ""
    return SegmentedPrices(prices[list(model_columns())], np.cumsum(gaps), last_gap)


def _read_partitions(store: Store, partitions: PricePartitions, columns: Sequence[str]) -> pd.DataFrame:
    contents = store.read_many(partitions.files)
    files = {store.uri(path): check_content(store.uri(path), file, contents[path]) for path, file in partitions.files.items()}
    versions = {store.uri(path): version for path, version in partitions.versions.items()}
    rows = read_rows(files, PRICES.select({"close", "change", *columns}), versions)
    _check_sessions(rows, dict(zip(files, partitions.sessions, strict=True)))
    return rows.table


def _check_sessions(rows: ReadRows, sessions: Mapping[str, date]) -> None:
    """Raise DataError unless each file, by URI, has one row, for its session."""
    found: dict[str, list[date]] = {uri: [] for uri in sessions}
    for uri, session in zip(rows.files, rows.table.index.date, strict=True):
        found[uri].append(session)
    for uri, session in sessions.items():
        if found[uri] != [session]:
            described = f"{len(found[uri])} starting at {found[uri][0]}" if found[uri] else "none"
            raise DataError(f"{uri}: expected one row, for {session}; found {described}")


def _find_gaps(prices: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return for each session whether sessions are missing between it and the one before, shape (sessions,)."""
    days = prices.index.to_series().diff().dt.days
    change = prices["close"].pct_change()
    tolerance = CHANGE_STEP / 2 + CLOSE_STEP / prices["close"].shift()
    gaps: npt.NDArray[np.bool_] = ((days > MAX_SESSION_GAP_DAYS) | ((change - prices["change"]).abs() > tolerance)).to_numpy()
    return gaps


def _describe_gap(store: Store, symbol: str, prices: pd.DataFrame, row: int) -> str:
    """Return what is missing before the session at `row`, the evidence, and how to collect it."""
    previous, session = prices.index[row - 1].date(), prices.index[row].date()
    if (days := (session - previous).days) > MAX_SESSION_GAP_DAYS:
        evidence = f"the exchange has never closed for {days - 1} days"
    else:
        reported, computed = prices["change"].iloc[row], prices["close"].iloc[row] / prices["close"].iloc[row - 1] - 1
        evidence = f"the source reports a change of {reported:+.2%} for {session}, the closes give {computed:+.2%}"
    return (
        f"{store.uri(paths.prices_root(symbol))}: sessions between {previous} and {session} are missing, or one of the two was "
        f"revised: {evidence}; collect them with collector fetch-prices --symbol {symbol} --from {previous} --to {session}"
    )


def model_columns() -> tuple[str, ...]:
    """Return the columns of the schema PRICES that a model is made from."""
    return tuple(dict.fromkeys(["close", *(column for feature in FEATURES for column in feature.columns)]))


def feature_values(prices: pd.DataFrame) -> Array:
    """Return the features of each session after the first, shape (sessions - 1, features), as `log_returns` has them.

    A value that is missing or not finite is NaN.
    """
    values = [feature.values(prices).to_numpy(dtype="float64", na_value=np.nan) for feature in FEATURES]
    table = np.column_stack([np.empty((len(prices), 0)), *values])[1:]
    return np.where(np.isfinite(table), table, np.nan)


def log_returns(closes: Array) -> Array:
    """Return ln(close / previous close) of each session after the first, shape (sessions - 1,)."""
    return np.diff(np.log(closes))


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation of a session's log return or feature, computed from the training part only.

    The standard deviation of a feature without two different values there is 0: the network can learn nothing from it.
    """

    mean: float
    std: float

    @classmethod
    def fit(cls, returns: Array) -> Scaler:
        """Return the scaler of `returns`."""
        return cls(float(returns.mean()), float(returns.std()))

    @classmethod
    def fit_feature(cls, values: Array) -> Scaler:
        """Return the scaler of a feature, some values of which may be missing (NaN)."""
        known = values[np.isfinite(values)]
        if not len(known):
            return cls(0.0, 0.0)
        return cls(float(known.mean()), float(known.std()) if np.ptp(known) else 0.0)

    def scale(self, values: Array) -> Array:
        """Return the standardized values; 0, which is the mean, if the standard deviation is 0."""
        if not self.std:
            return np.zeros_like(values)
        scaled: Array = (values - self.mean) / self.std
        return scaled

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
