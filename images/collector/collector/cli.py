"""The program `collector`: parses the options of a step and calls it.

Each step imports what it needs when it runs: a decision must not wait for the libraries of the other steps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from step_contract.checks.command import add_format, check_platform, run_checks
from step_contract.cli import (
    Parser,
    add_artifact_options,
    add_common_options,
    add_option,
    add_remake_option,
    make_parser,
    make_result,
    run_step,
)
from step_contract.facts import HeadlinesFacts, PricesFacts, SummaryFacts
from step_contract.lineage.sources import source_of_file
from step_contract.paths import parse_revision, parse_session
from step_contract.ranges import SessionOutcome, add_range_options, days_between, read_range, run_range
from step_contract.result import Result
from step_contract.schemas import MARKET_TIME_ZONE

from collector.source import PRICES_URL, remember_reads, validate_prices_url

if TYPE_CHECKING:
    from collector.exchange_calendar import MarketStatus

PACKAGE = Path(__file__).parent

DECIDE = """\
Reads the exchange's calendar and the overrides file, which takes precedence. For a past day, also checks whether the source has
a bar. The decision is open, closed or, if calendar and source contradict each other, suspect.
Writes decisions/symbol=…/session=…/state=…/. With --remake, commits the decision as its next revision. With --from and --to,
decides every day of the range; the result names the last one.

  collector decide --session 2026-03-20 --artifacts file:///tmp/artifacts
  collector decide --from 2026-03-01 --to 2026-03-31 --artifacts s3://market
"""
FETCH_PRICES = """\
Reads the source's file of the session's year, checks every row, and writes the session's bar as one Parquet partition:
prices/symbol=…/session=…/.

  collector fetch-prices --session 2026-03-20 --artifacts s3://market
  collector fetch-prices --from 2021-01-01 --to 2026-03-20 --artifacts s3://market

With --from and --to, writes every session of the range that is not committed yet. The result names the last session.

A committed session is never rewritten. If the source has corrected it, the step fails with exit code 65 and reports the
differences. Corrections of the ten sessions before it are reported only. With --accept-corrections, the source's values are
committed as the next revision, prices/symbol=…/session=…/revision=2/. Readers use the latest revision.

With --remake, the session's bar, or every bar of the range, is committed as the next revision although it may be the same. A
session that the source has corrected also needs --accept-corrections. Without --remake, a session that another version of the
program committed is returned, and the result states the command that makes it anew.
"""
FETCH_HEADLINES = """\
Reads every feed in the feeds file and writes the headlines published on the session's day in Seoul, without duplicates, as one
Parquet partition: headlines/session=…/feeds=…/.

  collector fetch-headlines --session 2026-03-20 --artifacts file:///tmp/artifacts
  collector fetch-headlines --from 2026-03-01 --to 2026-03-31 --artifacts s3://market

With --from and --to, every session of the calendar in the range; each feed is read once.

A feed holds its latest entries only. The manifest's fact availability is
  complete     every feed held the day until then; with 0 headlines, none was published
  partial      a feed could not be read, or held nothing or only the end of the day; feeds.json states why
  unavailable  no feed held the day; there is no Parquet file

Without a headline, the step fails with exit code 69 while a feed that cannot be read, or shows nothing about the day, may still
recover: until three days after the session's day.

A complete artifact is returned, unless it has 0 headlines and was made before the day was over. For any other, the feeds are
read again. If one holds more of the day than it did then, or the first headlines, the headlines of both are committed as the
next revision, headlines/session=…/feeds=…/revision=2/. Otherwise the existing artifact is returned, also if no feed can be
read.

With --remake, the feeds are read again, and what they hold now and the committed headlines are committed together as the next
revision: a headline that a feed has dropped is kept as it is.
"""
CHECK = """\
Tries what the collector's steps need, in the place where it runs: the store of the artifacts, the calendar, the price source
and the feeds. Writes nothing but an object that it removes. make doctor runs it in a pod like a step's.

  collector check --artifacts s3://market
"""


def decide(options: argparse.Namespace) -> Result:
    """Decide whether the exchange was open on the session's day, or on every day of a range."""
    if not (period := read_range(options)):
        return decide_session(options)
    first, last = end_with_final_bar(*period)
    days, remote = days_between(first, last), not options.artifacts.local
    with remember_reads():
        return run_range(options, days, decide_session, concurrent=remote, describe=describe_decisions)


