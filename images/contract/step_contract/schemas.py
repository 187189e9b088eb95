"""The files that one step writes and another reads, and the time zone of sessions.

A table is declared here once. `tables` writes, reads and validates it by this declaration, messages and documentation state it.
Changing a file's columns requires a new schema version: raise the table's `version`, and declare what changed (`Column.since`,
`former_names`, `TableSchema.removed`), so that files of earlier versions stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from step_contract.errors import DataError

# The exchange's time zone: a session is a date in it, whatever the time zone of the machine. Stored times are UTC.
MARKET_TIME_ZONE = ZoneInfo("Asia/Seoul")

# pandas dtypes of columns, each with what its values are. Sessions have no time zone, as in exchange_calendars.
DTYPES = {
    "datetime64[us]": "a date",
    "datetime64[us, UTC]": "a time",
    "float64": "a finite number",
    "Int64": "an integer",  # nullable, unlike int64: a missing value would turn the column into floats, exact to 9e15 only
    "str": "a text",
}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name in the DataFrame and in the file.
        dtype: its dtype in the DataFrame, one of DTYPES.
        unit: the unit of its values, or how a date or a text is written.
        description: what it holds, as a phrase.
        nullable: whether values may be missing.
        gt: values must be greater than this; None for no bound.
        ge: values must be at least this; `le`: at most this.
        since: the schema version that added it. Files of earlier versions lack it: their rows have `default`, or what `derive`
            returns.
        until: the last schema version that has it, of a column in `TableSchema.removed`.
        default: the value in rows of versions that lack it; None for a missing value.
        derive: returns the values in rows of versions that lack it, from a DataFrame of all columns that the version has.
        former_names: pairs of a schema version and the name that the column had in versions before it, ascending.
    """

    name: str
    dtype: str
    unit: str
    description: str
    nullable: bool = False
    gt: int | None = None
    ge: int | None = None
    le: int | None = None
    since: int = 1
    until: int | None = None
    default: Any = None
    derive: Callable[[Any], Any] | None = None
    former_names: tuple[tuple[int, str], ...] = ()

    def name_in(self, version: int) -> str:
        """Return the column's name in files of a schema version."""
        return next((name for before, name in self.former_names if version < before), self.name)

    @property
    def requirement(self) -> str:
        """What a value must be, for messages and documentation."""
        bounds = {"greater than": self.gt, "at least": self.ge, "at most": self.le}
        stated = " and ".join(f"{words} {bound}" for words, bound in bounds.items() if bound is not None)
        return " ".join(filter(None, [DTYPES[self.dtype], stated, f"({self.unit})" if self.unit else ""]))


