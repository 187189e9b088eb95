"""The program `trainer`: parse the options and call the step."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

from step_contract import paths
from step_contract.checks.command import add_format, check_platform, run_checks
from step_contract.cli import (
    Parser,
    add_artifact_options,
    add_common_options,
    add_option,
    add_reference_option,
    add_remake_option,
    make_parser,
    make_result,
    run_step,
)
from step_contract.errors import ConfigurationError, DataError
from step_contract.facts import ForecastFacts, SummaryFacts, TrainingFacts
from step_contract.lineage.references import open_reference
from step_contract.paths import parse_revision
from step_contract.ranges import add_range_options, days_between, read_range, run_range
from step_contract.result import Result
from step_contract.revisions import Revision, parse_as_of, parse_reason
from step_contract.schemas import MARKET_TIME_ZONE
from step_contract.store import CachingStore
from step_contract.training_days import DEFAULT_TRAINING_DAYS, is_training_day, parse_training_days

from trainer.config import DEFAULT_CONFIG, TrainingConfig, read_model_config
from trainer.model_registry import current_entry, describe_current, promote, read_entries, reject_pinned, roll_back
from trainer.texts import LANGUAGES

TRAIN = """\
Reads every committed price partition of the symbol up to and including --session, which need not be a trading day. Fits the
network that the configuration names, and evaluates it out of sample by walk-forward validation. Forecasts from the last
session, with a prediction interval that is calibrated on the validation's outcomes. A model with a significant improvement
over the naive and drift forecasts becomes the current model, unless a model of a later session was trained.
Writes models/symbol=…/session=…/config=…/: model.safetensors, metrics.json, forecast.json, calibration.json. Checkpoints are
saved below checkpoints/; an interrupted training resumes from the last one, and the result is byte-identical.
A different configuration or --history-years creates a separate model; the first is kept.

If the latest model of the session was trained on another history, because sessions were added or revised, the new one is its
next revision: models/symbol=…/session=…/config=…/revision=2/. So it is with --remake, although the history may be the same.
With --prices, the history ends with that revision of a session's prices, although there may be a later one; the sessions
before are their latest revisions. With --as-of, the model is trained on the prices as they were committed by then, is stored
apart, and is never promoted.

With --from and --to, a model of each training day of the range, in order; so `plot`, and `forecast` for each collected session.

  trainer train --session 2026-01-15 --artifacts file:///tmp/artifacts
  trainer train --from 2026-01-01 --to 2026-03-20 --artifacts s3://market
  trainer train --session 2026-01-15 --artifacts s3://market --prices s3://market/prices/symbol=KS11/session=…/manifest.json
  trainer train --session 2026-01-15 --as-of 2026-01-15T18:30:00+09:00 --artifacts file:///tmp/artifacts
"""
PLOT = """\
Reads the model that --model names, by default the one of the session that was committed last, whatever its configuration, and
the prices of the last sessions that it was trained on. Plots the forecast with the forecasts that were issued before, or the
validation forecasts if there are none.
Writes plots/symbol=…/session=…/config=…/: forecast.png. If the model or the prices have changed, and with --remake, the plot is
the next revision. With --as-of, it is made from the models and the issued forecasts as they were committed by then.

  trainer plot --session 2026-01-15 --artifacts s3://market
  trainer plot --session 2026-01-15 --artifacts s3://market --model s3://market/models/symbol=KS11/…/manifest.json
"""
FORECAST = """\
Forecasts from the close of --session with the model that was current when it closed, a model of an earlier session, and its
calibration with all outcomes known by then; without a usable model with the better of the naive and the drift forecast.
Scores the forecasts that were issued before and whose outcome is known, and tests them for drift.
Writes forecasts/symbol=…/session=…/: forecast.json, scores.parquet, performance.json. A forecast is issued once: a later run
returns it, even if prices or the current model have changed. With --remake, another is computed and stored as the next
revision, with the reason; what was issued remains revision 1, and only that is scored, plotted, and returned without --remake.
With --prices, the session's close is that of this revision; the sessions before are their latest revisions.

  trainer forecast --session 2026-01-15 --artifacts s3://market
"""
ROLLBACK = """\
Moves models/symbol=…/current.json back to the previous current model. A model that was rolled back is not promoted again.

  trainer rollback --reason "follows the index down" --artifacts s3://market
"""
HISTORY = """\
Lists every promotion and every rollback with its reason; an asterisk marks the current model.

  trainer history --artifacts s3://market
"""
CHECK = """\
Tries what the trainer's steps need, in the place where it runs: the store of the artifacts, and PyTorch, with which it computes
something small. Writes nothing but an object that it removes. make doctor runs it in a pod like a step's.

  trainer check --artifacts s3://market
"""


def history_years(text: str) -> int:
    """Parse a number of years. Raises argparse.ArgumentTypeError unless it is from 1 to 100."""
    if not (text.isdecimal() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"invalid number of years {text!r}: use 1 to 100")
    return int(text)


def positive_integer(text: str) -> int:
    """Parse an integer. Raises argparse.ArgumentTypeError unless it is at least 1."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"invalid number {text!r}: use an integer of at least 1")
    return int(text)


