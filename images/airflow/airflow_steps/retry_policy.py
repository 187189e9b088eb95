"""Whether and when a failed attempt is retried: the rules of `step_contract.errors` with the deployment's settings.

The numbers (attempts, delays) are in `step_contract.errors.RETRY_RULES`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import time, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy
from step_contract.errors import RETRY_RULES, ExitCode, RetryRule, Termination

from airflow_steps.airflow_internals.task_instances import get_first_try
from airflow_steps.outcome import StepFailedError
from airflow_steps.settings import get_int, get_schedule_time

if TYPE_CHECKING:
    from airflow.sdk import Context

DAY_SECONDS = 24 * 3600
# After an attempt whose worker or executor was lost; Airflow's scheduler asks no policy then, but takes the task's delay.
LOST_RETRY_DELAY = timedelta(seconds=10)


def read_retry_rules(environment: Mapping[str, str] = os.environ) -> dict[ExitCode | Termination, RetryRule]:
    """Return the retry rules with the deployment's settings. Raises ConfigurationError if one of them is invalid."""
    source, transient, evicted = ExitCode.SOURCE_UNAVAILABLE, ExitCode.TRANSIENT, Termination.EVICTED
    rules = dict(RETRY_RULES)
    rules[source] = _override_delay("STEP_SOURCE_UNAVAILABLE_RETRY_DELAY_SECONDS", rules[source], environment)
    rules[transient] = _override_delay("STEP_TRANSIENT_RETRY_DELAY_SECONDS", rules[transient], environment)
    rules[evicted] = _override_delay("STEP_EVICTED_RETRY_DELAY_SECONDS", rules[evicted], environment)
    rules[source] = replace(rules[source], max_attempts=count_until_midnight(get_schedule_time(environment), rules[source]))
    rules[source] = _override_attempts("STEP_SOURCE_UNAVAILABLE_MAX_ATTEMPTS", rules[source], environment)
    rules[transient] = _override_attempts("STEP_TRANSIENT_MAX_ATTEMPTS", rules[transient], environment)
    rules[evicted] = _override_attempts("STEP_EVICTED_MAX_ATTEMPTS", rules[evicted], environment)
    return rules


def count_until_midnight(start: time, rule: RetryRule) -> int:
    """Return how many attempts start from `start` until midnight, `rule.delay_seconds` apart."""
    if not rule.delay_seconds:
        return rule.max_attempts
    return math.ceil((DAY_SECONDS - start.hour * 3600 - start.minute * 60) / rule.delay_seconds)


def _override_delay(name: str, rule: RetryRule, environment: Mapping[str, str]) -> RetryRule:
    return replace(rule, delay_seconds=get_int(environment, name, rule.delay_seconds or 0))


def _override_attempts(name: str, rule: RetryRule, environment: Mapping[str, str]) -> RetryRule:
    return replace(rule, max_attempts=get_int(environment, name, rule.max_attempts))


class StepRetryPolicy(RetryPolicy):
    """Retries each kind of termination by its own rule; `retries` and `retry_delay` are the task's own, for errors in the step.

    Airflow counts all attempts of a task together: its `retries` must be `total_retries`. Its `retry_delay` must be
    LOST_RETRY_DELAY: it applies where Airflow asks no policy.
    """

    def __init__(self, retries: int, retry_delay: timedelta, rules: Mapping[ExitCode | Termination, RetryRule]) -> None:
        self.retries = retries
        delay = int(retry_delay.total_seconds())
        self.rules = {
            termination: replace(rule, delay_seconds=delay if rule.delay_seconds is None else rule.delay_seconds)
            for termination, rule in rules.items()
        }
        self.rules[Termination.ERROR] = replace(self.rules[Termination.ERROR], max_attempts=retries + 1)

    @property
    def total_retries(self) -> int:
        """How many retries all rules together allow; 0 for a task without retries."""
        return sum(rule.max_attempts - 1 for rule in self.rules.values()) if self.retries else 0

    def max_attempts(self, termination: ExitCode | Termination) -> int:
        """Return how many attempts may terminate this way."""
        return self.rules[termination].max_attempts if self.retries else 1

    def get_delay(self, termination: ExitCode | Termination) -> timedelta:
        """Return how long to wait after an attempt that terminated this way."""
        return timedelta(seconds=self.rules[termination].delay_seconds or 0)

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Return whether, and when, to retry after `exception`."""
        if not isinstance(exception, StepFailedError):
            # An error of Airflow: the trigger was lost, or the task timed out.
            first_try = get_first_try(max_tries, self.total_retries)
            if try_number - first_try < self.retries:
                return RetryDecision.default()
            return RetryDecision.fail("all retries of the task are used up")
        rule, max_attempts = self.rules[exception.termination], self.max_attempts(exception.termination)
        reason = f"{rule.meaning}: attempt {exception.attempt} of {max_attempts}"
        if exception.attempt >= max_attempts:
            return RetryDecision.fail(reason)
        return RetryDecision.retry(self.get_delay(exception.termination), reason)

    def serialize(self) -> dict[str, Any]:
        """Return the policy as the serialized DAG shows it; Airflow does not read it back."""
        return {"__type": type(self).__name__, "retries": self.retries}