@dataclass(frozen=True)
class TableSchema:
    """A table that a step writes as a Parquet file.

    Attributes:
        file: the file's name.
        version: the schema version of the artifact.
        description: what a row is.
        columns: all columns in the order of the file, the index among them.
        index: the name of the column that is the DataFrame's index, ascending and unique; None for a default index.
        removed: columns that files of earlier versions have.
        oldest: the oldest schema version that is read.
        whole: the table that this is a part of (`select`); None if it is the table.
    """

    file: str
    version: int
    description: str
    columns: tuple[Column, ...]
    index: str | None = None
    removed: tuple[Column, ...] = ()
    oldest: int = 1
    whole: TableSchema | None = None

    def __post_init__(self) -> None:
        """Raise ValueError if the declaration does not say what rows of earlier versions have in a column."""
        for column in self.columns:
            known = column.nullable or column.default is not None or column.derive
            if column.since > self.version or (column.since > self.oldest and not known):
                raise ValueError(
                    f"{self.file}: the column {column.name} is of schema version {column.since}, the table of {self.version}: "
                    "raise the table's version, and make the column nullable or give it a default or a derive"
                )
        for column in self.removed:
            if column.until is None or column.until >= self.version:
                raise ValueError(
                    f"{self.file}: the removed column {column.name} is in schema versions until {column.until}, the table is "
                    f"of {self.version}: set until to the last version that has the column, and raise the table's version"
                )

    def stored_columns(self, version: int) -> dict[str, Column]:
        """Return the columns that files of a schema version have, by their names there.

        Of a part of a table these are its own columns, and all of the table's if one of its own is derived from others.
        """
        derived = any(column.derive and column.since > version for column in self.columns)
        if self.whole and derived:
            return self.whole.stored_columns(version)
        removed = [column for column in self.removed if column.since <= version <= (column.until or 0)]
        return self.shared_columns(version) | {column.name_in(version): column for column in removed}

    def shared_columns(self, version: int) -> dict[str, Column]:
        """Return the table's columns that files of a schema version have too, by their names there; no removed ones."""
        return {column.name_in(version): column for column in self.columns if column.since <= version}

    def check_version(self, version: int, where: str, command: str) -> None:
        """Raise DataError if a file of this table, in the artifact at `where`, has a schema version that cannot be read.

        `command` makes the artifact anew.
        """
        if version > self.version:
            raise DataError(
                f"{where} has schema version {version}, this program reads {self.oldest} to {self.version}: upgrade the program"
            )
        if version < self.oldest:
            raise DataError(f"{where} has schema version {version}, which is no longer read: run {command}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns in the order of the file."""
        return tuple(column.name for column in self.columns)

    def __getitem__(self, name: str) -> Column:
        return self.columns[self.names.index(name)]

    def select(self, names: Iterable[str]) -> TableSchema:
        """Return the schema of the index and the columns `names` only."""
        selected = {self.index, *names}
        columns = tuple(column for column in self.columns if column.name in selected)
        return replace(self, columns=columns, removed=(), whole=self.whole or self)


MAX_COUNT = 10**18 - 1  # fits int64; the market's capitalization in KRW has 16 digits
PRICES = TableSchema(
    file="prices.parquet",
    version=1,
    description="the bar of one session of an index; a partition has one row",
    columns=(
        Column("date", "datetime64[us]", "YYYY-MM-DD", f"the session, a date in {MARKET_TIME_ZONE.key}"),
        Column("open", "float64", "index points", "the first value of the index", gt=0),
        Column("high", "float64", "index points", "the highest value", gt=0),
        Column("low", "float64", "index points", "the lowest value", gt=0),
        Column("close", "float64", "index points", "the last value", gt=0),
        Column("change", "float64", "ratio", "close over the previous session's close, less 1", nullable=True),
        Column("volume", "Int64", "shares", "the shares traded", nullable=True, ge=0, le=MAX_COUNT),
        Column("amount", "Int64", "KRW", "the turnover", nullable=True, ge=0, le=MAX_COUNT),
        Column("market_cap", "Int64", "KRW", "the market capitalization", nullable=True, ge=0, le=MAX_COUNT),
    ),
    index="date",
)

# The source rounds closes to two decimals (index points) and changes to four.
CLOSE_STEP, CHANGE_STEP = 0.01, 0.0001

HEADLINES = TableSchema(
    file="headlines.parquet",
    version=1,
    description="a headline that was published on the session's day; ordered by time of publication",
    columns=(
        Column("published", "datetime64[us, UTC]", "UTC", "the time of publication"),
        Column("feed", "str", "", "the feed's name in the configuration"),
        Column("title", "str", "", "one line of plain text"),
        Column("link", "str", "", "an http or https URL, or empty"),
    ),
)
# Beside it: how far each feed reached back. A partition of unavailable headlines has this file only.
FEEDS_FILE = "feeds.json"

# The files of an issued forecast: forecast.json as a model's, without out_of_sample and with its source; scores.parquet;
# performance.json: trainer.daily_forecast.performance.Performance.
ISSUED_FORECAST_VERSION = 1
SCORES = TableSchema(
    file="scores.parquet",
    version=ISSUED_FORECAST_VERSION,
    description="an outcome that is known by the session, of a forecast that was issued before; ordered by origin and horizon",
    columns=(
        Column("origin", "datetime64[us]", "YYYY-MM-DD", "the session that was forecast from"),
        Column("horizon", "Int64", "sessions", "how far ahead the forecast looked", ge=1),
        Column("session", "datetime64[us]", "YYYY-MM-DD", "the session of the outcome"),
        Column("source", "str", "", "the path of the model's manifest, or `baseline: ` and its name"),
        Column("interval", "float64", "ratio", "the nominal coverage of the interval", gt=0, le=1),
        Column("last_close", "float64", "index points", "the close of the origin when the forecast was issued", gt=0),
        Column("low", "float64", "index points", "the interval's lower end", ge=0),
        Column("middle", "float64", "index points", "the forecast", ge=0),
        Column("high", "float64", "index points", "the interval's upper end", ge=0),
        Column("outcome", "float64", "index points", "the close that followed", gt=0),
        Column("covered", "Int64", "0 or 1", "whether the outcome is within the interval", ge=0, le=1),
        Column("absolute_error", "float64", "log return", "of the forecast", ge=0),
        Column("absolute_error_naive", "float64", "log return", "of the naive forecast, the last close", ge=0),
        Column(
            "interval_score", "float64", "log return", "the interval's width and the penalty of a miss; less is better", ge=0
        ),
        Column("quantile_loss", "float64", "log return", "the mean pinball loss of low, middle and high", ge=0),
    ),
)
PERFORMANCE_FILE = "performance.json"

TABLES = (PRICES, HEADLINES, SCORES)

MODEL_FILE = "model.safetensors"
METRICS_FILE = "metrics.json"
FORECAST_FILE = "forecast.json"
CALIBRATION_FILE = "calibration.json"
# forecast.json: low, middle and high of each horizon as log return and in index points, from last_close on last_session;
# low_raw and high_raw are those before calibration, which version 2 has as low and high; out_of_sample: what the last
# validation folds forecast, in the same form. metrics.json: trainer.evaluation.Evaluation. calibration.json:
# trainer.calibration.Calibration.
MODEL_VERSION = 3
FORECAST_VERSIONS = (2, MODEL_VERSION)  # models whose forecast.json a plot of a later session can show

PLOT_FILE = "forecast.png"
PLOT_VERSION = 1

# The years of datetime.date begin with 1.
ISO_DATE = re.compile(r"(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}")


def parse_iso_date(text: str) -> date:
    """Return the date written as YYYY-MM-DD. Raises ValueError for anything else, other forms of ISO 8601 included."""
    return date.fromisoformat(text if ISO_DATE.fullmatch(text) else "")
