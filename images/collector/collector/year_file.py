"""The source's file of a year, read strictly: every row is right, or the whole file is refused with line and column."""

from __future__ import annotations

import codecs
import csv
import io
import re
from datetime import date

from step_contract.schemas import parse_iso_date

from collector.bar_checks import CHANGE_DECIMALS, FLOAT_TOLERANCE, Bar, Row, check_rows, invalid

PRICE_COLUMNS = ("Open", "High", "Low", "Close")
COUNT_COLUMNS = ("Volume", "Amount", "MarCap")
COLUMNS = ("Date", *PRICE_COLUMNS, "UpDown", "Comp", "Change", *COUNT_COLUMNS)

MAX_COUNT_DIGITS = 18  # what a partition holds, and a million times the market's value in KRW

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_COUNT = re.compile(r"[0-9]+(\.0+)?")


def parse_year_file(data: bytes, where: str, year: int) -> list[Bar]:
    """The bars of the file `data` of `year` found at `where`, by date.

    Lines that are empty or hold only `""`, a byte-order mark and any order of the columns are as the source writes them.
    Raises DataError with line and column for everything else that is not as it must be.
    """
    rows = _parse_rows(data, where)
    check_rows(rows, year)
    return [row.bar for row in rows]


def _parse_rows(data: bytes, where: str) -> list[Row]:
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise invalid(f"{where}, line {line}: ", f"{data[error.start]:#x} is not UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise invalid(f"{where}, line {reader.line_num}: ", str(error)) from None
    header = [name.strip() for name in lines[0][1]] if lines else []
    if sorted(header) != sorted(COLUMNS):
        shown = ",".join(header)[:80]
        raise invalid(f"{where}, line 1: ", f"the header {shown!r} must name {', '.join(COLUMNS)}, each once")
    if not text.endswith("\n"):
        raise invalid(f"{where}, line {lines[-1][0]}: ", "the last line has no end, the file was cut")
    return [_parse_row(row, header, f"{where}, line {number}") for number, row in lines[1:] if row not in ([], [""])]


def _parse_row(row: list[str], header: list[str], where: str) -> Row:
    if len(row) != len(header):
        raise invalid(f"{where}: ", f"{len(row)} columns where the header has {len(header)}")
    cells = dict(zip(header, row, strict=True))
    opened, high, low, close = (_parse_price(cells[name], f"{where}, column {name}: ") for name in PRICE_COLUMNS)
    volume, amount, market_cap = (_parse_count(cells[name], f"{where}, column {name}: ") for name in COUNT_COLUMNS)
    difference, change = (
        _parse_number(cells[name], f"{where}, column {name}: ") if cells[name] else None for name in ("Comp", "Change")
    )
    if change is not None and abs(change - round(change, CHANGE_DECIMALS)) < FLOAT_TOLERANCE:
        change = round(change, CHANGE_DECIMALS) + 0.0  # 0.016200000000000003 is how a program wrote 0.0162
    day = _parse_date(cells["Date"], f"{where}, column Date: ")
    return Row(where, Bar(day, opened, high, low, close, change, volume, amount, market_cap), difference, cells["UpDown"])


def _parse_date(text: str, where: str) -> date:
    try:
        return parse_iso_date(text)
    except ValueError:
        raise invalid(where, f"{text!r} is not a date YYYY-MM-DD") from None


def _parse_number(text: str, where: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise invalid(where, f"{text[:40]!r} is not a number")
    return float(text) + 0.0  # no -0.0, which is another value to whoever compares bytes


def _parse_price(text: str, where: str) -> float:
    price = _parse_number(text, where)
    if not 0 < price < float("inf"):
        raise invalid(where, f"{text!r} is no price")
    return price


def _parse_count(text: str, where: str) -> int | None:
    if not text:
        return None
    # Not by way of a float, which holds whole numbers exactly only up to 9e15: the market's value in KRW comes near it.
    whole = text.partition(".")[0].lstrip("0") or "0"
    if not _COUNT.fullmatch(text) or len(whole) > MAX_COUNT_DIGITS:
        raise invalid(where, f"{text[:40]!r} is not a count")
    return int(whole)
