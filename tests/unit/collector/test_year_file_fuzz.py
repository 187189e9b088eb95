"""Fuzzing of the parser with damaged real files: a file is rejected, or its bars are right. CASES=20000 runs more cases."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable
from datetime import date
from functools import cache
from typing import Any

import pytest
from collector.exchange_calendar import calendar_status
from collector.fetch_prices import find_contradictions
from collector.year_file import parse_year_file
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from step_contract.errors import DataError
from step_contract.tables import to_records

from .conftest import REAL

CASES = int(os.environ.get("CASES", "300"))
YEARS = range(1999, 2027)
Damage = Callable[[bytes], bytes]
# Columns that no other column confirms: a changed digit is detected only if the value leaves its valid range.
UNVERIFIABLE = ("open", "high", "low", "volume", "amount", "market_cap")


@cache
def real_file(year: int) -> bytes:
    return (REAL / f"{year}.csv").read_bytes()


@cache
def true_bars(year: int) -> dict[date, dict[str, Any]]:
    return {bar["date"]: bar for bar in to_records(parse_year_file(real_file(year), "real", year))}


def lines_of(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


@st.composite
def bytes_changed(draw: st.DrawFn, size: int) -> Damage:
    positions = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, 255)), min_size=1, max_size=6))

    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        for position, value in positions:
            changed[position] = value
        return bytes(changed)

    return damage


@st.composite
def digits_changed(draw: st.DrawFn, size: int) -> Damage:
    start, digit, count = draw(st.tuples(st.integers(0, size - 1), st.integers(0, 9), st.integers(1, 2)))

    def damage(data: bytes) -> bytes:
        changed, remaining = bytearray(data), count
        for position in range(start, len(data)):
            if remaining and chr(changed[position]).isdigit():
                changed[position], remaining = ord("0") + digit, remaining - 1
        return bytes(changed)

    return damage


@st.composite
def piece_removed(draw: st.DrawFn, size: int) -> Damage:
    start, length = draw(st.tuples(st.integers(0, size - 1), st.integers(1, 200)))
    return lambda data: data[:start] + data[start + length :]


@st.composite
def piece_inserted(draw: st.DrawFn, size: int) -> Damage:
    start, piece = draw(
        st.tuples(st.integers(0, size), st.binary(min_size=1, max_size=40) | st.sampled_from([b",", b'"', b"\n", b"\r"]))
    )
    return lambda data: data[:start] + piece + data[start:]


def truncated(size: int) -> st.SearchStrategy[Damage]:
    return st.integers(0, size - 1).map(lambda end: lambda data: data[:end])


@st.composite
def lines_mixed(draw: st.DrawFn, size: int) -> Damage:
    first, second = draw(st.tuples(st.integers(0, 400), st.integers(0, 400)))
    operation = draw(st.sampled_from(["swap", "duplicate", "remove", "strip"]))

    def damage(data: bytes) -> bytes:
        lines = lines_of(data) or [b""]
        a, b = first % len(lines), second % len(lines)
        if operation == "swap":
            lines[a], lines[b] = lines[b], lines[a]
        elif operation == "duplicate":
            lines.insert(b, lines[a])
        elif operation == "remove":
            del lines[a]
        else:
            lines[a] = lines[a].rstrip()
        return b"".join(lines)

    return damage


@st.composite
def columns_swapped(draw: st.DrawFn, size: int) -> Damage:
    first, second, lines_changed = draw(
        st.tuples(st.integers(0, 10), st.integers(0, 10), st.sampled_from(["header", "rows", "both", "one"]))
    )
    row = draw(st.integers(1, 240))

    def damage(data: bytes) -> bytes:
        lines = data.removeprefix(codecs.BOM_UTF8).splitlines() or [b""]
        chosen = {"header": [0], "rows": range(1, len(lines)), "both": range(len(lines)), "one": [row % len(lines)]}[
            lines_changed
        ]
        for number in chosen:
            if len(cells := lines[number].split(b",")) > max(first, second):
                cells[first], cells[second] = cells[second], cells[first]
                lines[number] = b",".join(cells)
        return b"\n".join(lines) + b"\n"

    return damage


@st.composite
def damaged(draw: st.DrawFn) -> tuple[int, bytes]:
    year = draw(st.sampled_from(YEARS))
    data = real_file(year)
    kinds = [bytes_changed, digits_changed, piece_removed, piece_inserted, truncated, lines_mixed, columns_swapped]
    for damage_kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=2)):
        if data:
            data = draw(damage_kind(len(data)))(data)
    return year, data


@pytest.mark.slow
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_damaged_file_is_rejected_or_its_bars_are_right(case: tuple[int, bytes]) -> None:
    year, data = case
    try:
        bars = to_records(parse_year_file(data, "here", year))
    except DataError as error:
        assert str(error).startswith("here, line "), error
        event("rejected")
        return
    contradictions = find_contradictions({bar["date"] for bar in bars}, None, calendar_status)
    undetected = 0
    for bar in bars:
        if bar["date"] in contradictions:
            continue
        true_bar = true_bars(year)[bar["date"]]
        assert bar | {name: true_bar[name] for name in UNVERIFIABLE} == true_bar
        undetected += bar != true_bar
    days = [bar["date"] for bar in bars]
    between = {day for day in true_bars(year) if days and days[0] <= day <= days[-1]}
    assert between <= {*days, *contradictions}
    event(
        "read, with a changed value that no other column confirms"
        if undetected
        else "contradiction with the calendar"
        if contradictions
        else "read correctly"
    )
