"""The data quality checks that the bars of a year must pass: the values of one session, and of consecutive sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
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


class Check(NamedTuple):
    """A check of a column.

    Attributes:
        column: the column's name in the source's file.
        wrong: which rows fail it.
        problem: what to report, with the columns of the row in braces.
    """

    column: str
    wrong: pd.Series
    problem: str


def invalid(location: str, problem: str) -> DataError:
    """Return the error for invalid content at `location` of the source's file."""
    return DataError(f"{location}: {problem}; check the file at the source")


def check_rows(rows: pd.DataFrame, location: str, year: int) -> None:
    """Check all rows of the file of `year` at `location`.

    Args:
        rows: the columns of the schema PRICES, and `difference` and `direction`, the source's Comp and UpDown; see
            `year_file.COLUMNS`. The index is the line in the file.
        location: the file's URL, for error messages.
        year: the year that every row must be in.

    Raises:
        DataError: a value is invalid; the message names line and column of the first.
    """
    rows = rows.assign(previous_date=rows["date"].shift(), previous_close=rows["close"].shift())
    # The previous close that Comp implies, even of the file's first row; without Comp, the previous row's.
    rows["reference"] = (rows["close"] - rows["difference"]).fillna(rows["previous_close"])
    # Later checks rely on what earlier ones establish.
    for checks in (
        [Check("Date", rows["date"].dt.year != year, f"{{date:%Y-%m-%d}} is not in {year}")],
        _check_order(rows),
        [*_check_difference(rows), *_check_prices(rows), *_check_counts(rows)],
        _check_closes(rows),
    ):
        _raise_first(checks, rows, location)


def _raise_first(checks: Sequence[Check], rows: pd.DataFrame, location: str) -> None:
    """Raise DataError for the first line that fails a check; of several checks, for the first."""
    failed = [(check.wrong.idxmax(), number) for number, check in enumerate(checks) if check.wrong.any()]
    if failed:
        line, number = min(failed)
        problem = checks[number].problem.format(**rows.loc[line])
        raise invalid(f"{location}, line {line}, column {checks[number].column}", problem)


def _check_order(rows: pd.DataFrame) -> list[Check]:
    follows = "{date:%Y-%m-%d} follows {previous_date:%Y-%m-%d}: dates must ascend"
    return [
        Check("Date", rows["date"] == rows["previous_date"], "{date:%Y-%m-%d} occurs twice"),
        Check("Date", rows["date"] < rows["previous_date"], follows),
    ]


def _check_difference(rows: pd.DataFrame) -> list[Check]:
    """Return the checks that Comp, UpDown and Change of one row agree."""
    difference, change, direction = rows["difference"], rows["change"], rows["direction"]
    empty = difference.isna()
    sign = direction.map(DIRECTION_SIGNS)
    # An index's first session has no difference, and in the first years of some indices no session has.
    other_rows_have_one = rows["previous_close"].notna() & difference.notna().any()
    codes = ", ".join(DIRECTION_SIGNS)
    return [
        Check("Comp", empty & other_rows_have_one, "is empty, but other rows have a value"),
        Check("Comp", empty & (direction != ""), "is empty, but UpDown is {direction}"),
        Check("Comp", empty & change.notna(), "is empty, but Change is {change}"),
        Check("Change", ~empty & change.isna(), "is empty, but Comp is {difference}"),
        Check("UpDown", ~empty & sign.isna(), f"{{direction!r}} is invalid: must be one of {codes}"),
        Check("UpDown", ~empty & (sign != np.sign(difference)), "{direction} does not match the sign of Comp {difference}"),
        Check(
            "Comp",
            rows["close"] - difference <= 0,
            "{difference} implies a previous close that is not positive: Close is {close}",
        ),
    ]


def _check_prices(rows: pd.DataFrame) -> list[Check]:
    low, high = rows["low"], rows["high"]
    traded = _is_positive(rows["volume"])  # an index that is not traded, such as volatility, has no limit
    checks = [Check("Low", low > high, "{low} is above High {high}")]
    for name in ("Open", "Close"):
        price = rows[name.lower()]
        outside = (price < low) | (price > high)
        checks.append(Check(name, outside, f"{{{name.lower()}}} is not between Low {{low}} and High {{high}}"))
    for name, price in (("Low", low), ("High", high)):
        beyond = traded & ((price / rows["reference"] - 1).abs() > DAILY_PRICE_LIMIT)
        problem = f"{{{name.lower()}}} differs from the previous close {{reference:.2f}} by more than the daily price limit, "
        problem += f"{DAILY_PRICE_LIMIT:.0%}"
        checks.append(Check(name, beyond, problem))
    return checks


def _check_counts(rows: pd.DataFrame) -> list[Check]:
    # An index without a value has an empty cell or 0.
    volume, amount, market_cap = rows["volume"], rows["amount"], rows["market_cap"]
    has_amount = _is_positive(amount)
    return [
        Check(
            "Amount",
            has_amount & _is_positive(volume) & _is_true(amount < volume),
            "{amount} KRW for {volume} shares is less than 1 KRW per share",
        ),
        Check(
            "MarCap",
            has_amount & _is_positive(market_cap) & _is_true(amount > market_cap),
            "{market_cap} KRW is less than the session's Amount, {amount} KRW",
        ),
    ]


def _is_positive(counts: pd.Series) -> pd.Series:
    return _is_true(counts > 0)


def _is_true(values: pd.Series) -> pd.Series:
    """Return booleans: False where a value is missing."""
    return values.fillna(False).astype(bool)


def _check_closes(rows: pd.DataFrame) -> list[Check]:
    """Return the checks that Comp is the difference of the closes, and Change is Comp divided by the previous close."""
    close, difference, change = rows["close"], rows["difference"], rows["change"]
    # The deviations beyond rounding; 0 where a row has neither Comp nor Change.
    of_difference = ((close - rows["previous_close"] - difference).abs() - CLOSE_STEP / 2).clip(lower=0).fillna(0)
    of_change = ((difference / (close - difference) - change).abs() - CHANGE_STEP / 2 - FLOAT_TOLERANCE).clip(lower=0).fillna(0)
    unrounded = change.notna() & (change != change.round(CHANGE_DECIMALS))
    of_change = of_change.mask(unrounded, of_change.clip(lower=FLOAT_TOLERANCE))
    inexact = ((of_difference > 0) | (of_change > 0)).sum()
    rounded_independently = inexact > max(ISOLATED_ERROR_ROWS, ISOLATED_ERROR_SHARE * len(rows))
    # A deviation of Comp by one step changes Change by that step divided by the close.
    allowed, allowed_change = (CLOSE_STEP, CLOSE_STEP / close) if rounded_independently else (0, 0)
    return [
        Check("Close", of_difference > allowed, "{close} minus the previous close is not Comp {difference}"),
        Check("Change", of_change > allowed_change, "{change} is not Comp {difference} divided by the previous close"),
    ]
