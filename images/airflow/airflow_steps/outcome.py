"""What becomes of the task when its step has ended: the artifact that it must have, or the right exception."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from airflow.sdk.exceptions import AirflowSkipException
from step_contract.commit import open_artifact
from step_contract.errors import RETRY_RULES, ConfigurationError, DataError, ExitCode, StepError, Termination
from step_contract.manifest import Fact
from step_contract.result import Result

from airflow_steps.metrics import count_end
from airflow_steps.pod_status import Try
from airflow_steps.retry_policy import StepFailed, StepRefused, cause_of, how
from airflow_steps.termination import Ended, last_of


@dataclass(frozen=True)
class Made:
    """What a step made: its manifest's URI, small facts, and the names of its files."""

    manifest: str
    facts: Mapping[str, Fact]
    files: tuple[str, ...]


def settle(step: str, ended: Ended) -> Made:
    """What a step that has ended well made: its artifact is there and whole.

    Raises AirflowSkipException when there was nothing to do, StepRefused when another try gives the same, and
    StepFailed, which StepRetryPolicy knows, when it may not.
    """
    if ended.code != ExitCode.SUCCESS:
        raise _failure(step, ended)
    try:
        result = Result.from_json(ended.result)
        if not result.manifest:
            raise DataError("it says that it is done and names no artifact")
        manifest, _ = open_artifact(result.manifest)
        if manifest.step != step:
            raise DataError(f"{result.manifest} is an artifact of {manifest.step}")
    except (ConfigurationError, DataError) as error:
        raise StepRefused(f"{step}: {error}", error.code) from error
    except StepError as error:
        raise StepFailed(f"{step}: {error}", error.code) from error
    return Made(result.manifest, result.facts, tuple(file.name for file in manifest.files))


@contextmanager
def counted(this: Try) -> Iterator[None]:
    """Counts by what is raised within how the step of this try has ended."""
    try:
        yield
    except AirflowSkipException:
        count_end(this, ExitCode.NOTHING_TO_DO)
        raise
    except (StepFailed, StepRefused) as failed:
        count_end(this, failed.cause)
        raise
    count_end(this, ExitCode.SUCCESS)


def _failure(step: str, ended: Ended) -> Exception:
    cause, told = cause_of(ended), _told(ended)
    message = said = f"{step}: {told or 'it said nothing'}"
    rule = RETRY_RULES[cause]
    if cause == ExitCode.NOTHING_TO_DO:
        return AirflowSkipException(message)
    if isinstance(cause, Termination):
        why = f"{how(ended)}: {rule.meaning}. {rule.advice}"
        message = f"{message} ({why})" if told else f"{step}: {why}"
        said = f"{said} ({how(ended)})" if told else f"{step}: {how(ended)}"
    return StepFailed(message, cause, said=said) if rule.max_attempts > 1 else StepRefused(message, cause, said)


def _told(ended: Ended) -> str | None:
    """The step's own message: what it handed over, or else the last line that it printed."""
    try:
        told = Result.from_json(ended.result).error
    except DataError:
        # A container that hands over nothing and fails hands over the end of its log.
        told = last_of(ended.result.decode(errors="replace").splitlines())
    return told or last_of(ended.last_lines)
