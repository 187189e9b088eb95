"""Strict parser of the source's price file of one year: every row is valid, or the file is rejected with line and column."""

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

MAX_COUNT_DIGITS = 18  # fits the partition's int64; the market's capitalization in KRW has 16

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_COUNT = re.compile(r"[0-9]+(\.0+)?")


def parse_year_file(data: bytes, location: str, year: int) -> list[Bar]:
    """Return the bars of the price file of `year`, ordered by date.

    The file is CSV in UTF-8. A byte-order mark, empty lines, lines that hold only `""` and any order of columns are valid.

    Args:
        data: the file's content.
        location: the file's URL, for error messages.
        year: the year that every row must be in.

    Raises:
        DataError: the file is invalid; the message names line and column.
    """
    rows = _parse_rows(data, location)
    check_rows(rows, year)
    return [row.bar for row in rows]


def _parse_rows(data: bytes, location: str) -> list[Row]:
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise invalid(f"{location}, line {line}", f"byte {data[error.start]:#x} is not UTF-8") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise invalid(f"{location}, line {reader.line_num}", f"invalid CSV: {error}") from None
    header = [name.strip() for name in lines[0][1]] if lines else []
    if sorted(header) != sorted(COLUMNS):
        shown = ",".join(header)[:80]
        raise invalid(f"{location}, line 1", f"invalid header {shown!r}: must contain each of {', '.join(COLUMNS)} once")
    if not text.endswith("\n"):
        raise invalid(f"{location}, line {lines[-1][0]}", "the last line has no line break, so the file is truncated")
    return [_parse_row(row, header, f"{location}, line {number}") for number, row in lines[1:] if row not in ([], [""])]


def _parse_row(row: list[str], header: list[str], location: str) -> Row:
    if len(row) != len(header):
        raise invalid(location, f"{len(row)} columns, but the header has {len(header)}")
    cells = dict(zip(header, row, strict=True))
    opened, high, low, close = (_parse_price(cells[name], f"{location}, column {name}") for name in PRICE_COLUMNS)
    volume, amount, market_cap = (_parse_count(cells[name], f"{location}, column {name}") for name in COUNT_COLUMNS)
    difference, change = (
        _parse_number(cells[name], f"{location}, column {name}") if cells[name] else None for name in ("Comp", "Change")
    )
    if change is not None and abs(change - round(change, CHANGE_DECIMALS)) < FLOAT_TOLERANCE:
        change = round(change, CHANGE_DECIMALS) + 0.0  # the source writes some values as 0.016200000000000003
    day = _parse_date(cells["Date"], f"{location}, column Date")
    return Row(location, Bar(day, opened, high, low, close, change, volume, amount, market_cap), difference, cells["UpDown"])


def _parse_date(text: str, location: str) -> date:
    try:
        return parse_iso_date(text)
    except ValueError:
        raise invalid(location, f"invalid date {text!r}: use YYYY-MM-DD") from None


def _parse_number(text: str, location: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise invalid(location, f"{text[:40]!r} is not a number")
    return float(text) + 0.0  # -0.0 becomes 0.0, so that equal values have equal bytes


def _parse_price(text: str, location: str) -> float:
    price = _parse_number(text, location)
    if not 0 < price < float("inf"):
        raise invalid(location, f"{text!r} is not a positive, finite price")
    return price


def _parse_count(text: str, location: str) -> int | None:
    if not text:
        return None
    # Not through a float, which is exact only up to 9e15: the market's capitalization in KRW comes near it.
    whole = text.partition(".")[0].lstrip("0") or "0"
    if not _COUNT.fullmatch(text) or len(whole) > MAX_COUNT_DIGITS:
        raise invalid(location, f"{text[:40]!r} is not an integer of at most {MAX_COUNT_DIGITS} digits")
    return int(whole)
