"""Tables: the schema decides what is written, read and rejected."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import arro3.core as arrow
import numpy as np
import pandas as pd
import pytest
from arro3.io import write_parquet
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from step_contract.errors import DataError
from step_contract.schemas import DTYPES, HEADLINES, MAX_COUNT, PRICES, TABLES, Column, TableSchema
from step_contract.tables import check_table, make_table, read_any_version, read_rows, rows_to_parquet, to_parquet, to_records

# Written by version 1.0.0, which had no DataFrames.
VERSION_1 = Path(__file__).with_name("version_1")
BAR = {
    "date": date(2026, 3, 20),
    "open": 5813.35,
    "high": 5833.68,
    "low": 5764.64,
    "close": 5781.2,
    "change": 0.0031,
    "volume": 1490805229,
    "amount": 34025853798776,
    "market_cap": 4768189155100582,
}


def make_prices(*rows: dict[str, Any]) -> pd.DataFrame:
    return make_table(PRICES, {name: [row[name] for row in rows] for name in PRICES.names})


def read_one(data: bytes, schema: TableSchema = PRICES) -> pd.DataFrame:
    return read_rows({"s3://bucket/prices.parquet": data}, schema).table


@pytest.mark.parametrize("schema", TABLES, ids=lambda schema: schema.file)
def test_every_declared_column_can_be_written_and_read(schema: TableSchema) -> None:
    assert {column.dtype for column in schema.columns} <= DTYPES.keys() and all(column.description for column in schema.columns)
    table = make_table(schema, dict.fromkeys(schema.names, ()))
    assert_frame_equal(read_one(to_parquet(table, schema), schema), table)


def test_files_of_version_1_are_read() -> None:
    assert to_records(read_one((VERSION_1 / "prices.parquet").read_bytes())) == [BAR]
    [bar] = to_records(read_one((VERSION_1 / "prices_with_missing_values.parquet").read_bytes()))
    assert bar == dict.fromkeys(PRICES.names) | {
        "date": date(1995, 5, 2),
        "open": 896.0,
        "high": 906.04,
        "low": 890.0,
        "close": 906.04,
    }
    at = datetime(2026, 3, 20, 1, 2, 3, 456789, tzinfo=UTC)
    headlines = to_records(read_one((VERSION_1 / "headlines.parquet").read_bytes(), HEADLINES))
    assert [tuple(row.values()) for row in headlines] == [
        (at, "mine", "코스피 상승", ""),
        (at, "mine", "코스닥", "https://news.example/1"),
    ]
    assert read_one((VERSION_1 / "no_headlines.parquet").read_bytes(), HEADLINES).empty


PRICE = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)
CHANGE = st.none() | st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.none() | st.integers(0, MAX_COUNT)


@given(st.lists(st.tuples(*[PRICE] * 4, CHANGE, *[COUNT] * 3), max_size=4))
def test_tables_are_read_as_they_were_written(rows: list[tuple[Any, ...]]) -> None:
    days = [date(2026, 1, 5) + timedelta(days=number) for number in range(len(rows))]
    records = [dict(zip(PRICES.names, (day, *row), strict=True)) for day, row in zip(days, rows, strict=True)]
    table = make_prices(*records)
    data = to_parquet(table, PRICES)
    assert to_records(read_one(data)) == records
    assert_frame_equal(read_one(data), table)
    assert to_parquet(make_prices(*records), PRICES) == data
    files = rows_to_parquet(table, PRICES)
    assert files == [to_parquet(make_prices(record), PRICES) for record in records]
    assert_frame_equal(read_rows({str(number): file for number, file in enumerate(files)}, PRICES).table, table)


def test_integers_beyond_the_precision_of_floats_are_exact_beside_missing_ones() -> None:
    table = make_prices(BAR | {"market_cap": 2**53 + 1}, BAR | {"date": date(2026, 3, 23), "market_cap": None})
    assert to_records(read_one(to_parquet(table, PRICES)))[0]["market_cap"] == 2**53 + 1


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        pytest.param(lambda table: table.drop(columns="amount"), "its columns are", id="a missing column"),
        pytest.param(lambda table: table.assign(more=1), "its columns are", id="an additional column"),
        pytest.param(lambda table: table[table.columns[::-1]], "its columns are", id="another order"),
        pytest.param(lambda table: table.astype({"market_cap": "float64"}), "'market_cap': 'float64'", id="integers as floats"),
        pytest.param(lambda table: table.reset_index(drop=True), "its columns are", id="no sessions"),
        pytest.param(lambda table: table[::-1], "date does not ascend", id="descending sessions"),
        pytest.param(lambda table: table.iloc[[0, 0]], "a value occurs twice", id="a session twice"),
        pytest.param(
            lambda table: table.assign(close=[1.0, 0.0]),
            r"row 1: invalid close 0.0: must be a finite number greater than 0 \(index points\)",
            id="a price of 0",
        ),
        pytest.param(lambda table: table.assign(low=np.inf), "row 0: invalid low inf", id="an infinite price"),
        pytest.param(lambda table: table.assign(open=np.nan), "row 0: invalid open None", id="a missing price"),
        pytest.param(
            lambda table: table.assign(volume=pd.array([1, -1], "Int64")),
            r"row 1: invalid volume -1: must be an integer at least 0 and at most 999999999999999999 \(shares\)",
            id="a negative count",
        ),
    ],
)
def test_table_that_does_not_match_its_schema_is_not_written(
    damage: Callable[[pd.DataFrame], pd.DataFrame], problem: str
) -> None:
    table = make_prices(BAR, BAR | {"date": date(2026, 3, 23)})
    check_table(table, PRICES)
    for write in (to_parquet, rows_to_parquet):
        with pytest.raises(DataError, match=problem) as error:
            write(damage(table), PRICES)
        assert str(error.value).startswith("the table prices.parquet cannot be written: ")


def without(name: str) -> TableSchema:
    return PRICES.select([column for column in PRICES.names if column != name])


def test_column_that_an_older_file_lacks_is_missing() -> None:
    older = to_parquet(make_prices(BAR).drop(columns="volume"), without("volume"))
    assert to_records(read_one(older)) == [BAR | {"volume": None}]
    assert read_any_version(older, "here") == [{name: value for name, value in BAR.items() if name != "volume"}]


def test_columns_that_are_not_asked_for_are_ignored() -> None:
    table = read_one(to_parquet(make_prices(BAR), PRICES), PRICES.select(["close"]))
    assert to_records(table) == [{"date": BAR["date"], "close": BAR["close"]}]


def make_file_with(name: str, value: float) -> bytes:
    """Return a file that a writer without these checks could have made."""
    loose = TableSchema("loose.parquet", 1, "", tuple(Column(c.name, c.dtype, "", "", nullable=True) for c in PRICES.columns))
    return to_parquet(make_prices(BAR).assign(**{name: value}).reset_index(), loose)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(lambda: b"", "is not a Parquet file", id="empty"),
        pytest.param(lambda: b"PAR1 PAR1", "is not a Parquet file", id="another format"),
        pytest.param(lambda: to_parquet(make_prices(BAR), PRICES)[:-20], "is not a Parquet file", id="truncated"),
        pytest.param(
            lambda: to_parquet(make_prices(BAR).drop(columns="close"), without("close")),
            "has no column close, only date, open",
            id="a missing column",
        ),
        pytest.param(
            lambda: make_file_with("close", -1.0), r"invalid close -1\.0: must be a finite number", id="a negative price"
        ),
        pytest.param(lambda: make_file_with("high", np.nan), "invalid high None", id="a missing price"),
    ],
)
def test_invalid_file_is_rejected_by_name(data: Callable[[], bytes], problem: str) -> None:
    files = {"s3://bucket/valid": to_parquet(make_prices(BAR), PRICES), "s3://bucket/invalid": data()}
    with pytest.raises(DataError, match=problem) as error:
        read_rows(files, PRICES)
    assert str(error.value).startswith("s3://bucket/invalid")


def test_a_date_that_no_calendar_has_is_rejected_by_name() -> None:
    days = arrow.Array([2_932_897], arrow.DataType.int32()).cast(arrow.DataType.date32())  # 1 January 10000
    table = arrow.Table.from_arrays([days, arrow.Array([5781.2], arrow.DataType.float64())], names=["date", "close"])
    buffer = io.BytesIO()
    write_parquet(table, buffer)
    for read in (
        lambda: read_one(buffer.getvalue(), PRICES.select(["close"])),
        lambda: read_any_version(buffer.getvalue(), ""),
    ):
        with pytest.raises(DataError, match="column date has a value that cannot be read: year 10000"):
            read()


def test_column_of_another_type_is_rejected_by_name() -> None:
    texts = TableSchema("texts.parquet", 1, "", (PRICES["date"], Column("close", "str", "", "")), index="date")
    table = make_table(texts, {"date": [BAR["date"]], "close": ["5781.2"]})
    with pytest.raises(DataError, match="here: column close has type Utf8, expected Float64: run"):
        read_rows({"here": to_parquet(table, texts)}, PRICES.select(["close"]))


RANGE = Column("range", "float64", "index points", "high less low", nullable=True, since=2)


def with_history(*columns: Column, removed: tuple[Column, ...] = (), version: int = 2, oldest: int = 1) -> TableSchema:
    """Return a later version of PRICES with `columns` in the place of those of the same name, or added."""
    kept = {column.name: column for column in PRICES.columns if column.name not in {gone.name for gone in removed}}
    kept |= {column.name: column for column in columns}
    return TableSchema("prices.parquet", version, "", tuple(kept.values()), "date", removed, oldest)


def read_old_and_new(schema: TableSchema, new: dict[str, Any], only: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return the rows of a file of version 1 and, before it, one of `schema`'s version."""
    files = {
        "new": to_parquet(make_table(schema, {name: [new[name]] for name in schema.names}), schema),
        "old": to_parquet(make_prices(BAR), PRICES),
    }
    selected = schema.select(only) if only else schema
    table, sources = read_rows(files, selected, {"new": schema.version, "old": 1})
    assert sources == ["new", "old"]
    return to_records(table)


