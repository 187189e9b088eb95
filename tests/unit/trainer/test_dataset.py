from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from step_contract.errors import DataError
from step_contract.store import Store
from trainer import dataset
from trainer.dataset import (
    Feature,
    Scaler,
    cumulative_returns,
    feature_values,
    forecast_origins,
    input_windows,
    log_returns,
    read_prices,
)
from trainer.partitions import list_partitions

from .conftest import commit_price, real_changes


def test_latest_revision_of_a_session_is_read(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    for revision, close in enumerate((100.0, *range(101, 111)), start=1):
        commit_price(store, date(2026, 1, 14), close, revision=revision)
    commit_price(store, date(2026, 1, 15), 200.0)
    partitions = list_partitions(store, "KS11", date(2026, 1, 15))
    assert partitions.sessions == [date(2026, 1, 14), date(2026, 1, 15)]
    prices = read_prices(store, partitions)
    assert prices["close"].tolist() == [110.0, 200.0]
    assert prices.index.date.tolist() == partitions.sessions


def closes_until(store: Store, last: date) -> list[float]:
    closes: list[float] = read_prices(store, list_partitions(store, "KS11", last))["close"].tolist()
    return closes


def commit_real_prices(store: Store, first: date, last: date, without: tuple[date, ...] = ()) -> None:
    for session, (close, change) in real_changes(2017, 2017).items():
        if first <= session <= last and session not in without:
            commit_price(store, session, close, change=change)


@pytest.mark.parametrize("missing", [date(2017, 9, 11), date(2017, 9, 29), date(2017, 10, 10)])
def test_missing_session_is_reported_with_the_command_to_collect_it(tmp_path: Path, missing: date) -> None:
    store, last = Store(f"file://{tmp_path}"), date(2017, 10, 20)
    commit_real_prices(store, date(2017, 9, 1), last, without=(missing,))
    with pytest.raises(DataError) as error:
        closes_until(store, last)
    days = [day for day in real_changes(2017, 2017) if day != missing]
    before, after = max(day for day in days if day < missing), min(day for day in days if day > missing)
    assert f"sessions between {before} and {after} are missing" in str(error.value)
    assert f"collector fetch-prices --symbol KS11 --from {before} --to {after}" in str(error.value)


def test_missing_weeks_are_reported_even_without_reported_changes(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    commit_price(store, date(2026, 1, 2), 100.0)
    commit_price(store, date(2026, 1, 20), 101.0)
    with pytest.raises(DataError, match=r"between 2026-01-02 and 2026-01-20 .* never closed for 17 days"):
        closes_until(store, date(2026, 1, 20))


def test_longest_holiday_is_not_a_gap(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    commit_real_prices(store, date(2017, 9, 25), date(2017, 10, 13))
    assert len(closes_until(store, date(2017, 10, 13))) == 9


def test_a_feature_that_is_not_finite_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session without any volume must not end the training as one that has diverged."""
    growth = Feature("growth", ("volume",), lambda prices: prices["volume"] / prices["volume"].shift() - 1)
    monkeypatch.setattr(dataset, "FEATURES", (growth,))
    values = feature_values(pd.DataFrame({"volume": pd.array([4, 0, 6, None, 6, 9], "Int64")}))
    assert values[:, 0].tolist() == pytest.approx([-1.0, np.nan, np.nan, np.nan, 0.5], nan_ok=True)


@pytest.mark.parametrize("known", [[], [np.nan] * 50, [1e9], [0.1] * 50], ids=["no session", "missing", "one", "the same"])
def test_a_feature_that_the_training_part_does_not_know_is_ignored(known: list[float]) -> None:
    """A column is collected from the middle of the history on: its first values must not be a thousand deviations away."""
    scaler = Scaler.fit_feature(np.array(known))
    assert scaler.scale(np.array([2e9, np.nan])).tolist() == [0, 0]
    assert Scaler.fit_feature(np.array([np.nan, 1.0, 3.0])).scale(np.array([4.0])).tolist() == [2.0]


def test_input_window_ends_where_targets_begin() -> None:
    closes = np.exp(np.arange(8) ** 2 / 100)
    returns = log_returns(closes)
    origins = forecast_origins(returns, window=3)
    assert origins.tolist() == [3, 4, 5, 6, 7]
    assert input_windows(returns, origins, 3)[0] == pytest.approx(np.log(closes[1:4] / closes[0:3]))
    targets = cumulative_returns(returns, origins[:-2], horizon=2)
    assert targets[0] == pytest.approx([np.log(closes[4] / closes[3]), np.log(closes[5] / closes[3])])
    assert targets[-1] == pytest.approx([np.log(closes[6] / closes[5]), np.log(closes[7] / closes[5])])
