"""What the command line of every step has in common: options that the environment can set, exit codes, the result."""

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
from step_contract.errors import RETRY_RULES, ConfigurationError, ExitCode, StepError
from step_contract.manifest import Fact
from step_contract.paths import validate_symbol
from step_contract.result import PLATFORM_PREFIX, RESULT_VARIABLE, Result, describe_platform
from step_contract.schemas import parse_iso_date
from step_contract.store import Store

Step = Callable[[argparse.Namespace], Result]

EXIT_CODES = "exit codes:\n" + "\n".join(
    f"  {code.value:>3}  {rule.meaning}" for code, rule in RETRY_RULES.items() if isinstance(code, ExitCode)
)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigurationError instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise ConfigurationError with `message`."""
        raise ConfigurationError(f"{message}; see {self.prog} --help")


def session_date(text: str) -> date:
    """Parse an option's date, YYYY-MM-DD. Raises argparse.ArgumentTypeError if it is invalid."""
    try:
        return parse_iso_date(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid date {text!r}: use YYYY-MM-DD") from None


def symbol(text: str) -> str:
    """Return `text` if it is a valid symbol. Raises argparse.ArgumentTypeError otherwise."""
    try:
        return validate_symbol(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_option(
    parser: argparse.ArgumentParser, name: str, help: str, default: str | None = None, *, required: bool = True, **more: Any
) -> None:
    """Add the option `--name`, which the environment variable NAME can also set.

    It is required unless it has a default. An empty variable counts as unset.
    """
    variable = name.upper().replace("-", "_")
    value = os.environ.get(variable) or default
    shown = f"{help} [environment: {variable}{f'; default: {default}' if default else ''}]"
    more = {"metavar": variable.rpartition("_")[2]} | more
    parser.add_argument(f"--{name}", help=shown.replace("%", "%%"), default=value, required=required and not value, **more)


def add_common_options(parser: argparse.ArgumentParser, *, session_required: bool = True) -> None:
    """Add the options of every step: --session, --artifacts and --symbol."""
    about = "the session's date in Asia/Seoul"
    add_option(parser, "session", about, type=session_date, metavar="YYYY-MM-DD", required=session_required)
    add_artifact_options(parser)


def add_artifact_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that locate artifacts: --artifacts and --symbol."""
    add_option(
        parser, "artifacts", "where artifacts are stored: file:///folder or s3://bucket/prefix", metavar="URL", type=Store
    )
    add_option(parser, "symbol", "the index's symbol at the source", "KS11", type=symbol)


def make_parser(name: str, description: str) -> tuple[Parser, Callable[..., Parser]]:
    """Return a program's parser, and a function `add_step(name, run, summary, details)` that returns the step's parser."""
    parser = Parser(prog=name, description=description, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True, dest="step", parser_class=Parser)

    def add_step(step_name: str, run: Step, summary: str, details: str) -> Parser:
        formatter = argparse.RawDescriptionHelpFormatter
        added: Parser = steps.add_parser(
            step_name, help=summary, description=f"{summary}\n\n{details}", epilog=EXIT_CODES, formatter_class=formatter
        )
        added.set_defaults(run=run)
        return added

    return parser, add_step


def make_result(committed: Committed, summary: str) -> Result:
    """Return the result of a step that committed or found an artifact; print its summary and the manifest's URI."""
    summary = summary if committed.new else f"{summary} (already committed)"
    print(summary)
    print(f"manifest: {committed.uri}")
    facts: dict[str, Fact] = {"summary": summary, "rows": committed.manifest.rows}
    return Result(manifest=committed.uri, facts=facts | dict(committed.manifest.facts))


def run_step(build_parser: Callable[[], Parser], arguments: Sequence[str]) -> int:
    """Run the step that `arguments` name, write its result, and return the exit code.

    A StepError is printed as one sentence on standard error and gives its own exit code. Any other exception is an error in the
    step: its traceback is printed and the exit code is 1.
    """
    # A container's first process ignores SIGTERM unless it handles it: clean up, leave nothing half-written, and exit.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    if os.environ.get("STEP_IMAGE"):
        # Before anything that may crash on an architecture that it was not built for.
        print(f"{PLATFORM_PREFIX}{describe_platform()}", file=sys.stderr, flush=True)
    name = "step"
    try:
        parser = build_parser()
        name = parser.prog
        # Libraries log warnings only; the program's own package has its name.
        logging.getLogger(name).setLevel(logging.INFO)
        options = parser.parse_args(arguments)
        name = f"{parser.prog} {options.step}"
        result: Result = options.run(options)
        _write_result(result)
        return ExitCode.SUCCESS
    except StepError as error:
        print(f"{name}: {error}", file=sys.stderr)
        with suppress(StepError):
            _write_result(Result(error=str(error)))
        return error.code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _exit_on_signal(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _write_result(result: Result) -> None:
    if not (path := os.environ.get(RESULT_VARIABLE)):
        return
    data = result.to_json()
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise ConfigurationError(f"cannot write the result to {path} ({RESULT_VARIABLE}): {error.strerror}") from error
