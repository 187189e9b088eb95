"""Strict parser of the source's price file of one year: every row is valid, or the file is rejected with line and column.

Encoding: UTF-8, optionally with a byte-order mark.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from datetime import date
from functools import lru_cache

import pandas as pd
from step_contract.schemas import ISO_DATE, MAX_COUNT, PRICES, Column
from step_contract.tables import find_invalid

from collector.bar_checks import CHANGE_DECIMALS, FLOAT_TOLERANCE, check_rows, invalid

# The columns of the source's file, and the column of the prices that each becomes. The last two only confirm others.
COLUMNS = {
    "Date": PRICES["date"],
    "Open": PRICES["open"],
    "High": PRICES["high"],
    "Low": PRICES["low"],
    "Close": PRICES["close"],
    "Change": PRICES["change"],
    "Volume": PRICES["volume"],
    "Amount": PRICES["amount"],
    "MarCap": PRICES["market_cap"],
    "Comp": Column("difference", "float64", "index points", "close minus the previous session's close", nullable=True),
    "UpDown": Column("direction", "str", "", "a code of the sign of Comp", nullable=True),
}

_NUMBER = r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?"
_COUNT = rf"\A0*([0-9]{{1,{len(str(MAX_COUNT))}}})(?:\.0+)?\Z"


def parse_year_file(data: bytes, location: str, year: int) -> pd.DataFrame:
    """Return the bars of the price file of `year`: a table of the schema PRICES.

    The file is CSV in UTF-8. A byte-order mark, empty lines, lines that hold only `""` and any order of columns are valid.

    Args:
        data: the file's content.
        location: the file's URL, for error messages.
        year: the year that every row must be in.

    Raises:
        DataError: the file is invalid; the message names line and column.
    """
    rows = _parse_cells(_read_cells(data, location), location)
    check_rows(rows, location, year)
    return rows.set_index(PRICES.index)[[name for name in PRICES.names if name != PRICES.index]]


def _read_cells(data: bytes, location: str) -> pd.DataFrame:
    """Return the text of each cell by the source's column; the index is the line in the file.

    Not by pandas.read_csv, which accepts characters after a closing quote and does not know a row's line.
    """
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
    rows = [(number, row) for number, row in lines[1:] if row not in ([], [""])]
    return _make_cells(rows, header, location)


@lru_cache(maxsize=4)
def list_sessions(data: bytes, location: str, year: int) -> frozenset[date]:
    """Return the days that a year's file has a bar for. Raises DataError if the file is invalid: see `parse_year_file`."""
    return frozenset(parse_year_file(data, location, year).index.date)


def _make_cells(rows: Sequence[tuple[int, list[str]]], header: list[str], location: str) -> pd.DataFrame:
    position = next((i for i, (_, row) in enumerate(rows) if len(row) != len(header)), len(rows))
    index = pd.Index([number for number, _ in rows[:position]], name="line", dtype="int64")
    # Of dtype object: what the methods of texts match must not depend on whether pyarrow is installed.
    cells = pd.DataFrame([row for _, row in rows[:position]], index, columns=header, dtype=object)
    if position < len(rows):
        _parse_cells(cells, location)  # a wrong value in an earlier line comes first
        number, row = rows[position]
        raise invalid(f"{location}, line {number}", f"{len(row)} columns, but the header has {len(header)}")
    return cells


def _parse_cells(cells: pd.DataFrame, location: str) -> pd.DataFrame:
    """Return the values of the cells by the columns' names. Raises DataError with line and column of the first invalid one."""
    rows = {column.name: _parse_column(cells[name], column) for name, column in COLUMNS.items()}
    wrong = pd.DataFrame(
        {
            name: find_invalid(rows[column.name], column) | (rows[column.name].isna() & (cells[name] != ""))
            for name, column in COLUMNS.items()
        }
    )
    if (lines := wrong.any(axis="columns")).any():
        line = lines.idxmax()
        name = wrong.loc[line].idxmax()
        problem = f"{cells.loc[line, name][:40]!r} is not {COLUMNS[name].requirement}"
        raise invalid(f"{location}, line {line}, column {name}", problem)
    parsed = pd.DataFrame(rows)
    rounded = parsed["change"].round(CHANGE_DECIMALS)
    # The source writes some values as 0.016200000000000003. -0.0 becomes 0.0, so that equal values have equal bytes.
    parsed["change"] = parsed["change"].mask((parsed["change"] - rounded).abs() < FLOAT_TOLERANCE, rounded + 0.0)
    return parsed


def _parse_column(text: pd.Series, column: Column) -> pd.Series:
    """Return the values of a column's cells with the column's dtype; a missing one where a cell is empty or no such value."""
    if column.dtype == "datetime64[us]":
        dates = text.where(text.str.fullmatch(ISO_DATE.pattern))
        return pd.to_datetime(dates, format="%Y-%m-%d", errors="coerce").astype(column.dtype)
    if column.dtype == "float64":
        return text.where(text.str.fullmatch(_NUMBER)).astype("float64")
    if column.dtype == "Int64":
        # Not through a float, which is exact only up to 9e15: the market's capitalization in KRW comes near it.
        digits = text.str.extract(_COUNT)[0]
        integers = digits.fillna("0").to_numpy(dtype=object).astype("int64")
        return pd.Series(pd.arrays.IntegerArray(integers, digits.isna().to_numpy(dtype=bool)), text.index)
    return text