NEXT = BAR | {"date": date(2026, 3, 23), "range": 9.5}


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        pytest.param(RANGE, None, id="missing"),
        pytest.param(replace(RANGE, nullable=False, default=1.5), 1.5, id="a default"),
        pytest.param(
            replace(RANGE, nullable=False, derive=lambda prices: prices["high"] - prices["low"]),
            pytest.approx(69.04),
            id="derived from the version's columns",
        ),
    ],
)
@pytest.mark.parametrize("only", [(), ("range",)])
def test_an_added_column_has_what_is_declared_for_older_rows(column: Column, expected: object, only: tuple[str, ...]) -> None:
    rows = read_old_and_new(with_history(column), NEXT, only)
    assert [row["range"] for row in rows] == [9.5, expected]
    assert len(rows[0]) == (2 if only else 10)


def test_a_renamed_column_is_read_by_its_former_name() -> None:
    renamed = replace(PRICES["amount"], name="turnover", former_names=((2, "amount"),))
    schema = replace(PRICES, version=2, columns=tuple(renamed if c.name == "amount" else c for c in PRICES.columns))
    rows = read_old_and_new(schema, NEXT | {"turnover": 7})
    assert [row["turnover"] for row in rows] == [7, BAR["amount"]]


def test_a_removed_column_can_still_be_derived_from() -> None:
    gone = replace(PRICES["market_cap"], until=1)
    share = Column("share", "float64", "ratio", "", since=2, derive=lambda prices: prices["amount"] / prices["market_cap"])
    rows = read_old_and_new(with_history(share, removed=(gone,)), NEXT | {"share": 0.5})
    assert [row["share"] for row in rows] == [0.5, BAR["amount"] / BAR["market_cap"]]  # type: ignore[operator]
    assert "market_cap" not in rows[0]


