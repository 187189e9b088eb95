"""How a step ends, by itself or from outside: one table, raised by the steps and read by the operator.

The numbers follow sysexits(3) where it has a fitting one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Exit(IntEnum):
    """Exit codes that a step uses on purpose. Any other code is a fault of the step itself."""

    DONE = 0
    DATA_WRONG = 65
    SOURCE_NOT_READY = 69
    PASSING_FAULT = 75
    CONFIGURATION_WRONG = 78
    NOTHING_TO_DO = 99


class Cause(StrEnum):
    """How a step can end that no exit code of its own tells: by a fault, or from outside."""

    FAULT = "fault"
    CRASH = "crash"
    MEMORY = "memory"
    TOO_LONG = "too long"
    MOVED = "moved"
    NOT_STARTED = "not started"


@dataclass(frozen=True)
class Rule:
    """What an end means, how many tries may end so in all, how long to wait for the next one, and what a person should do.

    `wait_seconds` None is the task's own `retry_delay`.
    """

    meaning: str
    tries: int
    wait_seconds: int | None
    advice: str


# A deployment sets tries and waits of some of them: `STEP_SOURCE_TRIES` and so on, see docs/settings.md.
RULES: dict[Exit | Cause, Rule] = {
    Exit.DONE: Rule("done", 1, None, "Nothing."),
    Exit.DATA_WRONG: Rule(
        "the data is wrong", 1, None, "Look at the object that the message names; another try gives the same."
    ),
    # The source publishes within hours of the close: from six in the evening every half an hour, until midnight.
    Exit.SOURCE_NOT_READY: Rule("the source has nothing yet or is down", 12, 1800, "Wait; when it lasts, look at the source."),
    # A throttle or a fault of the network passes within minutes.
    Exit.PASSING_FAULT: Rule(
        "throttled, or a passing fault", 4, 120, "Wait; when it lasts, look at the object store and the network."
    ),
    Exit.CONFIGURATION_WRONG: Rule(
        "wrong configuration", 1, None, "Correct the option, variable or file that the message names."
    ),
    Exit.NOTHING_TO_DO: Rule("nothing to do", 1, None, "Nothing; what follows in this branch is skipped."),
    # The task's own `retries` say how many tries.
    Cause.FAULT: Rule(
        "a fault of the step itself", 4, None, "Read the step's log from its end; report it when it comes again."
    ),
    # It may be the one node's memory; on the same kind of machine it mostly comes again.
    Cause.CRASH: Rule("it crashed", 2, 10, "Compare image and node: an image for another processor runs emulated, if at all."),
    # With more memory the second time: STEP_MEMORY_FACTOR, STEP_MEMORY_LIMIT.
    Cause.MEMORY: Rule("out of memory", 2, 10, "Give it more: its program's ..._memory in the deployment's values."),
    # What resumes goes on where it was killed.
    Cause.TOO_LONG: Rule(
        "it took longer than it may", 2, 10, "Read its log for what it waits for; or raise execution_timeout."
    ),
    # No fault of the step: its pod was evicted, preempted, drained or deleted, or its node was lost.
    Cause.MOVED: Rule("its pod was taken away", 6, 30, "Nothing, while it is tried again; when it lasts, look at the nodes."),
    # It had all of STEP_START_SECONDS already.
    Cause.NOT_STARTED: Rule(
        "its pod did not start",
        1,
        None,
        "Look at what the message names: the image, the quota, the nodes; then clear the task.",
    ),
}


def end_of_code(code: int) -> Exit | Cause:
    """What an exit code means; one that no step gives on purpose is a fault."""
    return Exit(code) if code in set(Exit) else Cause.FAULT


class StepError(Exception):
    """A step cannot be done. The message is one sentence for a person: what, where, what to do next."""

    code: Exit = Exit.CONFIGURATION_WRONG


class DataWrong(StepError):
    """The data or an artifact is not what it must be; trying again does not help."""

    code = Exit.DATA_WRONG


class SourceNotReady(StepError):
    """The source is down or has not published what is asked for."""

    code = Exit.SOURCE_NOT_READY


class PassingFault(StepError):
    """Throttled, or a fault of the network or of the object store that passes."""

    code = Exit.PASSING_FAULT


class ConfigurationWrong(StepError):
    """An option, a variable or a configuration file is wrong."""

    code = Exit.CONFIGURATION_WRONG


class NothingToDo(StepError):
    """There is nothing to do, and that is as it should be."""

    code = Exit.NOTHING_TO_DO
