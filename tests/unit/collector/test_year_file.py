from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from collector.year_file import parse_year_file
from pandas.testing import assert_frame_equal
from step_contract.errors import DataError
from step_contract.schemas import PRICES
from step_contract.tables import check_table, to_records

from .conftest import HEADER, REAL

Change = Callable[[bytes], bytes]


@pytest.mark.parametrize("year", range(1995, 2027))
def test_real_years_are_parsed_as_by_the_csv_module(year: int) -> None:
    data = (REAL / f"{year}.csv").read_bytes()
    expected = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    bars = to_records(parse_year_file(data, "here", year))
    assert [bar["date"].isoformat() for bar in bars] == [row["Date"] for row in expected]
    for bar, row in zip(bars, expected, strict=True):
        for name in ("Open", "High", "Low", "Close"):
            assert bar[name.lower()] == float(row[name])
        for column, name in (("volume", "Volume"), ("amount", "Amount"), ("market_cap", "MarCap")):
            assert bar[column] == (int(row[name].removesuffix(".0")) if row[name] else None)


@pytest.mark.parametrize("data", [HEADER.encode(), (REAL / "2026.csv").read_bytes()], ids=["no rows", "a real year"])
def test_prices_match_their_schema(data: bytes) -> None:
    prices = parse_year_file(data, "here", 2026)
    check_table(prices, PRICES)
    assert {name: str(dtype) for name, dtype in prices.reset_index().dtypes.items()} == {
        column.name: column.dtype for column in PRICES.columns
    }


def real_file(year: int = 2026) -> bytes:
    return (REAL / f"{year}.csv").read_bytes()