@pytest.mark.parametrize("only", [(), ("volume",)])
def test_a_column_of_another_dtype_and_unit_is_derived_from_the_one_that_it_replaces(only: tuple[str, ...]) -> None:
    gone = replace(PRICES["volume"], until=1)
    millions = Column("volume", "float64", "millions", "", nullable=True, since=2, derive=lambda prices: prices["volume"] / 1e6)
    schema = with_history(millions, removed=(gone,))
    rows = read_old_and_new(schema, NEXT | {"volume": 2.5}, only)
    assert [row["volume"] for row in rows] == [2.5, BAR["volume"] / 1e6]  # type: ignore[operator]
    missing = to_parquet(make_prices(BAR | {"volume": None}), PRICES)
    assert to_records(read_rows({"old": missing}, schema, {"old": 1}).table)[0]["volume"] is None
    assert schema.shared_columns(1).keys() == PRICES.shared_columns(1).keys() - {"volume"}, "they cannot be compared"


def test_a_removed_column_must_state_the_last_version_that_has_it() -> None:
    for until in (None, 2):
        with pytest.raises(ValueError, match=f"market_cap is in schema versions until {until}, the table is of 2: set until"):
            with_history(removed=(replace(PRICES["market_cap"], until=until),))


@pytest.mark.parametrize(
    ("version", "problem"),
    [
        (3, "old has schema version 3, this program reads 2 to 2: upgrade the program"),
        (1, "old has schema version 1, which is no"),
    ],
)
def test_a_version_that_cannot_be_read_is_refused_with_advice(version: int, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_rows({"old": to_parquet(make_prices(BAR), PRICES)}, with_history(RANGE, oldest=2), {"old": version})


def test_an_added_column_must_state_what_older_rows_have() -> None:
    with pytest.raises(ValueError, match="make the column nullable or give it a default or a derive"):
        with_history(replace(RANGE, nullable=False))
    with pytest.raises(ValueError, match="raise the table's version"):
        with_history(RANGE, version=1)
