"""The program `trainer`: parses and calls."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from step_contract.cli import Parser, add_artifact_options, add_common_options, add_option, make_parser, make_result, run_step
from step_contract.result import Result

from trainer.config import DEFAULT_CONFIG, TrainingConfig, read_model_config
from trainer.model_registry import current, promote, read_entries, roll_back
from trainer.texts import LANGUAGES

TRAIN = """\
Reads every committed price partition of the symbol up to the session's day and none after it, fits the network that the
configuration names, measures it out of sample by walk-forward validation, and forecasts the next sessions from the last one.
The day itself need not be a session. Writes models/symbol=…/session=…/recipe=…/: model.safetensors, metrics.json,
forecast.json. Its state is kept in checkpoints/ while it trains: interrupted, it goes on from there, to the same bytes.
Another configuration, number of years or network is another recipe, and another model beside the first.

  trainer train --session 2026-01-15 --artifacts file:///tmp/artifacts
"""
PLOT = """\
Reads the model that was trained for the session and the last sessions' prices, and draws the forecast as one picture, with
what earlier models have forecast beside what came; before there are such, what the validation has.
Writes plots/symbol=…/session=…/recipe=…/: forecast.png. The options name the model: give those it was trained with.

  trainer plot --session 2026-01-15 --artifacts s3://market
"""
ROLLBACK = """\
Moves models/symbol=…/current.json back to the model that was current before. What was rolled back is not promoted again.

  trainer rollback --why "it follows the index down" --artifacts s3://market
"""
HISTORY = """\
Lists every promotion and roll-back with the reason, the current one marked by a star.

  trainer history --artifacts s3://market
"""


def years(text: str) -> int:
    """The number of years written as `text`; raises argparse.ArgumentTypeError when it is none from 1 to 100."""
    if not (text.isdecimal() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of years from 1 to 100")
    return int(text)


def count(text: str) -> int:
    """The number written as `text`; raises argparse.ArgumentTypeError when it is none from 1 on."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def language(text: str) -> str:
    """`text` itself if it is a language of the picture; raises argparse.ArgumentTypeError otherwise."""
    if text not in LANGUAGES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of the languages {', '.join(LANGUAGES)}")
    return text


def training_config(options: argparse.Namespace) -> TrainingConfig:
    """How the model is made that `options` ask for."""
    return TrainingConfig(read_model_config(options.model_config), options.history_years)


def train(options: argparse.Namespace) -> Result:
    """Trains the forecaster on the sessions up to the session's day."""
    from trainer.train import train

    committed = train(options.artifacts, options.symbol, options.session, training_config(options), options.checkpoint_steps)
    became = promote(options.artifacts, options.symbol, options.session, committed)
    result = make_result(committed, f"{committed.manifest.facts['in_words']} {became.capitalize()}.")
    return replace(result, facts={**result.facts, "promotion": became})


def plot(options: argparse.Namespace) -> Result:
    """Plots the forecast of the session's model."""
    from trainer.plot import plot

    made = plot(options.artifacts, options.symbol, options.session, training_config(options), options.plot_language)
    return make_result(made, "plotted")


def rollback(options: argparse.Namespace) -> Result:
    """Takes the last promotion back."""
    told = roll_back(options.artifacts, options.symbol, options.why)
    print(told)
    return Result(facts={"summary": told})


def history(options: argparse.Namespace) -> Result:
    """Lists the promotions and roll-backs."""
    moves = read_entries(options.artifacts, options.symbol)
    now = current(moves)
    for move in moves:
        mark = "*" if move == now else " "
        print(f"{mark} {move.number:>4}  {move.at}  {move.done:<11}  {move.session}  {move.model}\n        {move.why}")
    told = f"{len(moves)} moves; " + (f"the current model is that of {now.session}" if now else "no model is current")
    print(told)
    return Result(facts={"summary": told})


def build_parser() -> Parser:
    """The parser of the whole program; each step's options in one place."""
    parser, add_step = make_parser("trainer", "Trains the forecaster and plots its forecast.")

    added = add_step("train", train, "Train the forecaster on every session up to the session's day.", TRAIN)
    add_option(added, "checkpoint-steps", "steps after which the state is kept", "200", type=count, metavar="N")
    with_recipe = [added]
    added = add_step("plot", plot, "Plot the forecast of the session's model.", PLOT)
    add_option(
        added, "plot-language", f"the picture's language: {' or '.join(LANGUAGES)}", "en", type=language, metavar="LANGUAGE"
    )
    with_recipe.append(added)

    added = add_step("rollback", rollback, "Make the model before the current one the current one.", ROLLBACK)
    add_artifact_options(added)
    added.add_argument("--why", required=True, metavar="TEXT", help="why: it is kept with the roll-back")
    add_artifact_options(add_step("history", history, "List what was promoted and rolled back.", HISTORY))

    for added in with_recipe:
        add_common_options(added)
        add_option(added, "history-years", "the model sees the last N years only", type=years, metavar="N", required=False)
        add_option(added, "model-config", "TOML file that configures the model", str(DEFAULT_CONFIG), type=Path, metavar="FILE")
    return parser


def main() -> int:
    """Runs the program with this process's arguments; returns the exit code."""
    return run_step(build_parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
