"""Measure the collector: a range of sessions compared with plain pandas, and the time to a decision.

Runs in the virtual environment collector-bench, which has pyarrow for pandas. See `make bench`.
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
from collector.exchange_calendar import market_status, read_overrides
from collector.fetch_prices import fetch_range, read_years
from devtools import container_images
from devtools.commands import ROOT
from step_contract.store import Store

SAMPLE = ROOT / "data" / "krx" / "index"
TEMPLATE = f"file://{SAMPLE}/year_{{symbol}}/{{year}}.csv"
OVERRIDES = ROOT / "images" / "collector" / "collector" / "overrides.csv"
SYMBOL, SESSION = "KS11", "2026-03-20"
# 250 sessions, and all sessions of the sample.
SHORT = (date(2025, 3, 12), date(2026, 3, 20))
LONG = (date(1995, 5, 2), date(2026, 3, 20))
ROUNDS = 5


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder that is deleted after the block."""
    path = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def fetch_with_collector(target: Path, first: date, last: date) -> int:
    """Fetch the range into `target` with the collector; return the number of sessions."""
    known = read_overrides(OVERRIDES)
    years = read_years(TEMPLATE, SYMBOL, first, last)
    return fetch_range(Store(f"file://{target}"), SYMBOL, first, last, years, lambda day: market_status(day, known)).committed


def fetch_with_pandas(target: Path, first: date, last: date) -> int:
    """Read the same files and write the same rows with pandas, one file per session, without checks; return their number."""
    count = 0
    for year in range(first.year, last.year + 1):
        table = pd.read_csv(SAMPLE / f"year_{SYMBOL.lower()}" / f"{year}.csv", encoding="utf-8-sig", parse_dates=["Date"])
        table = table[(table["Date"] >= str(first)) & (table["Date"] <= str(last))]
        for number in range(len(table)):
            row = table.iloc[[number]]
            partition = target / f"session={row['Date'].iloc[0]:%Y-%m-%d}"
            partition.mkdir()
            row.to_parquet(partition / "prices.parquet", index=False)
            count += 1
    return count


def measure(fetch: Callable[[Path, date, date], int], first: date, last: date) -> tuple[float, int]:
    """Return the duration of `fetch` for the range in seconds, and the number of sessions."""
    with temporary_folder() as target:
        started = time.perf_counter()
        count = fetch(target, first, last)
        return time.perf_counter() - started, count


def measure_ranges() -> None:
    """Print the ratio of a range's duration to plain pandas', and of a session's duration in a long range to a short one's."""
    for fetch in (fetch_with_collector, fetch_with_pandas):
        measure(fetch, *SHORT)
    pairs = [(measure(fetch_with_collector, *SHORT), measure(fetch_with_pandas, *SHORT)) for _ in range(ROUNDS)]
    count = pairs[0][0][1]
    ours, theirs = (statistics.median(pair[which][0] for pair in pairs) for which in (0, 1))
    ratio = statistics.median(collector[0] / pandas[0] for collector, pandas in pairs)
    print(f"{count} sessions: collector {ours:.2f} s, plain pandas {theirs:.2f} s, {ratio:.2f} times as long (at most 1.5)")
    long = [(measure(fetch_with_collector, *LONG), measure(fetch_with_pandas, *LONG)) for _ in range(2)]
    many = long[0][0][1]
    ours, theirs = (min(pair[which][0] for pair in long) for which in (0, 1))
    growth = min(pair[0][0] for pair in long) / many / (min(pair[0][0] for pair in pairs) / count)
    print(f"{many} sessions: collector {ours:.1f} s, plain pandas {theirs:.1f} s, {ours / theirs:.2f} times as long; ", end="")
    print(f"a session costs {growth:.2f} times what it does among {count}")


def measure_command(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Return the seconds that `command` takes, the start of its process included."""
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    duration = time.perf_counter() - started
    if done.returncode or SESSION not in done.stdout:
        sys.exit(f"unexpected output of {' '.join(command)}: {done.stdout!r}")
    return duration


def measure_decisions() -> None:
    """Print the time of a decision about a past day, as a process, and as a container if the image exists.

    Of a past day, because `decide` then also reads the source's file, for which it imports pandas.
    """
    step = ["decide", "--session", SESSION, "--artifacts"]
    # The images have all bytecode, the environment has pandas'; PYTHONDONTWRITEBYTECODE may forbid to write the rest.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with temporary_folder() as target:
        program = str(ROOT / ".venvs" / "collector" / "bin" / "collector")
        command = [program, *step, f"file://{target}", "--prices-url", TEMPLATE]
        measure_command(command, environment)
        seconds = statistics.median(measure_command(command, environment) for _ in range(ROUNDS))
        print(f"decide about a past day, as a process: {seconds:.2f} s (at most 1.0)")
    name = container_images.name_of("collector")
    if not shutil.which("docker") or not container_images.find_id(name):
        print(f"decide in a container: not measured, image {name} not found (run make images)")
        return
    url = "file:///sample/krx/index/year_{symbol}/{year}.csv"
    container = ["docker", "run", "--rm", "--network=none", "--tmpfs=/artifacts:mode=1777", name]
    command = [*container, *step, "file:///artifacts", "--prices-url", url]
    bare = ["docker", "run", "--rm", "--network=none", "--entrypoint=python3", name, "-c", f"print('{SESSION}')"]
    measure_command(command)
    pairs = [(measure_command(command), measure_command(bare)) for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(pair[which] for pair in pairs) for which in (0, 1))
    print(f"decide about a past day, as a container: {ours:.2f} s; one that only prints: {theirs:.2f} s")


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    measure_decisions()
    measure_ranges()
