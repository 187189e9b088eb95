"""What every step's program has in common: options that can come from the environment, exit codes, the result."""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from step_contract.commit import Committed
from step_contract.dates import iso_date
from step_contract.exit_codes import RULES, ConfigurationWrong, Exit, StepError
from step_contract.machine import MACHINE, machine
from step_contract.manifest import Fact
from step_contract.paths import checked_symbol
from step_contract.result import VARIABLE, Result
from step_contract.store import Store

Step = Callable[[argparse.Namespace], Result]

EXIT_CODES = "exit codes:\n" + "\n".join(
    f"  {code.value:>3}  {rule.meaning}" for code, rule in RULES.items() if isinstance(code, Exit)
)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigurationWrong instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raises ConfigurationWrong with `message`."""
        raise ConfigurationWrong(f"{message}; see {self.prog} --help")


def session_date(text: str) -> date:
    """The date written as YYYY-MM-DD; raises argparse.ArgumentTypeError otherwise."""
    try:
        return iso_date(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date: write YYYY-MM-DD") from None


def symbol(text: str) -> str:
    """`text` itself if it can be a symbol; raises argparse.ArgumentTypeError otherwise."""
    try:
        return checked_symbol(text)
    except ConfigurationWrong as wrong:
        raise argparse.ArgumentTypeError(str(wrong)) from None


def option(
    parser: argparse.ArgumentParser, name: str, help: str, default: str | None = None, *, required: bool = True, **more: Any
) -> None:
    """Adds the option `--name`, which can also be set by the environment variable NAME.

    It is required unless it has a default. An empty variable counts as one that is not set.
    """
    variable = name.upper().replace("-", "_")
    value = os.environ.get(variable) or default
    shown = f"{help} [environment: {variable}{f'; default: {default}' if default else ''}]"
    more = {"metavar": variable.rpartition("_")[2]} | more
    parser.add_argument(f"--{name}", help=shown.replace("%", "%%"), default=value, required=required and not value, **more)


def common_options(parser: argparse.ArgumentParser, *, session_required: bool = True) -> None:
    """Adds the options that every step has: --session, --artifacts and --symbol."""
    about = "the session's date in Seoul"
    option(parser, "session", about, type=session_date, metavar="YYYY-MM-DD", required=session_required)
    artifacts_options(parser)


def artifacts_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say where artifacts lie and of which index: --artifacts and --symbol."""
    option(parser, "artifacts", "where artifacts lie: file:///folder or s3://bucket/prefix", metavar="URL", type=Store)
    option(parser, "symbol", "the index's symbol at the source", "KS11", type=symbol)


def program(name: str, description: str) -> tuple[Parser, Callable[..., Parser]]:
    """A program's parser, and a function `step(name, run, summary, details)` that adds a step and returns its parser."""
    parser = Parser(prog=name, description=description, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True, dest="step", parser_class=Parser)

    def step(step_name: str, run: Step, summary: str, details: str) -> Parser:
        formatter = argparse.RawDescriptionHelpFormatter
        added: Parser = steps.add_parser(
            step_name, help=summary, description=f"{summary}\n\n{details}", epilog=EXIT_CODES, formatter_class=formatter
        )
        added.set_defaults(run=run)
        return added

    return parser, step


def outcome(committed: Committed, told: str) -> Result:
    """The result of a step that committed or found an artifact; prints what it has to tell a person, and the manifest's URI."""
    told = told if committed.new else f"{told} (committed before)"
    print(told)
    print(f"manifest: {committed.uri}")
    facts: dict[str, Fact] = {"told": told, "rows": committed.manifest.rows}
    return Result(manifest=committed.uri, facts=facts | dict(committed.manifest.facts))


def run(make_parser: Callable[[], Parser], arguments: Sequence[str]) -> int:
    """Runs the step that `arguments` name, hands over its result, and returns the exit code.

    A StepError becomes one sentence on standard error and its exit code. Any other error is a fault of the step: its
    traceback is shown and the exit code is 1.
    """
    # The first process of a container ignores the signal unless it handles it: clean up, leave nothing half-written, and go.
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a letter is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    if os.environ.get("STEP_IMAGE"):
        # Before anything that may crash on another processor than it was built for.
        print(f"{MACHINE}{machine()}", file=sys.stderr, flush=True)
    name = "step"
    try:
        parser = make_parser()
        name = parser.prog
        # Of the libraries warnings alone; the program's own package has its name.
        logging.getLogger(name).setLevel(logging.INFO)
        options = parser.parse_args(arguments)
        name = f"{parser.prog} {options.step}"
        result: Result = options.run(options)
        _hand_over(result)
        return Exit.DONE
    except StepError as error:
        print(f"{name}: {error}", file=sys.stderr)
        with suppress(StepError):
            _hand_over(Result(error=str(error)))
        return error.code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _terminated(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _hand_over(result: Result) -> None:
    if not (path := os.environ.get(VARIABLE)):
        return
    data = result.to_json()
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise ConfigurationWrong(f"the result cannot be written to {path}, which {VARIABLE} names: {error.strerror}") from error
