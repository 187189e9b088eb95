"""Tables as pandas.DataFrames: made, validated, written to Parquet and read from it as `schemas` declares them.

Imports pandas and arro3, which the images of collector and trainer have and Airflow's has not: nothing else in this package
imports this module.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import arro3.core as arrow
import numpy as np
import numpy.typing as npt
import pandas as pd
from arro3.io import read_parquet, write_parquet

from step_contract.errors import DataError
from step_contract.schemas import Column, TableSchema

_ARROW_TYPES = {
    "datetime64[us]": arrow.DataType.date32(),
    "datetime64[us, UTC]": arrow.DataType.timestamp("us", tz="UTC"),
    "float64": arrow.DataType.float64(),
    "Int64": arrow.DataType.int64(),
    "str": arrow.DataType.string(),
}
SMALL_BYTES, MAX_SMALL_FILES = 16 * 2**10, 4096  # of files whose content is kept: ten years of prices
_MICROSECONDS_PER_DAY = 86_400_000_000


def make_table(schema: TableSchema, values: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Return the table of `values` by column, None where one is missing, with the schema's dtypes and index."""
    columns = {column.name: pd.Series(values[column.name], dtype=column.dtype) for column in schema.columns}
    table = pd.DataFrame(columns)
    return table.set_index(schema.index) if schema.index else table


def _to_columns(table: pd.DataFrame, schema: TableSchema) -> pd.DataFrame:
    """Return the table with its index as a column."""
    return table.reset_index() if schema.index else table


def find_invalid(values: pd.Series, column: Column) -> npt.NDArray[np.bool_]:
    """Return which of `values`, which have the column's dtype, are not what `column` requires, shape (values,)."""
    missing: npt.NDArray[np.bool_] = values.isna().to_numpy()
    wrong = np.zeros(len(values), dtype=bool)
    if column.dtype in ("float64", "Int64"):
        numbers = values.to_numpy() if column.dtype == "float64" else values.to_numpy(dtype="int64", na_value=0)
        wrong |= np.isinf(numbers)
        for bound, is_beyond in ((column.gt, np.less_equal), (column.ge, np.less), (column.le, np.greater)):
            if bound is not None:
                wrong |= is_beyond(numbers, bound)
        wrong &= ~missing
    return wrong if column.nullable else wrong | missing


def check_table(table: pd.DataFrame, schema: TableSchema) -> None:
    """Raise DataError if the table has not the schema's columns, dtypes and index, or has an invalid value.

    A step calls it before it writes a table, so that nothing is committed that no reader accepts.
    """
    columns = _to_columns(table, schema)
    dtypes = {name: str(dtype) for name, dtype in columns.dtypes.items()}
    expected = {column.name: column.dtype for column in schema.columns}
    problem = f"its columns are {dtypes}, expected {expected}" if list(dtypes.items()) != list(expected.items()) else ""
    if not problem and schema.index and not (table.index.is_unique and table.index.is_monotonic_increasing):
        problem = f"{schema.index} does not ascend, or a value occurs twice"
    if not problem and (invalid := _find_first_invalid(columns, schema)):
        problem = f"row {invalid.row}: {invalid.problem}"
    if problem:
        raise DataError(f"the table {schema.file} cannot be written: {problem}; this is a bug in the step's code")


class _Invalid(NamedTuple):
    """The position of the first row with an invalid value, and the problem."""

    row: int
    problem: str


def _find_first_invalid(columns: pd.DataFrame, schema: TableSchema) -> _Invalid | None:
    """Return the first invalid value of the table, whose index is a column; None if all are valid."""
    wrong = np.column_stack([find_invalid(columns[column.name], column) for column in schema.columns])
    if not wrong.any():
        return None
    row, position = (int(number) for number in np.argwhere(wrong)[0])  # in the order of rows
    name = schema.columns[position].name
    value = _to_python(columns[name].iloc[[row]])[0]
    return _Invalid(row, f"invalid {name} {value}: must be {schema.columns[position].requirement}")


def _to_python(values: pd.Series) -> list[Any]:
    """Return the values as Python's date, datetime, float, int and str; None where one is missing."""
    if str(values.dtype) == "datetime64[us]":
        items = values.dt.date.tolist()
    elif str(values.dtype).startswith("datetime64"):
        items = values.dt.to_pydatetime().tolist()
    else:
        items = values.tolist()
    return [None if missing else item for item, missing in zip(items, values.isna(), strict=True)]


