"""The program `collector`: parses and calls."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from step_contract.cli import Parser, add_common_options, add_option, make_parser, make_result, run_step, session_date
from step_contract.errors import ConfigurationError
from step_contract.paths import parse_session
from step_contract.result import Result

from collector.source import PRICES_URL, validate_prices_url

if TYPE_CHECKING:
    from collector.exchange_calendar import MarketStatus

PACKAGE = Path(__file__).parent

DECIDE = """\
Reads the exchange's calendar, then the overrides file, which knows better, then, for a day that is past, whether the source
has a bar for it. Says `open`, `closed` or, where calendar and source contradict each other, `suspect`.
Writes decisions/symbol=…/session=…/state=…/.

  collector decide --session 2026-03-20 --artifacts file:///tmp/artifacts
"""
FETCH_PRICES = """\
Reads the source's file of the session's year, checks every row of it, and writes the session's bar as one Parquet partition:
prices/symbol=…/session=…/. A session is committed once: when the source later says something else, the step tells and refuses
(65), and tells of the ten sessions before it too. --accept-corrections commits what the source says now as a revision beside the
first: prices/symbol=…/session=…/revision=2/, which is read from then on.

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
    from collector.calendar_cache import SEOUL
    from collector.decide import commit_decision, make_decision
    from collector.exchange_calendar import bar_final_at, market_status, read_overrides
    from collector.source import read_year_file
    from collector.year_file import parse_year_file

    session = options.session
    verdict = market_status(session, read_overrides(options.overrides))
    # The clock only tells whether the source can be expected to have the bar; what is decided is about the session.
    now = datetime.now(SEOUL)
    if verdict.is_open and now < bar_final_at(session):
        verdict = replace(verdict, reason=f"{verdict.reason}, whose bar is final from {bar_final_at(session):%Y-%m-%d %H:%M}")
    print(f"{session}: {verdict.reason}", flush=True)
    has_bar = None
    if session < now.date():
        url, data = read_year_file(options.prices_url, options.symbol, session.year)
        has_bar = data is not None and any(bar.date == session for bar in parse_year_file(data, url, session.year))
    made = make_decision(verdict, has_bar)
    committed = commit_decision(options.artifacts, options.symbol, session, made)
    return make_result(committed, f"{made.state}: {made.reason}")


def fetch_prices(options: argparse.Namespace) -> Result:
    """Fetches the bar of one session, or of every session of a range."""
    from collector.calendar_cache import SEOUL
    from collector.exchange_calendar import check_bar_is_final, market_status, read_overrides

    known, now = read_overrides(options.overrides), datetime.now(SEOUL)
    if options.first or options.last:
        if not (options.first and options.last) or options.session or options.first > options.last:
            raise ConfigurationError("a range is --from YYYY-MM-DD --to a later YYYY-MM-DD, and without --session")
        return fetch_price_range(options, partial(market_status, known=known), now)
    if not options.session:
        raise ConfigurationError("name the session: --session YYYY-MM-DD, or a range: --from YYYY-MM-DD --to YYYY-MM-DD")
    from collector.fetch_prices import fetch_session
    from collector.prices import format_corrections

    verdict = market_status(options.session, known)
    check_bar_is_final(options.session, now)
    done = fetch_session(
        options.artifacts, options.prices_url, options.symbol, options.session, verdict, options.accept_corrections
    )
    result = make_result(done.committed, f"{options.symbol} closed at {done.committed.manifest.facts['close']}")
    if corrected := format_corrections(options.symbol, done.corrections):
        print(corrected, file=sys.stderr)
        result = replace(result, facts={**result.facts, "corrected": corrected})
    return result


def fetch_price_range(options: argparse.Namespace, market_status: Callable[[date], MarketStatus], now: datetime) -> Result:
    """Fetches the bars of every session from `options.first` to `options.last` that is final."""
    from collector.exchange_calendar import bar_final_at
    from collector.fetch_prices import fetch_range, read_years

    symbol, first, last = options.symbol, options.first, min(options.last, now.date())
    market_status(first)  # the calendar must reach it
    while last >= first and now < bar_final_at(last):
        last -= timedelta(days=1)
    years = read_years(options.prices_url, symbol, first, last) if last >= first else iter(())
    done = fetch_range(options.artifacts, symbol, first, last, years, market_status, options.accept_corrections)
    summary = f"{symbol}, {first} to {last}: {done.committed} sessions committed, {done.already_committed} were there"
    summary += f", {done.revised} revised" if done.revised else ""
    ends = parse_session(done.last)
    if any(market_status(ends + timedelta(days=number + 1)).is_open for number in range((last - ends).days)):
        summary += f"; the source ends with {ends}"
    print(summary)
    return Result(
        done.last, {"summary": summary, "committed": done.committed, "there": done.already_committed, "revised": done.revised}
    )


def fetch_headlines(options: argparse.Namespace) -> Result:
    """Fetches the headlines of the session's day."""
    from collector.feeds import read_feeds
    from collector.fetch_headlines import fetch_session

    committed = fetch_session(options.artifacts, read_feeds(options.feeds), options.session)
    return make_result(committed, f"{committed.manifest.rows} headlines")


def build_parser() -> Parser:
    """The parser of the whole program; each step's options in one place."""
    parser, add_step = make_parser(
        "collector", "Decides whether the exchange was open and collects the day's prices and headlines."
    )
    with_prices = []

    added = add_step("decide", decide, "Decide whether the exchange was open on the session's day.", DECIDE)
    add_common_options(added)
    with_prices.append(added)

    added = add_step("fetch-prices", fetch_prices, "Fetch the session's bar of the index.", FETCH_PRICES)
    add_common_options(added, session_required=False)
    added.add_argument("--from", dest="first", type=session_date, metavar="YYYY-MM-DD", help="first day of a range")
    added.add_argument("--to", dest="last", type=session_date, metavar="YYYY-MM-DD", help="last day of a range")
    help = "commit what the source has corrected as a revision beside what is committed"
    added.add_argument("--accept-corrections", action="store_true", help=help)
    with_prices.append(added)

    for added in with_prices:
        about = "the source's files: a URL with {symbol} and {year} in it, http, file or s3"
        add_option(added, "prices-url", about, PRICES_URL, type=validate_prices_url)
        about, default = "CSV of days that the calendar has wrong", str(PACKAGE / "overrides.csv")
        add_option(added, "overrides", about, default, type=Path, metavar="FILE")

    added = add_step("fetch-headlines", fetch_headlines, "Fetch the headlines of the session's day.", FETCH_HEADLINES)
    add_common_options(added)
    add_option(added, "feeds", "TOML file that names the feeds", str(PACKAGE / "feeds.toml"), type=Path, metavar="FILE")
    return parser


def main() -> int:
    """Runs the program with this process's arguments; returns the exit code."""
    return run_step(build_parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
