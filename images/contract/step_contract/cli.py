"""What the command line of every step has in common: options that the environment can set, exit codes, the result."""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from step_contract.commit import Committed
from step_contract.errors import RETRY_RULES, ConfigurationError, ExitCode, StepError
from step_contract.facts import SummaryFacts
from step_contract.lineage.report import LINEAGE, show_lineage
from step_contract.paths import parse_revision, validate_symbol
from step_contract.result import PLATFORM_PREFIX, RESULT_VARIABLE, Result, describe_platform
from step_contract.revisions import parse_reason
from step_contract.schemas import MARKET_TIME_ZONE, parse_iso_date
from step_contract.store import Store
from step_contract.verification import VERIFY
from step_contract.verification import verify as verify_artifacts

Step = Callable[[argparse.Namespace], Result]

EXIT_CODES = "exit codes:\n" + "\n".join(
    f"  {code.value:>3}  {rule.meaning}" for code, rule in RETRY_RULES.items() if isinstance(code, ExitCode)
)


MAX_SHOWN_REASON = 200  # characters of a revision's reason in a step's summary; the manifest has all of it
# Options of free text, which may begin with a dash: argparse would take such a value for another option.
TEXT_OPTIONS = ("--remake", "--reason")


class Parser(argparse.ArgumentParser):
    """An argument parser that raises ConfigurationError instead of exiting, and takes any value for TEXT_OPTIONS."""

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse `args`, by default those of this process."""
        words, joined = iter(sys.argv[1:] if args is None else args), list[str]()
        for word in words:
            value = next(words, None) if word in TEXT_OPTIONS else None
            joined.append(word if value is None else f"{word}={value}")
        return super().parse_args(joined, namespace)

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
    about = f"the session's date in {MARKET_TIME_ZONE.key}"
    add_option(parser, "session", about, type=session_date, metavar="YYYY-MM-DD", required=session_required)
    add_artifact_options(parser)


def add_artifact_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that locate artifacts: --artifacts and --symbol."""
    add_option(
        parser, "artifacts", "where artifacts are stored: file:///folder or s3://bucket/prefix", metavar="URL", type=Store
    )
    add_option(parser, "symbol", "the index's symbol at the source", "KS11", type=symbol)


def add_reference_option(parser: argparse.ArgumentParser, name: str, help: str) -> None:
    """Add the option `--name`, the URI of a manifest; empty counts as not given. No environment variable sets it."""
    parser.add_argument(f"--{name}", default="", metavar="URI", help=help)


def add_remake_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --remake, a person's reason to make a committed artifact anew; empty counts as not given."""
    about = "make a committed artifact anew, as a revision beside it, for this reason; the same reason again makes no other"
    add_option(parser, "remake", about, "", type=parse_reason, required=False, metavar="REASON")


def make_parser(name: str, description: str) -> tuple[Parser, Callable[..., Parser]]:
    """Return a program's parser, and a function `add_step(name, run, summary, details)` that returns the step's parser.

    Every program has the commands `lineage` and `verify`.
    """
    parser = Parser(prog=name, description=description, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True, dest="step", parser_class=Parser)

    def add_step(step_name: str, run: Step, summary: str, details: str) -> Parser:
        formatter = argparse.RawDescriptionHelpFormatter
        added: Parser = steps.add_parser(
            step_name, help=summary, description=f"{summary}\n\n{details}", epilog=EXIT_CODES, formatter_class=formatter
        )
        added.set_defaults(run=run)
        return added

    lineage = add_step("lineage", show_lineage, "Print what an artifact was made from.", LINEAGE.format(program=name))
    lineage.add_argument("uri", metavar="URI", help="the URI of the artifact's manifest")
    lineage.add_argument("--all", action="store_true", help="print every source instead of summaries")
    verification = add_step(
        "verify", verify_artifacts, "Check all artifacts, or those of a range.", VERIFY.format(program=name)
    )
    add_artifact_options(verification)
    verification.add_argument("--from", dest="first", type=session_date, metavar="YYYY-MM-DD", help="the first session")
    verification.add_argument("--to", dest="last", type=session_date, metavar="YYYY-MM-DD", help="the last session")
    verification.add_argument(
        "--format", choices=("text", "json"), default="text", help="how each finding is printed, as one line"
    )
    return parser, add_step


def make_result(committed: Committed, summary: str) -> Result:
    """Return the result of a step that committed or found an artifact; print its summary and the manifest's URI."""
    reason = committed.manifest.reason
    if not committed.new:
        summary = f"{summary} (already committed{f'; {committed.note}' if committed.note else ''})"
    elif reason:
        shown = reason if len(reason) <= MAX_SHOWN_REASON else f"{reason[:MAX_SHOWN_REASON]}…"
        summary = f"{summary} (revision {parse_revision(committed.uri)}: {shown})"
    print(summary)
    print(f"manifest: {committed.uri}")
    facts = SummaryFacts(summary, committed.manifest.rows).to_facts()
    return Result(manifest=committed.uri, facts=facts | dict(committed.manifest.facts), is_new=committed.new)


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
        # Log level: INFO for the program's own package, which has its name, WARNING for libraries.
        logging.getLogger(name).setLevel(logging.INFO)
        options = parser.parse_args(arguments)
        name = f"{parser.prog} {options.step}"
        result: Result = options.run(options)
        _write_result(result)
        sys.stdout.flush()
        return ExitCode.SUCCESS
    except StepError as error:
        print(f"{name}: {error}", file=sys.stderr)
        with suppress(StepError):
            _write_result(Result(error=str(error)))
        return error.code
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # of a command whose output goes to `head`, say; what is buffered would fail again on exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _exit_on_signal(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _write_result(result: Result) -> None:
    if not (path := os.environ.get(RESULT_VARIABLE)):
        return
    data = result.to_json()
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the result to {path} ({RESULT_VARIABLE}): {error.strerror}; set {RESULT_VARIABLE} to a writable file"
        ) from error
