"""The program `collector`: parses and calls."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from pathlib import Path

from step_contract.exit_codes import ConfigurationWrong
from step_contract.program import Parser, common_options, option, outcome, program, run, session_date
from step_contract.result import Result

from collector.source import PRICES_URL, checked_template

HERE = Path(__file__).parent

DECIDE = """\
Reads the exchange's calendar, then the overrides file, which knows better, then, for a day that is past, whether the source
has a bar for it. Says `open`, `closed` or, where calendar and source contradict each other, `suspect`.
Writes decisions/symbol=…/session=…/state=…/.

  collector decide --session 2026-03-20 --artifacts file:///tmp/artifacts
"""
FETCH_PRICES = """\
Reads the source's file of the session's year, checks every row of it, and writes the session's bar as one Parquet partition:
prices/symbol=…/session=…/. A session is committed once: when the source later says something else, the step refuses (65).

  collector fetch-prices --session 2026-03-20 --artifacts s3://market
  collector fetch-prices --from 2021-01-01 --to 2026-03-20 --artifacts s3://market

With --from and --to every session of the range that is not committed yet, in one process; its result names the last one.
"""
FETCH_HEADLINES = """\
Reads every feed that the feeds' file names and writes the headlines published on the session's day in Seoul, without doubles,
as one Parquet partition: headlines/session=…/feeds=…/. A feed that cannot be read is left out and named in the manifest.

  collector fetch-headlines --session 2026-03-20 --artifacts file:///tmp/artifacts
"""


def decide(options: argparse.Namespace) -> Result:
    """Decides whether the exchange was open on the session's day."""
    from collector.calendar import calendar_verdict, overrides
    from collector.decide import commit_decision, decision
    from collector.feeds import SEOUL
    from collector.source import read_year
    from collector.year_file import parse

    session, where = options.session, options.overrides
    try:
        known = overrides(where.read_text(encoding="utf-8"), str(where))
    except OSError as error:
        raise ConfigurationWrong(f"the overrides file {where} cannot be read: {error.strerror}") from error
    verdict = known.get(session) or calendar_verdict(session)
    has_bar = None
    # The clock only tells whether the source can be expected to have the bar; what is decided is about the session.
    if session < datetime.now(SEOUL).date():
        url, data = read_year(options.prices_url, options.symbol, session.year)
        has_bar = data is not None and any(bar.date == session for bar in parse(data, url, session.year))
    made = decision(verdict, has_bar)
    committed = commit_decision(options.artifacts, options.symbol, session, made)
    return outcome(committed, f"{made.state}: {made.reason}")


def fetch_prices(options: argparse.Namespace) -> Result:
    """Fetches the bar of one session, or of every session of a range."""
    from collector import prices

    if options.first or options.last:
        if not (options.first and options.last) or options.session or options.first > options.last:
            raise ConfigurationWrong("a range is --from YYYY-MM-DD --to a later YYYY-MM-DD, and without --session")
        years = prices.years_of(options.prices_url, options.symbol, options.first, options.last)
        done = prices.fetch_range(options.artifacts, options.symbol, years)
        told = (
            f"{options.symbol}, {options.first} to {options.last}: {done.committed} sessions committed, {done.there} were there"
        )
        print(told)
        return Result(done.last, {"told": told, "committed": done.committed, "there": done.there})
    if not options.session:
        raise ConfigurationWrong("name the session: --session YYYY-MM-DD, or a range: --from YYYY-MM-DD --to YYYY-MM-DD")
    one = prices.fetch(options.artifacts, options.prices_url, options.symbol, options.session)
    return outcome(one, f"{options.symbol} closed at {one.manifest.facts['close']}")


def fetch_headlines(options: argparse.Namespace) -> Result:
    """Fetches the headlines of the session's day."""
    from collector.feeds import read_feeds
    from collector.headlines import fetch

    committed = fetch(options.artifacts, read_feeds(options.feeds), options.session)
    return outcome(committed, f"{committed.manifest.rows} headlines")


def make_parser() -> Parser:
    """The parser of the whole program; each step's options in one place."""
    parser, step = program("collector", "Decides whether the exchange was open and collects the day's prices and headlines.")
    with_prices = []

    added = step("decide", decide, "Decide whether the exchange was open on the session's day.", DECIDE)
    common_options(added)
    option(
        added, "overrides", "CSV of days that the calendar has wrong", str(HERE / "overrides.csv"), type=Path, metavar="FILE"
    )
    with_prices.append(added)

    added = step("fetch-prices", fetch_prices, "Fetch the session's bar of the index.", FETCH_PRICES)
    common_options(added, session_required=False)
    added.add_argument("--from", dest="first", type=session_date, metavar="YYYY-MM-DD", help="first day of a range")
    added.add_argument("--to", dest="last", type=session_date, metavar="YYYY-MM-DD", help="last day of a range")
    with_prices.append(added)

    for added in with_prices:
        about = "the source's files: a URL with {symbol} and {year} in it, http, file or s3"
        option(added, "prices-url", about, PRICES_URL, type=checked_template)

    added = step("fetch-headlines", fetch_headlines, "Fetch the headlines of the session's day.", FETCH_HEADLINES)
    common_options(added)
    option(added, "feeds", "TOML file that names the feeds", str(HERE / "feeds.toml"), type=Path, metavar="FILE")
    return parser


def main() -> int:
    """Runs the program with this process's arguments; returns the exit code."""
    return run(make_parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