def end_with_final_bar(first: date, last: date) -> tuple[date, date]:
    """Return the range up to the last day whose bar is final; its end is before its beginning if there is none."""
    from collector.exchange_calendar import bar_final_at

    now = datetime.now(MARKET_TIME_ZONE)
    last = min(last, now.date())
    while last >= first and now < bar_final_at(last):
        last -= timedelta(days=1)
    return first, last


def describe_decisions(outcomes: Sequence[SessionOutcome]) -> str:
    """Return how many days were open and closed, and which are suspect."""
    states = [(outcome.session, outcome.result.facts.get("state")) for outcome in outcomes if outcome.result]
    suspect = [str(day) for day, state in states if state == "suspect"]
    counts = [f"{sum(state == name for _, state in states)} {name}" for name in ("open", "closed")]
    shown = f"suspect: {', '.join(suspect[:10])}{' …' if len(suspect) > 10 else ''}" if suspect else ""
    return ", ".join(filter(None, (*counts, shown)))


def decide_session(options: argparse.Namespace) -> Result:
    """Decide whether the exchange was open on the session's day."""
    from collector.decide import commit_decision, make_decision
    from collector.exchange_calendar import bar_final_at, market_status, read_overrides
    from collector.source import make_source, read_year_file

    session = options.session
    status = market_status(session, read_overrides(options.overrides))
    # The clock determines only whether the source can have the bar; the decision depends on the session.
    now = datetime.now(MARKET_TIME_ZONE)
    if status.is_open and now < (final_at := bar_final_at(session)):
        status = replace(status, reason=f"{status.reason}; its bar is final from {final_at:%Y-%m-%d %H:%M}")
    print(f"{session}: {status.reason}", flush=True)
    has_bar = None
    sources = [source_of_file("overrides", options.overrides.resolve().as_uri(), options.overrides.read_bytes())]
    if session < now.date():
        from collector.year_file import list_sessions  # imports pandas, which takes longer than the rest of a decision

        url, data = read_year_file(options.prices_url, options.symbol, session.year)
        has_bar = data is not None and session in list_sessions(data, url, session.year)
        sources += [make_source(url, data)] if data is not None else []
    decision = make_decision(status, has_bar)
    committed = commit_decision(options.artifacts, options.symbol, session, decision, options.remake, sources)
    return make_result(committed, f"{decision.state}: {decision.reason}")


def fetch_prices(options: argparse.Namespace) -> Result:
    """Fetch the bar of one session, or of every session of a range."""
    from collector.exchange_calendar import check_bar_is_final, market_status, read_overrides

    overrides, now = read_overrides(options.overrides), datetime.now(MARKET_TIME_ZONE)
    if read_range(options):
        return fetch_price_range(options, partial(market_status, overrides=overrides))
    from collector.fetch_prices import fetch_session
    from collector.prices import format_corrections

    status = market_status(options.session, overrides)
    check_bar_is_final(options.session, now)
    symbol, session, remake = options.symbol, options.session, options.remake
    fetched = fetch_session(options.artifacts, options.prices_url, symbol, session, status, options.accept_corrections, remake)
    if corrected := format_corrections(symbol, fetched.corrections):
        print(corrected, file=sys.stderr)
    facts = PricesFacts.parse(fetched.committed.manifest.facts)
    facts = replace(facts, revision=parse_revision(fetched.committed.uri), corrected=corrected)
    result = make_result(fetched.committed, f"{symbol} closed at {facts.close}")
    return replace(result, facts={**result.facts, **facts.to_facts()})


def fetch_price_range(options: argparse.Namespace, status_of: Callable[[date], MarketStatus]) -> Result:
    """Fetch the bars of every session from `options.first` to `options.last` that is final."""
    from collector.fetch_prices import fetch_range, read_years

    symbol = options.symbol
    status_of(options.first)  # raises if the calendar does not cover it
    first, last = end_with_final_bar(options.first, options.last)
    years = read_years(options.prices_url, symbol, first, last) if last >= first else iter(())
    remake = options.remake
    fetched = fetch_range(options.artifacts, symbol, first, last, years, status_of, options.accept_corrections, remake)
    existing = fetched.already_committed
    summary = f"{symbol}, {first} to {last}: {fetched.committed} sessions committed, {existing} already committed"
    summary += f", {fetched.revised} revised" if fetched.revised else ""
    summary += f", {fetched.remade} made anew" if fetched.remade else ""
    last_session = parse_session(fetched.last_manifest)
    if any(status_of(last_session + timedelta(days=number + 1)).is_open for number in range((last - last_session).days)):
        summary += f"; the source ends on {last_session}"
    summary += f"; {fetched.outdated}" if fetched.outdated else ""
    print(summary)
    counts = {"committed": fetched.committed, "already_committed": existing, "revised": fetched.revised}
    counts |= {"remade": fetched.remade} if remake else {}
    return Result(fetched.last_manifest, {**SummaryFacts(summary).to_facts(), **counts})