def edit(number: int, change: Callable[[bytes], bytes]) -> Change:
    def damage(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        lines[number - 1] = change(lines[number - 1])
        return b"".join(lines)

    return damage


def reordered(data: bytes) -> bytes:
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    text = io.StringIO()
    csv.writer(text).writerows([row[::-1] for row in rows])
    return text.getvalue().encode()


@pytest.mark.parametrize(
    "variation",
    [
        pytest.param(lambda data: data.removeprefix(b"\xef\xbb\xbf"), id="no byte-order mark"),
        pytest.param(lambda data: data.replace(b"\n", b"\r\n"), id="Windows line ends"),
        pytest.param(edit(5, lambda text: b'""\n' + text), id='a line that holds only ""'),
        pytest.param(lambda data: data + b"\n\n", id="empty lines at the end"),
        pytest.param(reordered, id="another order of columns"),
    ],
)
def test_valid_variations_are_parsed_alike(variation: Change) -> None:
    assert_frame_equal(parse_year_file(variation(real_file()), "here", 2026), parse_year_file(real_file(), "here", 2026))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda data: b"<!DOCTYPE html>\n<html></html>\n", "line 1: invalid header '<!DOCTYPE html>'", id="HTML"),
        pytest.param(lambda data: b"", "line 1", id="empty"),
        pytest.param(
            edit(1, lambda text: text.replace(b"Close", b"Shut")),
            "line 1: .* must contain each of Date, Open",
            id="header",
        ),
        pytest.param(lambda data: data[:-1], "line 53: the last line has no line break", id="truncated in the last number"),
        pytest.param(lambda data: data[:-20] + b"\n", "line 53: 10 columns", id="truncated in the last line"),
        pytest.param(edit(10, lambda text: text + text), "line 11, column Date: .* twice", id="duplicate date"),
        pytest.param(edit(10, lambda text: b""), "line 10, column Close: 4797.55 minus the previous close", id="missing line"),
        pytest.param(edit(10, lambda text: text.replace(b"2026-01-14", b"2026-01-04")), "line 10, column Date", id="order"),
        pytest.param(edit(10, lambda text: text.replace(b"2026-", b"2025-")), "line 10, column Date", id="another year"),
        pytest.param(edit(10, lambda text: text.replace(b"2026-01-14", b"14.01.2026")), "column Date", id="date format"),
        pytest.param(
            edit(10, lambda text: text.replace(b"4723.1,", b'"4,723.1",', 1)),
            "line 10, column Close: '4,723.1'",
            id="1,000",
        ),
        pytest.param(edit(10, lambda text: text.replace(b"4723.1", b"-4723.1", 1)), "line 10, column Close", id="negative"),
        pytest.param(edit(10, lambda text: text.replace(b"4723.1", b"nan", 1)), "line 10, column Close: 'nan'", id="nan"),
        pytest.param(edit(10, lambda text: text.replace(b"4723.1", b"4_723", 1)), "line 10, column Close", id="underscore"),
        pytest.param(edit(10, lambda text: text.replace(b"4723.1", b"4523.1", 1)), "line 10, column Close", id="below the low"),
        pytest.param(
            edit(10, lambda text: text.replace(b",4685.11,", b",9685.11,")), "line 10, column Open", id="above the high"
        ),
        pytest.param(edit(10, lambda text: text.replace(b",0.0065", b",0.0165")), "line 10, column Change", id="change"),
        pytest.param(edit(10, lambda text: text.replace(b",1,", b",2,", 1)), "line 10, column UpDown: 2", id="direction"),
        pytest.param(
            edit(10, lambda text: text.replace(b",1,", b",7,", 1)), "line 10, column UpDown: '7'", id="unknown direction"
        ),
        pytest.param(edit(10, lambda text: text.replace(b"4723.1,", b"4723.2,", 1)), "line 10, column Close", id="wrong digit"),
        pytest.param(edit(10, lambda text: text.replace(b"4723.1,1,", b"4723.1,1,1", 1)), "column C", id="difference"),
        pytest.param(
            edit(10, lambda text: text.replace(b",0.0065", b",0.0066")),
            "line 10, column Change",
            id="wrong digit of change",
        ),
        pytest.param(
            edit(10, lambda text: re.sub(rb",46(\d\d\.\d+),(\d+),", rb",26\1,\2,", text)),
            "column Low",
            id="daily price limit",
        ),
        pytest.param(
            edit(2, lambda text: re.sub(rb",42(\d\d\.\d+),(\d+),", rb",22\1,\2,", text)),
            "line 2, column Low: .* differs from the previous close 4214.17 by more than the daily price limit, 30%",
            id="daily price limit in the first row",
        ),
        pytest.param(
            edit(1, lambda text: text.replace(b"High,Low", b"Low,High")),
            "line 2, column Low: .* is above High",
            id="swapped high and low",
        ),
        pytest.param(
            edit(1, lambda text: text.replace(b"Volume,Amount", b"Amount,Volume")),
            "column Amount",
            id="swapped volume and amount",
        ),
        pytest.param(
            edit(1, lambda text: text.replace(b"Amount,MarCap", b"MarCap,Amount")),
            "column MarCap",
            id="swapped amount and market cap",
        ),
        pytest.param(
            edit(1, lambda text: text.replace(b"MarCap", b"MarCap,More")),
            "line 1: invalid header",
            id="an additional column",
        ),
        pytest.param(edit(10, lambda text: text.replace(b"2026-01-14", b"2026-W03-3")), "column Date", id="week date"),
        pytest.param(edit(10, lambda text: text.replace(b"4723", "\u0664723".encode(), 1)), "column Close", id="Arabic digits"),
        pytest.param(edit(10, lambda text: text.replace(b"2", b"\xff", 1)), "line 10: byte 0xff is not UTF-8", id="encoding"),
        pytest.param(edit(10, lambda text: b'"' + text), "here, line", id="unclosed quote"),
    ],
)
def test_invalid_file_is_rejected_with_location(damage: Change, message: str) -> None:
    damaged = damage(real_file())
    assert damaged != real_file(), "the damage must change the file"
    with pytest.raises(DataError, match=message) as error:
        parse_year_file(damaged, "here", 2026)
    assert str(error.value).startswith("here")


def test_real_prices_are_finite_positive_and_ordered_by_date(tmp_path: Path) -> None:
    prices = pd.concat([parse_year_file(real_file(year), "here", year) for year in range(1995, 2027)])
    assert np.isfinite(prices["close"]).all() and (prices["low"] > 0).all()
    assert prices.index.is_monotonic_increasing and prices.index.is_unique
    first, last = prices.index[[0, -1]].date
    assert (len(prices), first, last) == (7784, date(1995, 5, 2), date(2026, 3, 20))


def make_file(*rows: str) -> bytes:
    """Return a file with the rows `date,close,difference,change`; the values of the other columns are consistent."""
    lines = []
    for row in rows:
        day, close, difference, change = row.split(",")
        direction = "1" if float(difference) > 0 else "2" if float(difference) < 0 else "3"
        lines.append(f"{day},{close},{direction},{difference},{change},{close},{close},{close},1,1,1\n")
    return (HEADER + "".join(lines)).encode()


def test_low_index_is_valid_despite_rounding() -> None:
    rows = ["2026-01-02,2.10,0.01,0.0048", "2026-01-05,2.13,0.03,0.0119", "2026-01-06,2.14,0.01,0.0071"]
    data = make_file(*rows, "2026-01-07,2.16,0.02,0.0079", "2026-01-08,2.15,-0.01,-0.0061")
    assert parse_year_file(data, "here", 2026)["close"].tolist() == [2.10, 2.13, 2.14, 2.16, 2.15]


