"""What the collector costs: a range of sessions beside plain pandas, and the time to a decision.

Runs in the environment collector-bench: the collector's, and pyarrow for pandas. See `make bench`.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pandas as pd
from collector.calendar import read_overrides, verdict_of
from collector.price_range import fetch_range, years_of
from devtools import container_images
from step_contract.store import Store

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "krx" / "index"
TEMPLATE = f"file://{SAMPLE}/year_{{symbol}}/{{year}}.csv"
OVERRIDES = ROOT / "images" / "collector" / "collector" / "overrides.csv"
SYMBOL, SESSION = "KS11", "2026-03-20"
# 250 sessions, and all there are.
SHORT = (date(2025, 3, 12), date(2026, 3, 20))
LONG = (date(1995, 5, 2), date(2026, 3, 20))
ROUNDS = 5


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for the while."""
    path = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def with_collector(into: Path, first: date, last: date) -> int:
    """Fetches the range into `into`; returns the number of sessions."""
    known = read_overrides(OVERRIDES)
    years = years_of(TEMPLATE, SYMBOL, first, last)
    return fetch_range(Store(f"file://{into}"), SYMBOL, first, last, years, lambda day: verdict_of(day, known)).committed


def with_pandas(into: Path, first: date, last: date) -> int:
    """Reads the same files and writes the same rows, one file a session, unchecked; returns their number."""
    count = 0
    for year in range(first.year, last.year + 1):
        table = pd.read_csv(SAMPLE / f"year_{SYMBOL.lower()}" / f"{year}.csv", encoding="utf-8-sig", parse_dates=["Date"])
        table = table[(table["Date"] >= str(first)) & (table["Date"] <= str(last))]
        for number in range(len(table)):
            row = table.iloc[[number]]
            place = into / f"session={row['Date'].iloc[0]:%Y-%m-%d}"
            place.mkdir()
            row.to_parquet(place / "prices.parquet", index=False)
            count += 1
    return count


def seconds(what: Callable[[Path, date, date], int], first: date, last: date) -> tuple[float, int]:
    """How long `what` takes for the range, and for how many sessions."""
    with folder() as into:
        started = time.perf_counter()
        count = what(into, first, last)
        return time.perf_counter() - started, count


def ranges() -> None:
    """Prints what a range costs beside plain pandas, and what many sessions cost beside few."""
    for what in (with_collector, with_pandas):
        seconds(what, *SHORT)
    pairs = [(seconds(with_collector, *SHORT), seconds(with_pandas, *SHORT)) for _ in range(ROUNDS)]
    count = pairs[0][0][1]
    ours, theirs = (statistics.median(pair[which][0] for pair in pairs) for which in (0, 1))
    ratio = statistics.median(one[0] / other[0] for one, other in pairs)
    print(f"{count} sessions: collector {ours:.2f} s, plain pandas {theirs:.2f} s, {ratio:.2f} times as long (at most 1.5)")
    long = [(seconds(with_collector, *LONG), seconds(with_pandas, *LONG)) for _ in range(2)]
    many = long[0][0][1]
    ours, theirs = (min(pair[which][0] for pair in long) for which in (0, 1))
    growth = min(pair[0][0] for pair in long) / many / (min(pair[0][0] for pair in pairs) / count)
    print(f"{many} sessions: collector {ours:.1f} s, plain pandas {theirs:.1f} s, {ours / theirs:.2f} times as long; ", end="")
    print(f"a session costs {growth:.2f} times what it does among {count}")


def first_line(command: list[str]) -> float:
    """Seconds from the start of `command` to the first line it prints."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        line = process.stdout.readline() if process.stdout else ""
        taken = time.perf_counter() - started
    if SESSION not in line:
        sys.exit(f"{' '.join(command)} said {line!r}")
    return taken


def decisions() -> None:
    """Prints how long a decision takes from the start of its process, and of its container where there is an image."""
    with folder() as into:
        python = [str(ROOT / ".venvs" / "collector" / "bin" / "collector")]
        step = ["decide", "--session", SESSION, "--artifacts"]
        command = [*python, *step, f"file://{into}", "--prices-url", TEMPLATE]
        first_line(command)
        print(f"decide, process to its first line: {statistics.median(first_line(command) for _ in range(ROUNDS)):.2f} s")
    name = container_images.name_of("collector")
    if not shutil.which("docker") or not container_images.id_of(name):
        print(f"decide in a container: not measured, there is no image {name} here (make images)")
        return
    url = "file:///sample/krx/index/year_{symbol}/{year}.csv"
    container = ["docker", "run", "--rm", "--network=none", "--tmpfs=/artifacts:mode=1777", name]
    command = [*container, *step, "file:///artifacts", "--prices-url", url]
    bare = ["docker", "run", "--rm", "--network=none", "--entrypoint=python3", name, "-c", f"print('{SESSION}')"]
    first_line(command)
    pairs = [(first_line(command), first_line(bare)) for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(pair[which] for pair in pairs) for which in (0, 1))
    print(f"decide, container to its first line: {ours:.2f} s (at most 1.0); one that only prints: {theirs:.2f} s")


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    decisions()
    ranges()
