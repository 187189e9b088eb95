"""How a step ends: one table, raised by the steps and read by the operator.

The numbers follow sysexits(3) where it has a fitting one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes that a step uses on purpose. Any other code is a fault of the step itself."""

    DONE = 0
    DATA_WRONG = 65
    SOURCE_NOT_READY = 69
    PASSING_FAULT = 75
    CONFIGURATION_WRONG = 78
    NOTHING_TO_DO = 99


@dataclass(frozen=True)
class Rule:
    """What an exit code means, whether trying again can help, and what a person should do."""

    meaning: str
    retried: bool
    advice: str


RULES: dict[Exit, Rule] = {
    Exit.DONE: Rule("done", False, "Nothing."),
    Exit.DATA_WRONG: Rule("the data is wrong", False, "Look at the object that the message names; another try gives the same."),
    Exit.SOURCE_NOT_READY: Rule("the source has nothing yet or is down", True, "Wait; when it lasts, look at the source."),
    Exit.PASSING_FAULT: Rule(
        "throttled, or a passing fault", True, "Wait; when it lasts, look at the object store and the network."
    ),
    Exit.CONFIGURATION_WRONG: Rule(
        "wrong configuration", False, "Correct the option, variable or file that the message names."
    ),
    Exit.NOTHING_TO_DO: Rule("nothing to do", False, "Nothing; what follows in this branch is skipped."),
}
UNKNOWN = Rule("a fault of the step itself", True, "Read the step's log from its end; report it when it comes again.")


def rule_of(code: int) -> Rule:
    """The rule for any exit code; codes that are not in the table get `UNKNOWN`."""
    try:
        return RULES[Exit(code)]
    except ValueError:
        return UNKNOWN


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