def language(text: str) -> str:
    """Return `text` if it is a language of the plot. Raises argparse.ArgumentTypeError otherwise."""
    if text not in LANGUAGES:
        raise argparse.ArgumentTypeError(f"invalid language {text!r}: must be one of {', '.join(LANGUAGES)}")
    return text


def training_days(text: str) -> tuple[str, ...]:
    """Return the days that `text` lists. Raises argparse.ArgumentTypeError if one is invalid."""
    try:
        return parse_training_days(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def rollback_reason(text: str) -> str:
    """Return the reason of a rollback. Raises argparse.ArgumentTypeError if it is empty or invalid."""
    if reason := parse_reason(text):
        return reason
    raise argparse.ArgumentTypeError("the reason is empty: state why the model is rolled back")


def read_training_config(options: argparse.Namespace) -> TrainingConfig:
    """Return the training configuration that the options describe."""
    return TrainingConfig(read_model_config(options.model_config), options.history_years, options.as_of)


def open_given(options: argparse.Namespace, option: str, kind: str) -> Revision | None:
    """Return the artifact that the option names; None if it is not given.

    Raises:
        ConfigurationError: the URI names something else than it must, or --as-of is given too.
        DataError: the artifact is missing or damaged.
    """
    uri = getattr(options, option)
    if not uri:
        return None
    if getattr(options, "as_of", None):
        raise ConfigurationError(f"--as-of and --{option} exclude each other: both select what is read; use one of them")
    return open_reference(options.artifacts, uri, option, kind, options.symbol, options.session)


def list_training_days(options: argparse.Namespace) -> list[date]:
    """Return the training days of the range that have begun."""
    today = datetime.now(MARKET_TIME_ZONE).date()
    days = days_between(options.first, min(options.last, today)) if options.first <= today else []
    return [day for day in days if is_training_day(day, options.training_days)]


def list_collected_sessions(options: argparse.Namespace) -> list[date]:
    """Return the sessions of the range whose prices are committed.

    Raises DataError if sessions are missing between the range and those before it: a forecast is issued once, and these would
    be made from a history with a hole, for example because the month before has failed.
    """
    from trainer.dataset import MAX_SESSION_GAP_DAYS

    collected = list(paths.session_revisions(options.artifacts.list(paths.prices_root(options.symbol))))
    sessions = [day for day in collected if options.first <= day <= options.last]
    before = [day for day in collected if day < options.first]
    if sessions and before and (sessions[0] - before[-1]).days > MAX_SESSION_GAP_DAYS:
        raise DataError(
            f"sessions of {options.symbol} are missing between {before[-1]} and {sessions[0]}: collect them first with "
            f"collector fetch-prices --symbol {options.symbol} --from {before[-1]} --to {sessions[0]}"
        )
    return sessions


def run_sessions(
    options: argparse.Namespace,
    run: Callable[[argparse.Namespace], Result],
    list_sessions: Callable[[argparse.Namespace], list[date]],
) -> Result:
    """Run the step for the session that the options name, or in order for those of a range that `list_sessions` returns.

    Raises ConfigurationError if an option of one session is combined with a range.
    """
    if not read_range(options):
        return run(options)
    for name in ("prices", "model", "as_of"):
        if getattr(options, name, None):
            raise ConfigurationError(f"--{name.replace('_', '-')} is of one session: use it with --session instead of a range")
    prices = paths.prices_root(options.symbol)
    options.artifacts = CachingStore(options.artifacts.root, listed_once=[prices])
    return run_range(options, list_sessions(options), run)


def train(options: argparse.Namespace) -> Result:
    """Train the forecaster, and promote the model if its improvement is significant."""
    return run_sessions(options, train_session, list_training_days)


def train_session(options: argparse.Namespace) -> Result:
    """Train the session's model, and promote it if its improvement is significant."""
    from trainer.train import train

    prices = open_given(options, "prices", "prices")
    store, symbol, session, config = options.artifacts, options.symbol, options.session, read_training_config(options)
    committed = train(store, symbol, session, config, options.checkpoint_steps, options.remake, prices)
    promotion = reject_pinned(store, symbol, options.as_of) if options.as_of else promote(store, symbol, session, committed)
    facts = replace(TrainingFacts.parse(committed.manifest.facts), promotion=promotion.outcome.value)
    result = make_result(committed, f"{facts.evaluation} {promotion.explanation}")
    return replace(result, facts={**result.facts, **facts.to_facts()})


def plot(options: argparse.Namespace) -> Result:
    """Plot the forecast of the session's model."""
    return run_sessions(options, plot_session, list_training_days)


def plot_session(options: argparse.Namespace) -> Result:
    """Plot the forecast of the session's model."""
    from trainer.plot import find_latest_model, plot

    store, symbol, session, as_of = options.artifacts, options.symbol, options.session, options.as_of
    model = open_given(options, "model", "models") or find_latest_model(store, symbol, session, as_of)
    committed = plot(store, symbol, session, model, options.plot_language, options.remake, as_of)
    return make_result(committed, "plotted")


def forecast(options: argparse.Namespace) -> Result:
    """Issue the session's forecast, and score earlier ones."""
    return run_sessions(options, forecast_session, list_collected_sessions)


def forecast_session(options: argparse.Namespace) -> Result:
    """Issue the session's forecast, and score earlier ones."""
    from trainer.daily_forecast.report import summarize_forecast
    from trainer.daily_forecast.step import issue_forecast

    prices = open_given(options, "prices", "prices")
    config = read_model_config(options.model_config)
    committed = issue_forecast(options.artifacts, options.symbol, options.session, config, options.remake, prices)
    facts = replace(ForecastFacts.parse(committed.manifest.facts), revision=parse_revision(committed.uri))
    result = make_result(committed, summarize_forecast(facts))
    return replace(result, facts={**result.facts, **facts.to_facts()})


def rollback(options: argparse.Namespace) -> Result:
    """Roll back the current model."""
    summary = roll_back(options.artifacts, options.symbol, options.reason)
    print(summary)
    return Result(facts=SummaryFacts(summary).to_facts())


def history(options: argparse.Namespace) -> Result:
    """List the promotions and rollbacks."""
    entries = read_entries(options.artifacts, options.symbol)
    current = current_entry(entries)
    for entry in entries:
        mark = "*" if entry == current else " "
        print(f"{mark} {entry.number:>4}  {entry.time}  {entry.action:<11}  {entry.session}  {entry.model}")
        print(f"        {entry.reason}")
    summary = f"{len(entries)} entries; {describe_current(entries)}"
    print(summary)
    return Result(facts=SummaryFacts(summary).to_facts())


def check(options: argparse.Namespace) -> Result:
    """Check the store and PyTorch."""
    from step_contract.checks.store import check_store
    from step_contract.store import Store

    from trainer.check import check_torch

    checks = {
        "platform": check_platform,
        "bucket": lambda: check_store(lambda: Store(options.artifacts.root, fail_fast=True)),
        "torch": check_torch,
    }
    return run_checks(options, checks)


def build_parser() -> Parser:
    """Return the program's parser with the options of each step."""
    parser, add_step = make_parser("trainer", "Train the forecaster and plot its forecasts.")

    train_parser = add_step("train", train, "Train the forecaster on every session up to a day.", TRAIN)
    steps_help = "steps between two checkpoints"
    add_option(train_parser, "checkpoint-steps", steps_help, "200", type=positive_integer, metavar="N")

    plot_parser = add_step("plot", plot, "Plot the forecast of the session's model.", PLOT)
    language_help = f"the language of the plot: {' or '.join(LANGUAGES)}"
    add_option(plot_parser, "plot-language", language_help, "en", type=language, metavar="LANGUAGE")

    forecast_parser = add_step("forecast", forecast, "Issue the forecast of an open session.", FORECAST)

    rollback_parser = add_step("rollback", rollback, "Roll back the current model to the previous one.", ROLLBACK)
    add_artifact_options(rollback_parser)
    reason_help = "the reason, stored in the model registry"
    rollback_parser.add_argument("--reason", required=True, type=rollback_reason, metavar="TEXT", help=reason_help)
    add_artifact_options(add_step("history", history, "List promotions and rollbacks.", HISTORY))

    check_parser = add_step("check", check, "Check what the steps need: store and PyTorch.", CHECK)
    add_artifact_options(check_parser)
    add_format(check_parser)

    for step_parser in (train_parser, plot_parser, forecast_parser):
        add_common_options(step_parser, session_required=False)
        add_range_options(step_parser)
        add_remake_option(step_parser)
    for step_parser in (train_parser, plot_parser):
        days_help = "the days of a range on which a model is trained: days of the month, weekdays (mon to sun) or last"
        add_option(step_parser, "training-days", days_help, DEFAULT_TRAINING_DAYS, type=training_days, metavar="DAYS")
        as_of_help = "read only revisions that were committed by this time, to reproduce a past result"
        add_option(step_parser, "as-of", as_of_help, type=parse_as_of, required=False, metavar="TIME")
    for step_parser in (train_parser, forecast_parser):
        config_help = "TOML file with the model's configuration"
        add_option(step_parser, "model-config", config_help, str(DEFAULT_CONFIG), type=Path, metavar="FILE")
    years_help = "train on the last N years only"
    add_option(train_parser, "history-years", years_help, type=history_years, metavar="N", required=False)
    prices_help = "manifest of the prices of the last session to train on, instead of the latest revision"
    add_reference_option(train_parser, "prices", prices_help)
    add_reference_option(forecast_parser, "prices", "manifest of the session's prices, instead of the latest revision")
    add_reference_option(plot_parser, "model", "manifest of the model, instead of the session's latest one")
    return parser


def main() -> int:
    """Run the program with this process's arguments; return the exit code."""
    return run_step(build_parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
