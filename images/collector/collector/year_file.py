"""The source's file of a year, read strictly: every row is right, or the whole file is refused with line and column."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from step_contract.exit_codes import DataWrong

REQUIRED = ("Date", "Open", "High", "Low", "Close", "Change", "Volume", "Amount", "MarCap")
# The source rounds Change to four decimals; over 1995 to 2026 it is never further than 0.0002 from the closes' own.
CHANGE_TOLERANCE = 0.0005
CLOSE_STEP = 0.01  # index points to which closes are rounded; of a low index that is a visible change

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


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


def parse(data: bytes, where: str, year: int) -> list[Bar]:
    """The bars of the file `data` of `year` found at `where`, by date.

    Lines that are empty or hold only `""`, a byte-order mark and any order of the columns are as the source writes them.
    Raises DataWrong with line and column for everything else that is not as it must be.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataWrong(f"{where}: byte {error.start} is not UTF-8; look at the source") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DataWrong(f"{where}, line {reader.line_num}: {error}; look at the source") from None
    header = [name.strip() for name in lines[0][1]] if lines else []
    if missing := [name for name in REQUIRED if header.count(name) != 1]:
        shown = ",".join(header)[:80]
        raise DataWrong(f"{where}, line 1: the header {shown!r} must name {', '.join(missing)} once; look at the source")
    if not text.endswith("\n"):
        raise DataWrong(f"{where}, line {lines[-1][0]}: the last line has no end, the file was cut; look at the source")
    rows = [(number, row) for number, row in lines[1:] if row not in ([], [""])]
    bars = [(number, _bar(row, header, f"{where}, line {number}")) for number, row in rows]
    _check_dates(bars, where, year)
    _check_changes(bars, where)
    return [bar for _, bar in bars]


def _bar(row: list[str], header: list[str], where: str) -> Bar:
    if len(row) != len(header):
        raise DataWrong(f"{where}: {len(row)} columns where the header has {len(header)}; look at the source")
    cells = dict(zip(header, row, strict=True))
    prices = {name: _number(cells[name], name, where) for name in ("Open", "High", "Low", "Close")}
    for name, price in prices.items():
        if not 0 < price < float("inf"):
            raise DataWrong(f"{where}, column {name}: {cells[name]!r} is no price; look at the source")
    opened, high, low, close = prices.values()
    for name in ("Open", "Close"):
        if not low <= prices[name] <= high:
            raise DataWrong(
                f"{where}, column {name}: {prices[name]} is not between Low {low} and High {high}; look at the source"
            )
    try:
        day = date.fromisoformat(cells["Date"])
    except ValueError:
        raise DataWrong(f"{where}, column Date: {cells['Date']!r} is not a date YYYY-MM-DD; look at the source") from None
    volume, amount, market_cap = (_count(cells[name], name, where) for name in ("Volume", "Amount", "MarCap"))
    change = _number(cells["Change"], "Change", where) if cells["Change"] else None
    return Bar(day, opened, high, low, close, change, volume, amount, market_cap)


def _number(text: str, column: str, where: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise DataWrong(f"{where}, column {column}: {text!r} is not a number; look at the source")
    return float(text)


def _count(text: str, column: str, where: str) -> int | None:
    if not text:
        return None
    # Not by way of a float, which holds whole numbers exactly only up to 9e15: the market's value in KRW comes near it.
    whole, _, fraction = text.partition(".")
    if not whole.isdecimal() or fraction.strip("0"):
        raise DataWrong(f"{where}, column {column}: {text!r} is not a count; look at the source")
    return int(whole)


def _check_dates(bars: list[tuple[int, Bar]], where: str, year: int) -> None:
    for number, bar in bars:
        if bar.date.year != year:
            raise DataWrong(f"{where}, line {number}, column Date: {bar.date} in the file of {year}; look at the source")
    for (_, before), (number, bar) in pairwise(bars):
        if bar.date <= before.date:
            what = "twice" if bar.date == before.date else f"after {before.date}"
            raise DataWrong(f"{where}, line {number}, column Date: {bar.date} stands {what}; look at the source")


def _check_changes(bars: list[tuple[int, Bar]], where: str) -> None:
    for (_, before), (number, bar) in pairwise(bars):
        tolerance = CHANGE_TOLERANCE + CLOSE_STEP / before.close
        if bar.change is not None and abs(bar.close / before.close - 1 - bar.change) > tolerance:
            raise DataWrong(
                f"{where}, line {number}, column Change: {bar.change} does not fit the closes {before.close} and {bar.close}; "
                "look at the source"
            )
