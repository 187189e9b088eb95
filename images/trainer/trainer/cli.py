"""The program `trainer`: parses and calls."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from step_contract.program import Parser, common_options, option, outcome, program, run
from step_contract.result import Result

from trainer.configuration import DEFAULT, read_configuration
from trainer.recipe import Recipe

TRAIN = """\
Reads every committed price partition of the symbol up to the session's day and none after it, fits the network that the
configuration names, measures it out of sample by walk-forward validation, and forecasts the next sessions from the last one.
The day itself need not be a session. Writes models/symbol=…/session=…/recipe=…/: model.safetensors, metrics.json,
forecast.json. Another configuration, number of years or network is another recipe, and another model beside the first.

  trainer train --session 2026-01-15 --artifacts file:///tmp/artifacts
"""
PLOT = """\
Reads the model that was trained for the session and the last sessions' prices, and draws the forecast as one picture.
Writes plots/symbol=…/session=…/recipe=…/: forecast.png. The options name the model: give those it was trained with.

  trainer plot --session 2026-01-15 --artifacts s3://market
"""


def years(text: str) -> int:
    """The number of years written as `text`; raises argparse.ArgumentTypeError when it is none from 1 to 100."""
    if not (text.isdecimal() and 1 <= int(text) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of years from 1 to 100")
    return int(text)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """How the model is made that `options` ask for."""
    return Recipe(read_configuration(options.model_config), options.history_years)


def train(options: argparse.Namespace) -> Result:
    """Trains the forecaster on the sessions up to the session's day."""
    from trainer.train import train

    committed = train(options.artifacts, options.symbol, options.session, recipe_of(options))
    return outcome(committed, str(committed.manifest.facts["in_words"]))


def plot(options: argparse.Namespace) -> Result:
    """Plots the forecast of the session's model."""
    from trainer.plot import plot

    return outcome(plot(options.artifacts, options.symbol, options.session, recipe_of(options)), "plotted")


def make_parser() -> Parser:
    """The parser of the whole program; each step's options in one place."""
    parser, step = program("trainer", "Trains the forecaster and plots its forecast.")

    added = step("train", train, "Train the forecaster on every session up to the session's day.", TRAIN)
    with_recipe = [added]
    added = step("plot", plot, "Plot the forecast of the session's model.", PLOT)
    with_recipe.append(added)

    for added in with_recipe:
        common_options(added)
        option(added, "history-years", "the model sees the last N years only", type=years, metavar="N", required=False)
        option(added, "model-config", "TOML file that configures the model", str(DEFAULT), type=Path, metavar="FILE")
    return parser


def main() -> int:
    """Runs the program with this process's arguments; returns the exit code."""
    return run(make_parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
