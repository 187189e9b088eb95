"""The real files, damaged at random: what is read is right, or the file is refused. CASES=20000 tries more."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import cache

import pytest
from collector.bar_checks import Bar
from collector.exchange_calendar import calendar_status
from collector.fetch_prices import find_contradictions
from collector.year_file import parse_year_file
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from step_contract.errors import DataError

from .conftest import REAL

CASES = int(os.environ.get("CASES", "300"))
YEARS = range(1999, 2027)
Damage = Callable[[bytes], bytes]
# Of these the source says nothing twice: a digit of theirs that another takes the place of can only be seen where it leaves
# what a day can hold.
SAID_ONCE = ("open", "high", "low", "volume", "amount", "market_cap")


@cache
def real(year: int) -> bytes:
    return (REAL / f"{year}.csv").read_bytes()


@cache
def right(year: int) -> dict[date, Bar]:
    return {bar.date: bar for bar in parse_year_file(real(year), "real", year)}


def lines_of(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


@st.composite
def bytes_changed(draw: st.DrawFn, size: int) -> Damage:
    places = draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, 255)), min_size=1, max_size=6))

    def damage(data: bytes) -> bytes:
        changed = bytearray(data)
        for place, value in places:
            changed[place] = value
        return bytes(changed)

    return damage


@st.composite
def digits_changed(draw: st.DrawFn, size: int) -> Damage:
    start, digit, count = draw(st.tuples(st.integers(0, size - 1), st.integers(0, 9), st.integers(1, 2)))

    def damage(data: bytes) -> bytes:
        changed, left = bytearray(data), count
        for place in range(start, len(data)):
            if left and chr(changed[place]).isdigit():
                changed[place], left = ord("0") + digit, left - 1
        return bytes(changed)

    return damage


@st.composite
def piece_taken(draw: st.DrawFn, size: int) -> Damage:
    start, length = draw(st.tuples(st.integers(0, size - 1), st.integers(1, 200)))
    return lambda data: data[:start] + data[start + length :]


@st.composite
def piece_put(draw: st.DrawFn, size: int) -> Damage:
    start, piece = draw(
        st.tuples(st.integers(0, size), st.binary(min_size=1, max_size=40) | st.sampled_from([b",", b'"', b"\n", b"\r"]))
    )
    return lambda data: data[:start] + piece + data[start:]


def cut(size: int) -> st.SearchStrategy[Damage]:
    return st.integers(0, size - 1).map(lambda end: lambda data: data[:end])


@st.composite
def lines_mixed(draw: st.DrawFn, size: int) -> Damage:
    one, other = draw(st.tuples(st.integers(0, 400), st.integers(0, 400)))
    how = draw(st.sampled_from(["swapped", "doubled", "taken", "ends"]))

    def damage(data: bytes) -> bytes:
        lines = lines_of(data) or [b""]
        a, b = one % len(lines), other % len(lines)
        if how == "swapped":
            lines[a], lines[b] = lines[b], lines[a]
        elif how == "doubled":
            lines.insert(b, lines[a])
        elif how == "taken":
            del lines[a]
        else:
            lines[a] = lines[a].rstrip()
        return b"".join(lines)

    return damage


@st.composite
def columns_swapped(draw: st.DrawFn, size: int) -> Damage:
    one, other, header = draw(
        st.tuples(st.integers(0, 10), st.integers(0, 10), st.sampled_from(["header", "rows", "both", "one"]))
    )
    at = draw(st.integers(1, 240))

    def damage(data: bytes) -> bytes:
        lines = data.removeprefix(codecs.BOM_UTF8).splitlines() or [b""]
        chosen = {"header": [0], "rows": range(1, len(lines)), "both": range(len(lines)), "one": [at % len(lines)]}[header]
        for number in chosen:
            if len(cells := lines[number].split(b",")) > max(one, other):
                cells[one], cells[other] = cells[other], cells[one]
                lines[number] = b",".join(cells)
        return b"\n".join(lines) + b"\n"

    return damage


@st.composite
def damaged(draw: st.DrawFn) -> tuple[int, bytes]:
    year = draw(st.sampled_from(YEARS))
    data = real(year)
    kinds = [bytes_changed, digits_changed, piece_taken, piece_put, cut, lines_mixed, columns_swapped]
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=2)):
        if data:
            data = draw(kind(len(data)))(data)
    return year, data


@pytest.mark.slow
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_of_a_damaged_file_every_row_that_is_taken_is_right_or_the_file_is_refused(case: tuple[int, bytes]) -> None:
    year, data = case
    try:
        bars = parse_year_file(data, "here", year)
    except DataError as refused:
        assert str(refused).startswith("here, line "), refused
        event("refused")
        return
    suspect = find_contradictions({bar.date for bar in bars}, None, calendar_status)
    unseen = 0
    for bar in bars:
        if bar.date in suspect:
            continue
        truth = right(year)[bar.date]
        same = {name: getattr(truth, name) for name in SAID_ONCE}
        assert replace(bar, **same) == truth
        unseen += bar != truth
    days = [bar.date for bar in bars]
    between = {day for day in right(year) if days and days[0] <= day <= days[-1]}
    assert between <= {*days, *suspect}
    event(
        "read, with a figure that only the source knows changed"
        if unseen
        else "a day found suspect"
        if suspect
        else "read right"
    )
