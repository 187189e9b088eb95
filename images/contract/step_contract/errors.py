"""How a step terminates: exit codes, terminations from outside, retry rules, and the exceptions that steps raise.

Steps and operator share this one table. The numbers follow sysexits(3) where it has a fitting one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """Exit codes that a step returns deliberately. Any other code is an error in the step itself."""

    SUCCESS = 0
    INVALID_DATA = 65
    SOURCE_UNAVAILABLE = 69
    TRANSIENT = 75
    INVALID_CONFIGURATION = 78
    NOTHING_TO_DO = 99


class Termination(StrEnum):
    """Terminations that a deliberate exit code does not describe: an unhandled error, or a cause outside the step."""

    ERROR = "error"
    CRASHED = "crashed"
    OOM_KILLED = "oom_killed"
    TIMED_OUT = "timed_out"
    EVICTED = "evicted"
    START_FAILED = "start_failed"


@dataclass(frozen=True)
class RetryRule:
    """What a termination means, how it is retried, and what the person on call should do.

    Attributes:
        meaning: a phrase for messages.
        max_attempts: how many attempts may terminate this way before the task fails.
        delay_seconds: seconds before the next attempt; None means the task's own `retry_delay`.
        advice: one or two imperative sentences.
    """

    meaning: str
    max_attempts: int
    delay_seconds: int | None
    advice: str


# Delays are fixed; there is no exponential backoff. Settings override some attempts and delays
# (STEP_SOURCE_UNAVAILABLE_MAX_ATTEMPTS and so on): see docs/settings.md. Decision 6 repeats both; in monitoring/alerts.yaml,
# StepFailingRepeatedly repeats max_attempts, and SourceUnavailable follows from a delay. Tests compare them, also for each file
# of values (tests/unit/airflow/test_monitoring.py).
RETRY_RULES: dict[ExitCode | Termination, RetryRule] = {
    ExitCode.SUCCESS: RetryRule("succeeded", 1, None, "Nothing to do."),
    ExitCode.INVALID_DATA: RetryRule(
        "invalid data", 1, None, "Check the object that the message names; a retry would give the same result."
    ),
    # The source publishes within hours of the close: from SCHEDULE_TIME until midnight.
    ExitCode.SOURCE_UNAVAILABLE: RetryRule(
        "source unavailable or not yet updated", 12, 1800, "Wait; if it persists, check the source."
    ),
    # Throttling and network errors pass within minutes.
    ExitCode.TRANSIENT: RetryRule(
        "throttled or transient error", 4, 120, "Wait; if it persists, check the object store and the network."
    ),
    ExitCode.INVALID_CONFIGURATION: RetryRule(
        "invalid configuration", 1, None, "Correct the option, variable or file that the message names."
    ),
    ExitCode.NOTHING_TO_DO: RetryRule("nothing to do", 1, None, "Nothing; downstream tasks of this branch are skipped."),
    # max_attempts is replaced by the task's own `retries`, plus one.
    Termination.ERROR: RetryRule("error in the step", 4, None, "Read the end of the step's log; report a bug if it recurs."),
    # A crash may be the fault of one node's memory; on machines of the same kind it usually recurs.
    Termination.CRASHED: RetryRule(
        "crashed", 2, 10, "Compare the architectures of image and node: an image for another one runs emulated, if at all."
    ),
    # Kubernetes' reason OOMKilled. The second attempt gets more memory: STEP_MEMORY_FACTOR, STEP_MEMORY_LIMIT.
    Termination.OOM_KILLED: RetryRule(
        "out of memory", 2, 10, "Raise the memory of the program (`collector_memory`, `trainer_memory`) in the values file."
    ),
    # A step that writes checkpoints resumes from the last one.
    Termination.TIMED_OUT: RetryRule(
        "timed out", 2, 10, "Find out from the log what the step was waiting for, or raise the task's execution_timeout."
    ),
    # Not the step's fault: the pod was evicted, preempted, drained or deleted, or its node was lost.
    Termination.EVICTED: RetryRule("its pod was evicted", 6, 30, "Wait while it is retried; if it recurs, check the nodes."),
    # The pod has already had STEP_START_TIMEOUT_SECONDS to start.
    Termination.START_FAILED: RetryRule(
        "its pod did not start",
        1,
        None,
        "Check what the message names (image, quota or nodes), then clear the task.",
    ),
}


def classify_exit_code(code: int) -> ExitCode | Termination:
    """Return what an exit code means; a code that is not deliberate is an error in the step."""
    return ExitCode(code) if code in set(ExitCode) else Termination.ERROR


class StepError(Exception):
    """The step cannot succeed. The message is one sentence for a person: what happened, where, what to do next."""

    code: ExitCode = ExitCode.INVALID_CONFIGURATION


class DataError(StepError):
    """Data or an artifact is invalid; a retry does not help."""

    code = ExitCode.INVALID_DATA


class SourceUnavailableError(StepError):
    """The source is down or has not published what was requested."""

    code = ExitCode.SOURCE_UNAVAILABLE


class TransientError(StepError):
    """The network or the object store applied a rate limit to the step, or failed in a way that passes."""

    code = ExitCode.TRANSIENT


class ConfigurationError(StepError):
    """An option, an environment variable or a configuration file is invalid."""

    code = ExitCode.INVALID_CONFIGURATION


class NothingToDoError(StepError):
    """There is nothing to do, which is expected; the task is skipped."""

    code = ExitCode.NOTHING_TO_DO
