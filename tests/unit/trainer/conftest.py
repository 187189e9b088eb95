from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

import arro3.core as arrow
import pytest
from arro3.io import write_parquet
from step_contract import paths
from step_contract.commit import Content, commit
from step_contract.schemas import PRICES
from step_contract.store import Store
from trainer.cli import build_parser

from ...conftest import SMALL_CONFIG as SMALL_CONFIG
from ...conftest import Run as Run
from ...conftest import StepResult as StepResult

SAMPLE = Path(__file__).resolve().parents[3] / "data" / "krx" / "index" / "year_ks11"
Close = TypeVar("Close", float, float | None)


def make_parquet(session: date, close: float | None, change: float | None = None) -> bytes:
    dates = arrow.Array([(session - date(1970, 1, 1)).days], arrow.DataType.int32()).cast(arrow.DataType.date32())
    values = [arrow.Array([value], arrow.DataType.float64()) for value in (close, change)]
    table = arrow.Table.from_arrays([dates, *values], names=["date", "close", "change"])
    buffer = io.BytesIO()
    write_parquet(table, buffer)
    return buffer.getvalue()


def commit_price(
    store: Store, session: date, close: float | None, symbol: str = "KS11", revision: int = 1, change: float | None = None
) -> None:
    content = Content({PRICES.file: make_parquet(session, close, change)}, 1, PRICES.version, {})
    directory = paths.revision(paths.prices(symbol, session), revision)
    commit(store, directory, step="fetch-prices", session=session, inputs={"close": str(close)}, content=content)


def real_changes(first: int, last: int) -> dict[date, tuple[float, float]]:
    """Return the KOSPI's closes of the years `first` to `last` with the changes that the source reports."""
    changes = {}
    for year in range(first, last + 1):
        with (SAMPLE / f"{year}.csv").open(encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                changes[date.fromisoformat(row["Date"])] = float(row["Close"]), float(row["Change"])
    return changes


def real_closes(first: int, last: int) -> dict[date, float]:
    """Return the KOSPI's closes of the years `first` to `last`."""
    return {session: close for session, (close, _) in real_changes(first, last).items()}


def on_weekdays(closes: Sequence[Close], last: date = date(2026, 1, 15)) -> dict[date, Close]:
    """Return `closes` on the weekdays up to `last`, a Thursday."""
    days: list[date] = []
    day = last
    while len(days) < len(closes):
        if day.weekday() < 5:
            days.append(day)
        day -= timedelta(days=1)
    return dict(zip(reversed(days), closes, strict=True))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/artifacts")


@pytest.fixture
def trainer(run_program: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs a step of the trainer with a small configuration."""
    (tmp_path / "model.toml").write_text(SMALL_CONFIG)
    monkeypatch.setenv("MODEL_CONFIG", str(tmp_path / "model.toml"))
    return run_program(build_parser)