def to_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return each row with its index as Python values by column: date, datetime, float, int and str; None for missing ones."""
    columns = table.reset_index() if table.index.name else table
    values = [_to_python(columns[name]) for name in columns]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _to_arrow(table: pd.DataFrame, schema: TableSchema) -> arrow.Table:
    check_table(table, schema)
    columns = _to_columns(table, schema)
    fields = [arrow.Field(column.name, _ARROW_TYPES[column.dtype]) for column in schema.columns]
    arrays = [_to_arrow_array(columns[field.name], field.type) for field in fields]
    return arrow.Table.from_arrays(arrays, schema=arrow.Schema(fields))


def _to_arrow_array(values: pd.Series, type: arrow.DataType) -> arrow.Array:
    if not str(values.dtype).startswith("datetime64"):
        return arrow.Array(_to_python(values), type)
    microseconds = values.astype("int64")
    if type == _ARROW_TYPES["datetime64[us]"]:
        return arrow.Array((microseconds // _MICROSECONDS_PER_DAY).tolist(), arrow.DataType.int32()).cast(type)
    return arrow.Array(microseconds.tolist(), arrow.DataType.int64()).cast(type)


def _write(table: arrow.Table) -> bytes:
    buffer = io.BytesIO()
    write_parquet(table, buffer)
    return buffer.getvalue()


def to_parquet(table: pd.DataFrame, schema: TableSchema) -> bytes:
    """Return the table as a Parquet file; equal tables give equal bytes. Raises DataError as `check_table` does."""
    return _write(_to_arrow(table, schema))


def rows_to_parquet(table: pd.DataFrame, schema: TableSchema) -> list[bytes]:
    """Return each row of the table as a Parquet file of its own; a row's bytes do not depend on the others.

    Raises DataError as `check_table` does.
    """
    whole = _to_arrow(table, schema)
    return [_write(whole.slice(row, 1)) for row in range(len(table))]


class ReadRows(NamedTuple):
    """The rows of some files as one table, and the file of each row."""

    table: pd.DataFrame
    files: list[str]


def read_rows(files: Mapping[str, bytes], schema: TableSchema, versions: Mapping[str, int] | None = None) -> ReadRows:
    """Return the rows of all `files`, by URI, in their order, with the columns of the current schema version.

    A column that a file's version lacks has what its declaration states for such rows. A column that the file should have and
    lacks is missing in its rows if it is nullable. Columns that are not of the schema are ignored.

    Args:
        files: the files' content by URI.
        schema: the table, or a part of it (`TableSchema.select`).
        versions: the schema version of each file, from its manifest; without one, the current version.

    Raises:
        DataError: a file is not Parquet, a required column is missing or has another type, a value is invalid, or the version
            is unknown; the message names the file and the column.
    """
    uris = list(files)
    positions: dict[int, list[int]] = {}
    for position, uri in enumerate(uris):
        positions.setdefault((versions or {}).get(uri, schema.version), []).append(position)
    parts = []
    for version, selected in (positions or {schema.version: []}).items():
        table, counts = _read_version({uris[position]: files[uris[position]] for position in selected}, schema, version)
        parts.append(table.set_axis(np.repeat(np.array(selected, dtype=int), counts)))
    columns = pd.concat(parts).sort_index(kind="stable")
    sources = [uris[position] for position in columns.index]
    columns = columns.reset_index(drop=True)
    if invalid := _find_first_invalid(columns, schema):
        raise DataError(f"{sources[invalid.row]}: {invalid.problem}; check the source of the step that wrote it")
    return ReadRows(columns.set_index(schema.index) if schema.index else columns, sources)


def _read_version(files: Mapping[str, bytes], schema: TableSchema, version: int) -> tuple[pd.DataFrame, list[int]]:
    """Return the rows of the files of one schema version, the index as a column, and the number of rows of each file."""
    for uri in list(files)[:1]:
        schema.check_version(version, uri, "the step that wrote it with --remake REASON")
    stored = schema.stored_columns(version)
    values: dict[str, list[Any]] = {name: [] for name in stored}
    named = [replace(column, name=name) for name, column in stored.items()]
    counts = []
    for uri, data in files.items():
        content = _read(data, uri)
        counts.append(content.num_rows)
        for column in named:
            values[column.name] += _read_column(content, column, uri)
    table = pd.DataFrame({column.name: pd.Series(values[name], dtype=column.dtype) for name, column in stored.items()})
    # By the version, not by the name: a removed column may have the name of one that has replaced it.
    added = {column.name: _fill_column(column, table) for column in schema.columns if column.since > version}
    return table.assign(**added)[list(schema.names)], counts


def _fill_column(column: Column, table: pd.DataFrame) -> pd.Series:
    """Return a column that the rows of `table`, of an earlier schema version, lack."""
    filled = column.derive(table) if column.derive else [column.default] * len(table)
    return pd.Series(filled, table.index, dtype=column.dtype)


@lru_cache(maxsize=MAX_SMALL_FILES)
def _read_small(data: bytes) -> arrow.Table:
    return read_parquet(io.BytesIO(data)).read_all()


def _read(data: bytes, uri: str) -> arrow.Table:
    try:
        # For each session of a range, the history is nearly the same.
        return _read_small(data) if len(data) <= SMALL_BYTES else read_parquet(io.BytesIO(data)).read_all()
    except BaseException as error:
        # A panic of the Rust library is no Exception, and its class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{uri} is not a Parquet file: {str(error)[:200]}; run its step again with --remake REASON") from None


def _read_column(content: arrow.Table, column: Column, uri: str) -> list[Any]:
    if column.name not in content.column_names:
        if column.nullable:
            return [None] * content.num_rows
        found = ", ".join(content.column_names)
        raise DataError(f"{uri} has no column {column.name}, only {found}: run its step again with --remake REASON")
    type, expected = content.schema.field(column.name).type, _ARROW_TYPES[column.dtype]
    if type != expected:
        found, required = (str(type).strip().partition("<")[2].removesuffix(">") for type in (type, expected))
        raise DataError(
            f"{uri}: column {column.name} has type {found}, expected {required}: run its step again with --remake REASON"
        )
    return _to_values(content.column(column.name), uri, column.name)


def _to_values(values: arrow.ChunkedArray, uri: str, name: str) -> list[Any]:
    try:
        return list(values.to_pylist())
    except (ValueError, OverflowError) as error:  # a date before the year 1 or after 9999
        raise DataError(
            f"{uri}: column {name} has a value that cannot be read: {error}; run its step again with --remake REASON"
        ) from None


def read_any_version(data: bytes, uri: str) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file by column, whatever columns it has. Raises DataError if it is not Parquet."""
    content = _read(data, uri)
    values = [_to_values(content.column(name), uri, name) for name in content.column_names]
    return [dict(zip(content.column_names, row, strict=True)) for row in zip(*values, strict=True)]
