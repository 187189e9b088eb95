"""Why a step failed, and whether and when it is tried again."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from step_contract.errors import RETRY_RULES, ExitCode, RetryRule, Termination, classify_exit_code

from airflow_steps.settings import count
from airflow_steps.termination import Ended

if TYPE_CHECKING:
    from airflow.sdk import Context

# The faults that a processor, or a library built for another one, ends a program with.
CRASHES = (signal.SIGSEGV, signal.SIGILL, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)
# What container runtimes say of a program that is not in the image, or cannot be run there.
NO_PROGRAM = re.compile("no such file or directory|executable file not found|permission denied|not a directory")
# And of one for another processor, where nothing emulates that: https://github.com/opencontainers/runc
FOREIGN = re.compile(r"^exec \S+: exec format error", re.MULTILINE)
KEY = "failures"


class StepFailed(AirflowException):
    """A step that has failed by `cause`, for the `times`th of at most `tries` times in this round of tries.

    `said` is what happened alone, without what it means and what to do.
    """

    def __init__(self, message: str, cause: ExitCode | Termination, times: int = 1, tries: int = 1, said: str = "") -> None:
        super().__init__(message)
        self.cause, self.times, self.tries, self.said = cause, times, tries, said or message


class StepRefused(AirflowFailException):
    """A step that has failed by a `cause` at which another try gives the same; otherwise as StepFailed."""

    def __init__(self, message: str, cause: ExitCode | Termination, said: str = "") -> None:
        super().__init__(message)
        self.cause, self.times, self.tries, self.said = cause, 1, 1, said or message


def rules(environment: Mapping[str, str] = os.environ) -> dict[ExitCode | Termination, RetryRule]:
    """The table of how steps end, with what the deployment sets; raises ConfigurationError where that is no number."""
    source, passing, moved = ExitCode.SOURCE_UNAVAILABLE, ExitCode.TRANSIENT, Termination.EVICTED
    return RETRY_RULES | {
        source: _as_set("STEP_SOURCE_TRIES", "STEP_SOURCE_WAIT_SECONDS", RETRY_RULES[source], environment),
        passing: _as_set("STEP_PASSING_TRIES", "STEP_PASSING_WAIT_SECONDS", RETRY_RULES[passing], environment),
        moved: _as_set("STEP_MOVED_TRIES", "STEP_MOVED_WAIT_SECONDS", RETRY_RULES[moved], environment),
    }


def _as_set(tries: str, wait: str, rule: RetryRule, environment: Mapping[str, str]) -> RetryRule:
    """`rule` with what the settings named `tries` and `wait` say."""
    return replace(
        rule, tries=count(environment, tries, rule.max_attempts), wait_seconds=count(environment, wait, rule.delay_seconds or 0)
    )


def cause_of(ended: Ended) -> ExitCode | Termination:
    """Why a step ended as it did."""
    if ended.cause:
        return ended.cause
    said = ended.reason or ""
    if said.startswith("OOMKilled"):
        return Termination.OOM_KILLED
    if said.startswith("DeadlineExceeded"):
        return Termination.TIMED_OUT
    # A pod that is evicted for what it uses itself would be evicted again wherever it runs.
    if said.startswith("Evicted") and "exceeds" in said:
        return Termination.ERROR
    printed = "\n".join([ended.result.decode(errors="replace"), *ended.last_lines])
    if said.startswith("StartError") and NO_PROGRAM.search(printed):
        return Termination.START_FAILED
    if ended.code is None or said:
        return Termination.EVICTED
    if ended.code and FOREIGN.search(printed):
        return Termination.CRASHED
    if signal_of(ended.code) in CRASHES:
        return Termination.CRASHED
    return classify_exit_code(ended.code)


def signal_of(code: int) -> signal.Signals | None:
    """The signal that ended a process; a container's exit code for one is 128 and more."""
    number = -code if code < 0 else code - 128
    return signal.Signals(number) if number in set(signal.Signals) else None


def how(ended: Ended) -> str:
    """How the step ended, in a few words: signal and processors, or what the cluster said, or the exit code."""
    code = "" if ended.code is None else f"exit code {ended.code}"
    if ended.code is not None and (ended_by := signal_of(ended.code)) and not ended.reason:
        code = f"signal {ended_by.name}"
        if ended_by in CRASHES:
            code += f"; {ended.machine or 'it said nothing of its processor'}"
    return "; ".join(filter(None, (code, ended.reason)))


class StepRetryPolicy(RetryPolicy):
    """Tries again as often as the table says for each cause by itself; `retries` are the task's own, for all else.

    Airflow's number of tries bounds them all together; `bound` says what it must be.
    """

    def __init__(self, retries: int, table: Mapping[ExitCode | Termination, RetryRule]) -> None:
        self.retries = retries
        self.table = dict(table) | {Termination.ERROR: replace(table[Termination.ERROR], tries=retries + 1)}

    @property
    def bound(self) -> int:
        """The most retries that there can be."""
        return sum(rule.max_attempts - 1 for rule in self.table.values()) if self.retries else 0

    def tries(self, cause: ExitCode | Termination) -> int:
        """How many tries may end by `cause` in all."""
        return self.table[cause].tries if self.retries else 1

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Whether to try again after `exception`, and when."""
        if not isinstance(exception, StepFailed):
            # Airflow itself has failed: a trigger that was lost, or a time-out.
            first = max_tries - self.bound + 1
            again = try_number - first < self.retries
            return RetryDecision.default() if again else RetryDecision.fail("it was tried as often as it may be")
        rule, tries = self.table[exception.cause], self.tries(exception.cause)
        said = f"{rule.meaning}, {exception.times} of {tries}"
        if exception.times >= tries:
            return RetryDecision.fail(said)
        return RetryDecision.retry(None if rule.delay_seconds is None else timedelta(seconds=rule.delay_seconds), said)

    def serialize(self) -> dict[str, Any]:
        """What a serialized DAG says of this policy; nothing reads it but people."""
        return {"__type": type(self).__name__, "retries": self.retries}
