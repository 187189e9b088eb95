"""What becomes of the task when its step has ended: the artifact that it must have, or the right exception."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from step_contract.commit import open_artifact
from step_contract.exit_codes import ConfigurationWrong, DataWrong, Exit, PassingFault, SourceNotReady, rule_of
from step_contract.manifest import Fact
from step_contract.result import Result

from airflow_steps.step import Ended, last_of

# The source publishes within hours of the close, a throttle or a fault of the network passes within minutes.
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(SourceNotReady, RetryAction.RETRY, retry_delay=timedelta(minutes=30), reason="the source is not ready"),
        RetryRule(PassingFault, RetryAction.RETRY, retry_delay=timedelta(minutes=2), reason="a passing fault"),
    ]
)


@dataclass(frozen=True)
class Made:
    """What a step made: its manifest's URI, small facts, and the names of its files."""

    manifest: str
    facts: Mapping[str, Fact]
    files: tuple[str, ...]


def settle(step: str, ended: Ended) -> Made:
    """What a step that has ended well made: its artifact is there and whole.

    Raises AirflowSkipException when there was nothing to do, AirflowFailException when another try gives the same,
    SourceNotReady and PassingFault (which RETRY_POLICY knows) when it may not, and AirflowException for all else.
    """
    if ended.code != Exit.DONE:
        raise _failure(step, ended)
    try:
        result = Result.from_json(ended.result)
        if not result.manifest:
            raise DataWrong("it says that it is done and names no artifact")
        manifest, _ = open_artifact(result.manifest)
        if manifest.step != step:
            raise DataWrong(f"{result.manifest} is an artifact of {manifest.step}")
    except (ConfigurationWrong, DataWrong) as error:
        raise AirflowFailException(f"{step}: {error}") from error
    return Made(result.manifest, result.facts, tuple(file.name for file in manifest.files))


def _failure(step: str, ended: Ended) -> Exception:
    message = f"{step}: {_told(ended)}"
    if ended.code is None or ended.reason:
        code = "" if ended.code is None else f"exit code {ended.code}, "
        return AirflowException(f"{message} ({code}{ended.reason}: the step was ended from outside)")
    if ended.code == Exit.NOTHING_TO_DO:
        return AirflowSkipException(message)
    if ended.code == Exit.SOURCE_NOT_READY:
        return SourceNotReady(message)
    if ended.code == Exit.PASSING_FAULT:
        return PassingFault(message)
    rule = rule_of(ended.code)
    if not rule.retried:
        return AirflowFailException(message)
    number = -ended.code if ended.code < 0 else ended.code - 128  # a container's exit code for a signal is 128 and more
    how = f"signal {signal.Signals(number).name}" if number in set(signal.Signals) else f"exit code {ended.code}"
    return AirflowException(f"{message} ({how}: {rule.meaning}. {rule.advice})")


def _told(ended: Ended) -> str:
    """The step's own message: what it handed over, or else the last line that it printed."""
    try:
        told = Result.from_json(ended.result).error
    except DataWrong:
        # A container that hands over nothing and fails hands over the end of its log.
        told = last_of(ended.result.decode(errors="replace").splitlines())
    return told or last_of(ended.last_lines) or "it said nothing"
