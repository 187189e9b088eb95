"""The bar of one session, and the checks that its values and those of consecutive sessions must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from step_contract.errors import DataError
from step_contract.schemas import CHANGE_STEP, CLOSE_STEP

# Closes have two decimals, and Comp is exactly the difference of two published closes, in every KOSPI session from 1995 to
# 2026. Change is Comp divided by the previous close, rounded to four decimals.
CHANGE_DECIMALS = 4
# Some indices have Comp and Change rounded independently of the closes: many rows are inexact. A wrong close affects two rows.
ISOLATED_ERROR_ROWS, ISOLATED_ERROR_SHARE = 2, 0.05
# The exchange's daily price limit for a share (30 % since 15 June 2015, less before) also limits an index of shares.
# https://global.krx.co.kr/contents/GLB/06/0602/0602010201/GLB0602010201T2.jsp
DAILY_PRICE_LIMIT = 0.30
# The source's UpDown: up, down, unchanged, upper limit, lower limit.
DIRECTION_SIGNS = {"1": 1, "2": -1, "3": 0, "4": 1, "5": -1}
FLOAT_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Bar:
    """One session of an index.

    Attributes:
        date: the session.
        open: index points; `high`, `low` and `close` likewise.
        change: close divided by the previous close, minus 1; None for an index's first session.
        volume: shares, None if the source has no value.
        amount: KRW, None if the source has no value.
        market_cap: KRW, None if the source has no value, as before 2001.
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
    """A row of a year's file.

    Attributes:
        location: the file and the line, for error messages.
        bar: the parsed bar.
        difference: the source's Comp: close minus the previous close, in index points.
        direction: the source's UpDown, a code of the sign of `difference`.
    """

    location: str
    bar: Bar
    difference: float | None
    direction: str

    def invalid(self, column: str, problem: str) -> DataError:
        """Return the error for an invalid value in `column` of this row."""
        return invalid(f"{self.location}, column {column}", problem)


def invalid(location: str, problem: str) -> DataError:
    """Return the error for invalid content at `location` of the source's file."""
    return DataError(f"{location}: {problem}; check the file at the source")


def check_rows(rows: Sequence[Row], year: int) -> None:
    """Check all rows of the file of `year`. Raises DataError with line and column of the first invalid value."""
    for row in rows:
        if row.bar.date.year != year:
            raise row.invalid("Date", f"{row.bar.date} is not in {year}")
    for previous, row in pairwise(rows):
        if row.bar.date == previous.bar.date:
            raise row.invalid("Date", f"{row.bar.date} occurs twice")
        if row.bar.date < previous.bar.date:
            raise row.invalid("Date", f"{row.bar.date} follows {previous.bar.date}: dates must ascend")
    previous_closes = [None, *(row.bar.close for row in rows)][: len(rows)]
    any_difference = any(row.difference is not None for row in rows)
    for row, previous_close in zip(rows, previous_closes, strict=True):
        # An index's first session has none, and in the first years of some indices no session has.
        if row.difference is None and previous_close is not None and any_difference:
            raise row.invalid("Comp", "is empty, but other rows have a value")
        _check_difference(row)
        _check_prices(row, previous_close)
        _check_counts(row)
    _check_closes(rows, previous_closes)


def _check_prices(row: Row, previous_close: float | None) -> None:
    bar = row.bar
    if bar.low > bar.high:
        raise row.invalid("Low", f"{bar.low} is above High {bar.high}")
    for name, price in (("Open", bar.open), ("Close", bar.close)):
        if not bar.low <= price <= bar.high:
            raise row.invalid(name, f"{price} is not between Low {bar.low} and High {bar.high}")
    previous_close = previous_close if row.difference is None else bar.close - row.difference
    if not previous_close or not bar.volume:  # an index that is not traded, such as volatility, has no limit
        return
    for name, price in (("Low", bar.low), ("High", bar.high)):
        if abs(price / previous_close - 1) > DAILY_PRICE_LIMIT:
            raise row.invalid(
                name,
                f"{price} differs from the previous close {previous_close:.2f} by more than the daily price limit, "
                f"{DAILY_PRICE_LIMIT:.0%}",
            )


def _check_counts(row: Row) -> None:
    # An index without a value has an empty cell or 0.
    bar = row.bar
    if bar.volume and bar.amount and bar.amount < bar.volume:
        raise row.invalid("Amount", f"{bar.amount} KRW for {bar.volume} shares is less than 1 KRW per share")
    if bar.amount and bar.market_cap and bar.amount > bar.market_cap:
        raise row.invalid("MarCap", f"{bar.market_cap} KRW is less than the session's Amount, {bar.amount} KRW")


def _check_difference(row: Row) -> None:
    """Check that Comp, UpDown and Change of one row agree."""
    difference = row.difference
    if difference is None:
        if row.bar.change is not None or row.direction:
            name, value = ("UpDown", row.direction) if row.direction else ("Change", row.bar.change)
            raise row.invalid("Comp", f"is empty, but {name} is {value}")
        return
    if row.bar.change is None:
        raise row.invalid("Change", f"is empty, but Comp is {difference}")
    sign = (difference > 0) - (difference < 0)
    if row.direction not in DIRECTION_SIGNS:
        raise row.invalid("UpDown", f"{row.direction!r} is invalid: must be one of {', '.join(DIRECTION_SIGNS)}")
    if DIRECTION_SIGNS[row.direction] != sign:
        raise row.invalid("UpDown", f"{row.direction} does not match the sign of Comp {difference}")
    if row.bar.close - difference <= 0:
        raise row.invalid("Comp", f"{difference} implies a previous close that is not positive: Close is {row.bar.close}")


def _check_closes(rows: Sequence[Row], previous_closes: Sequence[float | None]) -> None:
    """Check that Comp is the difference of the closes, and Change is Comp divided by the previous close."""
    deviations = [_deviations(row, previous_close) for row, previous_close in zip(rows, previous_closes, strict=True)]
    inexact = sum(any(deviation) for deviation in deviations)
    rounded_independently = inexact > max(ISOLATED_ERROR_ROWS, ISOLATED_ERROR_SHARE * len(rows))
    for row, (difference, change) in zip(rows, deviations, strict=True):
        if difference > (CLOSE_STEP if rounded_independently else 0):
            raise row.invalid("Close", f"{row.bar.close} minus the previous close is not Comp {row.difference}")
        # A deviation of Comp by one step changes Change by that step divided by the close.
        if change > (CLOSE_STEP / row.bar.close if rounded_independently else 0):
            raise row.invalid("Change", f"{row.bar.change} is not Comp {row.difference} divided by the previous close")


def _deviations(row: Row, previous_close: float | None) -> tuple[float, float]:
    """Return the deviations beyond rounding: of Comp from the difference of the closes, of Change from the ratio."""
    if row.difference is None or row.bar.change is None:  # a row has both or neither
        return 0, 0
    difference = 0.0 if previous_close is None else abs(row.bar.close - previous_close - row.difference) - CLOSE_STEP / 2
    ratio = row.difference / (row.bar.close - row.difference)
    change = abs(ratio - row.bar.change) - CHANGE_STEP / 2 - FLOAT_TOLERANCE
    unrounded = FLOAT_TOLERANCE if row.bar.change != round(row.bar.change, CHANGE_DECIMALS) else 0
    return max(0, difference), max(unrounded, change)
