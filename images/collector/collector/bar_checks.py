"""A session's bar, and what must hold between its values and between a bar and the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from step_contract.errors import DataError

# Closes have two decimals, and the source's difference is that of the closes as published: exactly, in every session of KOSPI
# from 1995 to 2026. Change is that difference over the close before, rounded to four decimals.
CLOSE_STEP = 0.01
CHANGE_STEP = 0.0001
CHANGE_DECIMALS = 4
# A file of an index whose differences are rounded on their own shows that throughout; one wrong close shows in two rows.
INEXACT_SHARE, INEXACT_ROWS = 0.05, 2
# No share may move further in a day (30 % since 15 June 2015, less before), so no index of shares can.
# https://global.krx.co.kr/contents/GLB/06/0602/0602010201/GLB0602010201T2.jsp
DAILY_PRICE_LIMIT = 0.30
DIRECTION_SIGNS = {
    "1": 1,
    "2": -1,
    "3": 0,
    "4": 1,
    "5": -1,
}  # of the source's UpDown: up, down, unchanged, limit up, limit down
FLOAT_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Bar:
    """One session of an index: prices in index points, change as a ratio, volume in shares, amount and market_cap in KRW.

    What the source leaves empty is None: the change of an index's first session, market_cap before 2001.
    """

    date: date
    open: float
    high: float
    low: float
    close: float
    change: float | None
    volume: int | None
    amount: int | None
    market_cap: int | None


@dataclass(frozen=True)
class Row:
    """A line of the file: where it stands, its bar, and what the source says of the close before it.

    `difference` is the close less the close before it in index points, `direction` the source's code of its sign.
    """

    location: str
    bar: Bar
    difference: float | None
    direction: str


def invalid(location: str, what: str) -> DataError:
    """The error that says `what` is wrong at `where`, and what to do."""
    return DataError(f"{location}{what}; look at the source")


def check_rows(rows: Sequence[Row], year: int) -> None:
    """Raises DataError with line and column for the first row of the file of `year` that cannot be right."""
    for row in rows:
        if row.bar.date.year != year:
            raise invalid(f"{row.location}, column Date: ", f"{row.bar.date} in the file of {year}")
    for earlier, row in pairwise(rows):
        if row.bar.date <= earlier.bar.date:
            what = "twice" if row.bar.date == earlier.bar.date else f"after {earlier.bar.date}"
            raise invalid(f"{row.location}, column Date: ", f"{row.bar.date} stands {what}")
    befores = [None, *(row.bar.close for row in rows)][: len(rows)]
    some_have = any(row.difference is not None for row in rows)
    for row, before in zip(rows, befores, strict=True):
        # An index's first session has none, and in the first years of some no session has.
        if row.difference is None and before is not None and some_have:
            raise invalid(f"{row.location}, column Comp: ", "it is empty, and in other rows it is not")
        _check_difference(row)
        _check_prices(row, before)
        _check_counts(row)
    _check_closes(rows, befores)


def _check_prices(row: Row, before: float | None) -> None:
    bar = row.bar
    if bar.low > bar.high:
        raise invalid(f"{row.location}, column Low: ", f"{bar.low} is above High {bar.high}")
    for name, price in (("Open", bar.open), ("Close", bar.close)):
        if not bar.low <= price <= bar.high:
            raise invalid(f"{row.location}, column {name}: ", f"{price} is not between Low {bar.low} and High {bar.high}")
    before = before if row.difference is None else bar.close - row.difference
    if not before or not bar.volume:  # what is not traded, as volatility, has no limit
        return
    for name, price in (("Low", bar.low), ("High", bar.high)):
        if abs(price / before - 1) > DAILY_PRICE_LIMIT:
            raise invalid(
                f"{row.location}, column {name}: ", f"{price} is further from the close before, {before:.2f}, than a day can go"
            )


def _check_counts(row: Row) -> None:
    # Where an index has no figure, its source writes nothing or nought.
    bar = row.bar
    if bar.volume and bar.amount and bar.amount < bar.volume:
        raise invalid(f"{row.location}, column Amount: ", f"{bar.amount} KRW for {bar.volume} shares is less than 1 KRW a share")
    if bar.amount and bar.market_cap and bar.amount > bar.market_cap:
        raise invalid(f"{row.location}, column MarCap: ", f"{bar.market_cap} KRW is less than a day's Amount, {bar.amount} KRW")


def _check_difference(row: Row) -> None:
    """Whether Comp and UpDown of one row say the same."""
    difference = row.difference
    if difference is None:
        if row.bar.change is not None or row.direction:
            name, value = ("UpDown", row.direction) if row.direction else ("Change", row.bar.change)
            raise invalid(f"{row.location}, column Comp: ", f"it is empty, and {name} is {value}")
        return
    if row.bar.change is None:
        raise invalid(f"{row.location}, column Change: ", f"it is empty, and Comp is {difference}")
    sign = (difference > 0) - (difference < 0)
    if row.direction not in DIRECTION_SIGNS:
        raise invalid(f"{row.location}, column UpDown: ", f"{row.direction!r} is none of {', '.join(DIRECTION_SIGNS)}")
    if DIRECTION_SIGNS[row.direction] != sign:
        raise invalid(f"{row.location}, column UpDown: ", f"{row.direction} does not fit Comp {difference}")
    if row.bar.close - difference <= 0:
        raise invalid(f"{row.location}, column Comp: ", f"{difference} does not fit Close {row.bar.close}")


def _check_closes(rows: Sequence[Row], befores: Sequence[float | None]) -> None:
    """Whether each Comp is the difference of the closes, and each Change that difference over the close before."""
    off = [_deviations(row, before) for row, before in zip(rows, befores, strict=True)]
    # Of an index that is rounded apart a step is allowed, which also moves Change: by that step over the close before.
    apart = sum(any(one) for one in off) > max(INEXACT_ROWS, INEXACT_SHARE * len(rows))
    for row, (difference, change) in zip(rows, off, strict=True):
        if difference > (CLOSE_STEP if apart else 0):
            raise invalid(f"{row.location}, column Close: ", f"{row.bar.close} less the close before is not Comp {row.difference}")
        if change > (CLOSE_STEP / row.bar.close if apart else 0):
            raise invalid(
                f"{row.location}, column Change: ", f"{row.bar.change} is not Comp {row.difference} over the close before"
            )


def _deviations(row: Row, before: float | None) -> tuple[float, float]:
    """How far Comp is from the difference of the closes, and Change from that over the close before, rounding aside."""
    if row.difference is None or row.bar.change is None:  # a row has both or neither
        return 0, 0
    difference = 0.0 if before is None else abs(row.bar.close - before - row.difference) - CLOSE_STEP / 2
    ratio = row.difference / (row.bar.close - row.difference)
    change = abs(ratio - row.bar.change) - CHANGE_STEP / 2 - FLOAT_TOLERANCE
    unrounded = FLOAT_TOLERANCE if row.bar.change != round(row.bar.change, CHANGE_DECIMALS) else 0
    return max(0, difference), max(unrounded, change)
