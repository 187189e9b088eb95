"""The outcome of a task whose step terminated: a verified artifact, or the exception that the task raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from step_contract.commit import verify_artifact
from step_contract.errors import RETRY_RULES, ConfigurationError, DataError, ExitCode, StepError, Termination
from step_contract.lineage.sources import Source, SourceList
from step_contract.manifest import Fact
from step_contract.result import MAX_BYTES, Result

from airflow_steps.metrics import count_termination
from airflow_steps.termination import ExitStatus, classify_termination, describe_exit_status, get_last_line

if TYPE_CHECKING:
    from airflow_steps.pods.spec import TaskInstanceKey


class StepFailedError(AirflowException):
    """A step failed, and another attempt may succeed.

    Attributes:
        termination: why it failed.
        attempt: how many attempts have failed this way since the task was first run or last cleared.
        max_attempts: how many attempts may fail this way before the task fails.
        reason: what happened, without its meaning and the advice.
    """

    def __init__(
        self, message: str, termination: ExitCode | Termination, attempt: int = 1, max_attempts: int = 1, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.termination, self.attempt, self.max_attempts, self.reason = termination, attempt, max_attempts, reason or message


class PermanentStepError(AirflowFailException):
    """A step failed, and another attempt would fail the same way. The attributes are those of StepFailedError."""

    def __init__(self, message: str, termination: ExitCode | Termination, reason: str = "") -> None:
        super().__init__(message)
        self.termination, self.attempt, self.max_attempts, self.reason = termination, 1, 1, reason or message


@dataclass(frozen=True)
class StepOutput:
    """The output of a successful step: the URI of its manifest, small facts, the names of its files, and its sources."""

    manifest: str
    facts: Mapping[str, Fact]
    files: tuple[str, ...]
    sources: tuple[Source | SourceList, ...] = ()


def verify_outcome(step: str, status: ExitStatus) -> StepOutput:
    """Return the output of a step that succeeded, once every file of its artifact is verified.

    It blocks while it reads the artifact, in constant memory: an event loop calls it in a thread.

    Raises:
        AirflowSkipException: there was nothing to do.
        PermanentStepError: another attempt would fail the same way.
        StepFailedError: another attempt may succeed; StepRetryPolicy decides.
    """
    if status.code != ExitCode.SUCCESS:
        raise _make_exception(step, status)
    try:
        result = Result.from_json(status.result)
        if not result.manifest:
            raise DataError("the step succeeded but its result names no artifact")
        manifest = verify_artifact(result.manifest)
        if manifest.step != step:
            raise DataError(f"{result.manifest} is an artifact of {manifest.step}")
    except (ConfigurationError, DataError) as error:
        raise PermanentStepError(f"{step}: {error}", error.code) from error
    except StepError as error:
        raise StepFailedError(f"{step}: {error}", error.code) from error
    return StepOutput(result.manifest, result.facts, tuple(file.name for file in manifest.files), manifest.sources)


@contextmanager
def counted(ti: TaskInstanceKey, *, failures: bool = True) -> Iterator[None]:
    """Count the step's termination by what the block raises; without `failures` if a worker will count those."""
    try:
        yield
    except AirflowSkipException:
        count_termination(ti, ExitCode.NOTHING_TO_DO)
        raise
    except (StepFailedError, PermanentStepError) as error:
        if failures:
            count_termination(ti, error.termination)
        raise
    count_termination(ti, ExitCode.SUCCESS)


def _make_exception(step: str, status: ExitStatus) -> Exception:
    termination, step_message = classify_termination(status), _get_step_message(status)
    message = reason = f"{step}: {step_message or 'no message'}"
    rule = RETRY_RULES[termination]
    if termination == ExitCode.NOTHING_TO_DO:
        return AirflowSkipException(message)
    if isinstance(termination, Termination):
        description = describe_exit_status(status)
        explanation = f"{description}: {rule.meaning}. {rule.advice}"
        message = f"{message} ({explanation})" if step_message else f"{step}: {explanation}"
        reason = f"{reason} ({description})" if step_message else f"{step}: {description}"
    if rule.max_attempts > 1:
        return StepFailedError(message, termination, reason=reason)
    return PermanentStepError(message, termination, reason)


def _get_step_message(status: ExitStatus) -> str | None:
    """Return the error that the step reported, or else the last line that it printed."""
    try:
        message = Result.from_json(status.result).error
    except DataError:
        # FallbackToLogsOnError: without a result, the termination message is the end of the log.
        message = get_last_line(status.result.decode(errors="replace").splitlines())
    message = message or get_last_line(status.last_lines)
    return message and make_printable(message)[:MAX_BYTES]


def make_printable(text: str) -> str:
    """Return one line of text that the database, the log and Slack accept: no control characters, no half surrogate pairs."""
    return "".join(character if character.isprintable() else " " for character in text)
