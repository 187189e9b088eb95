"""A step for every session of a range: what a run of each day would have committed, in one process.

Each session is made by the step's own function, so that a range leaves the same artifacts as daily runs. What the sessions have
in common, such as a file of the source, is read once: see `CachingStore` and the caches of the programs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta

from step_contract.cli import session_date
from step_contract.errors import ConfigurationError, DataError, NothingToDoError, SourceUnavailableError, StepError
from step_contract.facts import SummaryFacts
from step_contract.result import Result

# To a remote store, where a commit mostly waits.
MAX_CONCURRENT_SESSIONS = 16
# Errors of one session, after which the others are made nevertheless. Any other error would meet them too.
_OF_A_SESSION = (DataError, SourceUnavailableError)


@dataclass(frozen=True)
class SessionOutcome:
    """What became of a session: its result, or the error that a step of its own would have ended with."""

    session: date
    result: Result | None
    error: StepError | None = None


def add_range_options(parser: argparse.ArgumentParser) -> None:
    """Add --from and --to, the first and the last day of a range, which replace --session."""
    help = "first day of a range, instead of --session"
    parser.add_argument("--from", dest="first", type=session_date, metavar="YYYY-MM-DD", help=help)
    parser.add_argument("--to", dest="last", type=session_date, metavar="YYYY-MM-DD", help="last day of the range")


def read_range(options: argparse.Namespace) -> tuple[date, date] | None:
    """Return the range that the options name; None if they name a session.

    Raises ConfigurationError if they name both, neither, one end only, or an end before the beginning.
    """
    if options.first or options.last:
        if not (options.first and options.last) or options.session or options.first > options.last:
            raise ConfigurationError("invalid range: use --from YYYY-MM-DD --to YYYY-MM-DD in this order, without --session")
        return options.first, options.last
    if not options.session:
        raise ConfigurationError("no session: use --session YYYY-MM-DD, or --from YYYY-MM-DD --to YYYY-MM-DD for a range")
    return None


def days_between(first: date, last: date) -> list[date]:
    """Return every day from `first` to `last`, both inclusive."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def run_range(
    options: argparse.Namespace,
    sessions: Sequence[date],
    run: Callable[[argparse.Namespace], Result],
    *,
    concurrent: bool = False,
    describe: Callable[[Sequence[SessionOutcome]], str] = lambda outcomes: "",
) -> Result:
    """Run the step for each session, and return one result: the last session's manifest, and how many were committed.

    Args:
        options: the step's options; `run` gets them with the session.
        sessions: the sessions in ascending order.
        run: the step for one session.
        concurrent: whether the sessions do not depend on each other.
        describe: returns what to add to the summary.

    Raises:
        NothingToDoError: there is no session, or no session had anything to do.
        DataError, SourceUnavailableError: some sessions failed; all others are committed. The message has the first error.
        StepError: any other error, at once: it would fail the remaining sessions too. A repetition continues.
    """

    def run_session(session: date) -> SessionOutcome:
        arguments = argparse.Namespace(**(vars(options) | {"session": session, "first": None, "last": None}))
        try:
            return SessionOutcome(session, run(arguments))
        except NothingToDoError as error:
            print(f"{session}: {error}", file=sys.stderr)
            return SessionOutcome(session, None)
        except _OF_A_SESSION as error:
            print(f"{session}: {error}", file=sys.stderr, flush=True)
            return SessionOutcome(session, None, error)

    period = f"{options.first} to {options.last}"
    if not sessions:
        raise NothingToDoError(f"no session from {period}")
    with ThreadPoolExecutor(MAX_CONCURRENT_SESSIONS if concurrent else 1) as pool:
        outcomes = list(pool.map(run_session, sessions)) if concurrent else _run_in_order(sessions, run_session)
    return _summarize(period, outcomes, describe(outcomes))


def _run_in_order(sessions: Iterable[date], run_session: Callable[[date], SessionOutcome]) -> list[SessionOutcome]:
    return [run_session(session) for session in sessions]


def _summarize(period: str, outcomes: Sequence[SessionOutcome], details: str) -> Result:
    results = [outcome.result for outcome in outcomes if outcome.result]
    failed = [outcome for outcome in outcomes if outcome.error]
    new = sum(result.is_new for result in results)
    counts = {"committed": new, "already_committed": len(results) - new}
    if failed:
        first = failed[0]
        message = f"{first.session}: {first.error}"
        if len(failed) > 1:
            message = f"{len(failed)} of {len(outcomes)} sessions failed, the first is {message}"
        message += f"; other sessions committed: {new}, already committed: {len(results) - new}"
        # Data that is invalid needs a person; a source that is late may have them with the next attempt.
        is_invalid = any(isinstance(outcome.error, DataError) for outcome in failed)
        raise DataError(message) if is_invalid else SourceUnavailableError(message)
    if not results:
        raise NothingToDoError(f"nothing to do from {period}: see the lines above")
    summary = f"{period}: {new} sessions committed, {len(results) - new} already committed"
    if skipped := len(outcomes) - len(results):
        summary += f", {skipped} without anything to do"
    summary += f"; {details}" if details else ""
    print(summary)
    return Result(results[-1].manifest, {**SummaryFacts(summary).to_facts(), **counts})