def test_independently_rounded_differences_are_valid() -> None:
    rows = ["2026-01-02,100.00,1.00,0.0101", "2026-01-05,102.00,2.01,0.0201", "2026-01-06,101.00,-0.99,-0.0098"]
    data = make_file(*rows, "2026-01-07,102.00,1.01,0.0100")
    assert len(parse_year_file(data, "here", 2026)) == 4


def test_wrong_digit_in_a_short_file_is_rejected() -> None:
    january = b"".join(real_file().splitlines(keepends=True)[:8])
    with pytest.raises(DataError, match="line 6, column Close"):
        parse_year_file(january.replace(b"2026-01-08,4552.37,", b"2026-01-08,4552.36,"), "here", 2026)


def without_differences(data: bytes, first: int, last: int) -> bytes:
    lines = data.splitlines(keepends=True)
    for number in range(first - 1, last):
        cells = lines[number].split(b",")
        cells[2:5] = [b"", b"", b""]
        lines[number] = b",".join(cells)
    return b"".join(lines)


def test_all_differences_of_a_year_may_be_empty() -> None:
    prices = parse_year_file(without_differences(real_file(), 2, 53), "here", 2026)
    assert prices["close"].tolist() == parse_year_file(real_file(), "here", 2026)["close"].tolist()
    assert prices["change"].isna().all()
    with pytest.raises(DataError, match=r"line 10, column Low: .* daily price limit"):
        damaged = without_differences(real_file(), 2, 53).splitlines(keepends=True)
        damaged[9] = re.sub(rb"\d{4}\.\d+", b"99.5", damaged[9])
        parse_year_file(b"".join(damaged), "here", 2026)


@pytest.mark.parametrize("cells", [slice(2, 5), slice(3, 4), slice(4, 5), slice(2, 4)])
def test_missing_differences_in_a_single_row_are_rejected(cells: slice) -> None:
    lines = real_file().splitlines(keepends=True)
    row = lines[52].split(b",")
    row[cells] = [b""] * len(row[cells])
    lines[52] = b",".join(row)
    with pytest.raises(DataError, match="line 53, column "):
        parse_year_file(b"".join(lines), "here", 2026)


@pytest.mark.parametrize("digits", [19, 30, 5000])
def test_count_beyond_int64_is_rejected(digits: int) -> None:
    with pytest.raises(DataError, match="line 53, column MarCap"):
        parse_year_file(real_file().replace(b"4768189155100582", b"9" * digits), "here", 2026)


def test_negative_zero_is_parsed_as_zero() -> None:
    rows = [f"2026-01-{day:02},100.00,{zero},{zero}" for day, zero in ((2, "0"), (5, "-0.0"), (6, "0.0"))]
    assert [str(change) for change in parse_year_file(make_file(*rows), "here", 2026)["change"].tolist()] == ["0.0"] * 3


def test_message_has_the_line_number_of_an_editor() -> None:
    damaged = real_file().replace(b"2026-02-02,", b"2026-02-xx,")
    number = 1 + damaged[: damaged.index(b"2026-02-xx")].count(b"\n")
    with pytest.raises(DataError) as error:
        parse_year_file(damaged, "here", 2026)
    assert re.search(rf"line {number}, column Date", str(error.value))


def test_year_without_sessions_is_empty() -> None:
    assert len(parse_year_file(HEADER.encode(), "here", 2026)) == 0


def test_integers_are_exact_beyond_the_precision_of_floats() -> None:
    prices = parse_year_file(real_file().replace(b"4768189155100582", b"9007199254740993"), "here", 2026)
    assert prices["market_cap"].tolist()[-1] == 9007199254740993 != int(float(9007199254740993))


def test_first_wrong_value_of_a_file_is_reported() -> None:
    lines = real_file().splitlines(keepends=True)
    lines[30] = lines[30].rpartition(b",")[0] + b"\n"
    with pytest.raises(DataError, match="line 31: 10 columns"):
        parse_year_file(b"".join(lines), "here", 2026)
    lines[20] = lines[20].replace(b"-", b"/", 1)
    with pytest.raises(DataError, match="line 21, column Date"):
        parse_year_file(b"".join(lines), "here", 2026)
    lines[9] = lines[9].replace(b",4723.1,", b",4723.1?,", 1)
    with pytest.raises(DataError, match="line 10, column Close"):
        parse_year_file(b"".join(lines), "here", 2026)


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_number_that_is_not_finite_is_rejected(number: str) -> None:
    lines = real_file().splitlines(keepends=True)
    cells = lines[1].split(b",")
    cells[3] = number.encode()
    with pytest.raises(DataError, match=f"line 2, column Comp: '{number}' is not a finite number"):
        parse_year_file(b"".join([lines[0], b",".join(cells), *lines[2:]]), "here", 2026)
