"""The program `trainer`: parse the options and call the step."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from step_contract.cli import Parser, add_artifact_options, add_common_options, add_option, make_parser, make_result, run_step
from step_contract.result import Result

from trainer.config import DEFAULT_CONFIG, TrainingConfig, read_model_config
from trainer.model_registry import current_entry, describe_current, promote, read_entries, roll_back
from trainer.texts import LANGUAGES

TRAIN = """\
Reads every committed price partition of the symbol up to and including --session, which need not be a session, fits the
network that the configuration names, evaluates it out of sample by walk-forward validation, and forecasts from the last
session. A model with a significant improvement over the naive and drift forecasts becomes the current model.
Writes models/symbol=…/session=…/config=…/: model.safetensors, metrics.json, forecast.json. Checkpoints are saved below
checkpoints/; an interrupted training resumes from the last one, and the result is byte-identical.
Another configuration or --history-years gives another model beside the first.

  trainer train --session 2026-01-15 --artifacts file:///tmp/artifacts
"""
PLOT = """\
Reads the model of the session and the prices of the last sessions, and plots the forecast with the forecasts of earlier
models, or the validation forecasts if there are none.
Writes plots/symbol=…/session=…/config=…/: forecast.png. Use the --history-years and --model-config of the training.

  trainer plot --session 2026-01-15 --artifacts s3://market
"""
ROLLBACK = """\
Moves models/symbol=…/current.json back to the previous current model. A model that was rolled back is not promoted again.

  trainer rollback --reason "follows the index down" --artifacts s3://market
"""
HISTORY = """\
Lists every promotion and every rollback with its reason; an asterisk marks the current model.

  trainer history --artifacts s3://market
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


def read_training_config(options: argparse.Namespace) -> TrainingConfig:
    """Return the training configuration that the options describe."""
    return TrainingConfig(read_model_config(options.model_config), options.history_years)


def train(options: argparse.Namespace) -> Result:
    """Train the forecaster, and promote the model if its improvement is significant."""
    from trainer.train import train

    config = read_training_config(options)
    committed = train(options.artifacts, options.symbol, options.session, config, options.checkpoint_steps)
    promotion = promote(options.artifacts, options.symbol, options.session, committed)
    result = make_result(committed, f"{committed.manifest.facts['evaluation']} {promotion.explanation}")
    return replace(result, facts={**result.facts, "promotion": promotion.outcome.value})


def plot(options: argparse.Namespace) -> Result:
    """Plot the forecast of the session's model."""
    from trainer.plot import plot

    config = read_training_config(options)
    committed = plot(options.artifacts, options.symbol, options.session, config, options.plot_language)
    return make_result(committed, "plotted")


def rollback(options: argparse.Namespace) -> Result:
    """Roll back the current model."""
    summary = roll_back(options.artifacts, options.symbol, options.reason)
    print(summary)
    return Result(facts={"summary": summary})


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
    return Result(facts={"summary": summary})


def build_parser() -> Parser:
    """Return the program's parser with the options of each step."""
    parser, add_step = make_parser("trainer", "Train the forecaster and plot its forecasts.")

    train_parser = add_step("train", train, "Train the forecaster on every session up to a day.", TRAIN)
    steps_help = "steps between two checkpoints"
    add_option(train_parser, "checkpoint-steps", steps_help, "200", type=positive_integer, metavar="N")

    plot_parser = add_step("plot", plot, "Plot the forecast of the session's model.", PLOT)
    language_help = f"the language of the plot: {' or '.join(LANGUAGES)}"
    add_option(plot_parser, "plot-language", language_help, "en", type=language, metavar="LANGUAGE")

    rollback_parser = add_step("rollback", rollback, "Roll back the current model to the previous one.", ROLLBACK)
    add_artifact_options(rollback_parser)
    rollback_parser.add_argument("--reason", required=True, metavar="TEXT", help="the reason, stored in the model registry")
    add_artifact_options(add_step("history", history, "List promotions and rollbacks.", HISTORY))

    for step_parser in (train_parser, plot_parser):
        add_common_options(step_parser)
        years_help = "train on the last N years only"
        add_option(step_parser, "history-years", years_help, type=history_years, metavar="N", required=False)
        config_help = "TOML file with the model's configuration"
        add_option(step_parser, "model-config", config_help, str(DEFAULT_CONFIG), type=Path, metavar="FILE")
    return parser


def main() -> int:
    """Run the program with this process's arguments; return the exit code."""
    return run_step(build_parser, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