def fetch_headlines(options: argparse.Namespace) -> Result:
    """Fetch the headlines of the session's day, or of every session of a range."""
    if not (period := read_range(options)):
        return fetch_session_headlines(options)
    from collector.exchange_calendar import market_status, read_overrides

    overrides = read_overrides(options.overrides)
    first, last = end_with_final_bar(*period)
    sessions = [day for day in days_between(first, last) if market_status(day, overrides).is_open]
    with remember_reads():
        return run_range(options, sessions, fetch_session_headlines)


def fetch_session_headlines(options: argparse.Namespace) -> Result:
    """Fetch the headlines of the session's day."""
    from collector.feeds import read_feeds
    from collector.fetch_headlines import commit_headlines

    now = datetime.now(MARKET_TIME_ZONE)
    committed = commit_headlines(options.artifacts, read_feeds(options.feeds), options.session, now, options.remake)
    return make_result(committed, HeadlinesFacts.parse(committed.manifest.facts).describe())


def check(options: argparse.Namespace) -> Result:
    """Check the store, the calendar, the price source and the feeds."""
    from step_contract.checks.store import check_store
    from step_contract.store import Store

    from collector.check import check_calendar, check_feeds, check_prices

    now, scheduled = datetime.now(MARKET_TIME_ZONE), options.scheduled == "true"
    overrides, prices_url, symbol = options.overrides, options.prices_url, options.symbol
    return run_checks(
        options,
        {
            "platform": check_platform,
            "bucket": lambda: check_store(lambda: Store(options.artifacts.root, fail_fast=True)),
            "calendar": lambda: check_calendar(overrides, now),
            "prices": lambda: check_prices(prices_url, symbol, overrides, now, scheduled),
            "feeds": lambda: check_feeds(options.feeds, now, scheduled),
        },
    )


def build_parser() -> Parser:
    """Return the parser of the program and of all its steps."""
    parser, add_step = make_parser(
        "collector", "Decides whether the exchange was open, and collects the day's prices and headlines."
    )
    price_parsers = []

    step = add_step("decide", decide, "Decide whether the exchange was open on the session's day.", DECIDE)
    add_common_options(step, session_required=False)
    add_range_options(step)
    price_parsers.append(step)

    step = add_step("fetch-prices", fetch_prices, "Fetch the session's bar of the index.", FETCH_PRICES)
    add_common_options(step, session_required=False)
    add_range_options(step)
    help = "commit values that the source has corrected as the next revision"
    step.add_argument("--accept-corrections", action="store_true", help=help)
    price_parsers.append(step)

    check_step = step = add_step("check", check, "Check what the steps need: store, calendar, source and feeds.", CHECK)
    add_artifact_options(step)
    add_format(step)
    help = "whether runs are scheduled, so that an old source is a problem"
    step.add_argument("--scheduled", choices=("true", "false"), default="true", help=help)
    add_feeds_option(step)
    price_parsers.append(step)

    for step in price_parsers:
        if step is not check_step:
            add_remake_option(step)
        help = "URL of the source's price files, with the fields {symbol} and {year}: http, https, file or s3"
        add_option(step, "prices-url", help, PRICES_URL, type=validate_prices_url)
        add_overrides_option(step)

    step = add_step("fetch-headlines", fetch_headlines, "Fetch the headlines of the session's day.", FETCH_HEADLINES)
    add_common_options(step, session_required=False)
    add_range_options(step)
    add_remake_option(step)
    add_feeds_option(step)
    add_overrides_option(step)
    return parser


def add_overrides_option(parser: Parser) -> None:
    """Add the option --overrides."""
    help, default = "CSV file of days on which the calendar is wrong", str(PACKAGE / "overrides.csv")
    add_option(parser, "overrides", help, default, type=Path, metavar="FILE")


def add_feeds_option(parser: Parser) -> None:
    """Add the option --feeds."""
    add_option(parser, "feeds", "TOML file that lists the feeds", str(PACKAGE / "feeds.toml"), type=Path, metavar="FILE")


def main() -> int:
    """Run the program with the arguments of this process; return the exit code."""
    return run_step(build_parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
