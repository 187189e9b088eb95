"""Why a step failed, how often it is tried again and when, and what a person reads of it."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import RetryAction
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow_steps.memory import grown, with_memory
from airflow_steps.operator import StepOperator
from airflow_steps.outcome import settle
from airflow_steps.retry_policy import StepFailed, StepRetryPolicy, cause_of, rules
from airflow_steps.termination import Ended
from step_contract.errors import ConfigurationError, ExitCode, Termination

from .conftest import Program

ENDS: dict[str, tuple[Ended, ExitCode | Termination, int, int | None]] = {
    "the data is wrong": (Ended(65, b"", ()), ExitCode.INVALID_DATA, 1, None),
    "the configuration is wrong": (Ended(78, b"", ()), ExitCode.INVALID_CONFIGURATION, 1, None),
    "the source is not ready": (Ended(69, b"", ()), ExitCode.SOURCE_UNAVAILABLE, 12, 1800),
    "throttled": (Ended(75, b"", ()), ExitCode.TRANSIENT, 4, 120),
    "a fault": (Ended(1, b"", ()), Termination.ERROR, 3, None),
    "killed by itself": (Ended(137, b"", ()), Termination.ERROR, 3, None),
    "a segmentation fault": (Ended(139, b"", ()), Termination.CRASHED, 2, 10),
    "an unknown instruction, as a process": (Ended(-4, b"", ()), Termination.CRASHED, 2, 10),
    "for another processor": (Ended(255, b"exec /venv/bin/trainer: exec format error", ()), Termination.CRASHED, 2, 10),
    "a program that is not there": (
        Ended(128, b'runc create failed: exec: "/x": stat /x: no such file or directory: unknown', (), "StartError"),
        Termination.START_FAILED,
        1,
        None,
    ),
    "a runtime that is too busy": (
        Ended(128, b"failed to create shim task: context deadline exceeded", (), "StartError"),
        Termination.EVICTED,
        6,
        30,
    ),
    "out of memory": (Ended(137, b"", (), "OOMKilled"), Termination.OOM_KILLED, 2, 10),
    "at its deadline": (Ended(137, b"", (), "DeadlineExceeded: Pod was active longer"), Termination.TIMED_OUT, 2, 10),
    "evicted": (Ended(None, b"", (), "Evicted: The node was low on resource: memory."), Termination.EVICTED, 6, 30),
    "evicted for its own disk": (
        Ended(137, b"", (), 'Evicted: Usage of EmptyDir volume "tmp" exceeds the limit'),
        Termination.ERROR,
        3,
        None,
    ),
    "preempted": (Ended(143, b"", (), "Preempting: Preempted in order to admit critical pod"), Termination.EVICTED, 6, 30),
    "deleted": (Ended(None, b"", (), "its pod was deleted"), Termination.EVICTED, 6, 30),
    "not started": (Ended(None, b"", (), "ImagePullBackOff: …", Termination.START_FAILED), Termination.START_FAILED, 1, None),
}


@pytest.mark.parametrize("kind", ENDS)
def test_each_kind_of_end_is_tried_as_often_as_its_rule_says_and_after_its_wait(kind: str) -> None:
    ended, cause, tries, wait = ENDS[kind]
    policy = StepRetryPolicy(2, rules({}))
    assert (cause_of(ended), policy.tries(cause)) == (cause, tries)
    for times in range(1, tries + 1):
        decision = policy.evaluate(StepFailed("", cause, times), times, policy.bound)
        assert decision.action == (RetryAction.RETRY if times < tries else RetryAction.FAIL)
        if times < tries:
            assert (decision.retry_delay and decision.retry_delay.total_seconds()) == wait
    with pytest.raises(AirflowFailException if tries == 1 else StepFailed):
        settle("train", ended)


def test_airflows_own_number_of_tries_is_never_in_the_way() -> None:
    policy = StepRetryPolicy(2, rules({}))
    assert policy.bound >= sum(policy.tries(cause) - 1 for cause in [*ExitCode, *Termination])


def test_a_task_without_retries_is_tried_once_whatever_happens() -> None:
    policy = StepRetryPolicy(0, rules({}))
    assert policy.bound == 0
    assert policy.evaluate(StepFailed("", Termination.EVICTED), 1, 0).action == RetryAction.FAIL


def test_what_airflow_itself_fails_at_is_tried_as_often_as_the_task_says_also_after_it_was_cleared() -> None:
    policy = StepRetryPolicy(2, rules({}))
    for cleared_at in (0, 7):
        most = cleared_at + policy.bound
        actions = [policy.evaluate(AirflowException(), cleared_at + number, most).action for number in (1, 2, 3)]
        assert actions == [RetryAction.DEFAULT, RetryAction.DEFAULT, RetryAction.FAIL]


class State(dict[str, Any]):
    set = dict.__setitem__


class Try:
    """One try of a task, as Airflow tells a worker of it."""

    dag_id, task_id = "market_daily", "train"

    def __init__(self, number: int, most: int) -> None:
        self.try_number, self.max_tries = number, most
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: object) -> None:
        self.pushed[key] = value


def failed(step: StepOperator, state: State, number: int, most: int, ended: Ended) -> tuple[StepFailed, Try]:
    this = Try(number, most)
    with pytest.raises(StepFailed) as told:
        step.finish({"ti": this, "task_state_store": state}, ended.to_event())  # type: ignore[typeddict-item]
    return told.value, this


def test_each_cause_is_counted_by_itself_and_anew_once_the_task_is_cleared(program: Program) -> None:
    step, state = StepOperator(task_id="train", program="trainer", step="train", options={}, retries=1), State()
    memory, evicted = Ended(137, b"", (), "OOMKilled"), Ended(None, b"", (), "Evicted: low on memory")
    most = step.retries or 0
    assert failed(step, state, 1, most, evicted)[0].times == 1
    assert failed(step, state, 2, most, memory)[0].times == 1
    error, this = failed(step, state, 3, most, evicted)
    assert (error.times, this.pushed["failures"]) == (2, ["moved", "memory", "moved"])
    assert "its pod was taken away. Nothing, while it is tried again" in str(error) and "[2 of 6, it is tried again]" in str(
        error
    )
    error, _ = failed(step, state, 4, most, memory)
    assert (error.times, str(error).endswith("[2 of 2]")) == (2, True)
    assert failed(step, state, 5, 4 + most, memory)[0].times == 1


def test_a_crash_is_told_with_signal_and_processors_and_the_last_line(program: Program) -> None:
    program(
        "from step_contract.result import PLATFORM_PREFIX, describe_platform;"
        "print(PLATFORM_PREFIX + describe_platform()); print('importing torch', flush=True);"
        "import ctypes; ctypes.string_at(0)"
    )
    with pytest.raises(StepFailed, match=r"importing torch \(signal SIGSEGV; image \S+, node \S+.*: it crashed"):
        StepOperator(task_id="train", program="collector", step="train", options={}).execute({"ti": Try(1, 0)})  # type: ignore[typeddict-item]


def pod(memory: str) -> dict[str, Any]:
    resources = {"limits": {"memory": memory}, "requests": {"memory": memory, "cpu": "100m"}}
    return {"spec": {"containers": [{"name": "base", "resources": resources}, {"name": "other"}]}}


def test_a_step_that_ran_out_of_memory_gets_more_and_never_more_than_the_limit() -> None:
    assert [grown("2Gi", times, {}) for times in (0, 1, 2, 3)] == ["2Gi", "4096Mi", "8192Mi", "8192Mi"]
    settings = {"STEP_MEMORY_FACTOR": "1.5", "STEP_MEMORY_LIMIT": "700Mi"}
    assert [grown("512Mi", times, settings) for times in (1, 2)] == ["700Mi", "700Mi"]
    assert grown("1Gi", 1, settings) == "1024Mi", "never less than it was"
    made = pod("512Mi")
    assert "it gets 1024Mi, not 512Mi" in with_memory(made, "base", ["moved", "memory"])
    assert made["spec"]["containers"][0]["resources"] == {
        "limits": {"memory": "1024Mi"},
        "requests": {"memory": "1024Mi", "cpu": "100m"},
    }
    assert with_memory(made, "base", ["moved"]) == ""


@pytest.mark.parametrize(
    ("name", "value"), [("STEP_MEMORY_FACTOR", "0.5"), ("STEP_MEMORY_FACTOR", "x"), ("STEP_MEMORY_LIMIT", "lots")]
)
def test_a_wrong_setting_of_memory_is_told(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=value):
        grown("1Gi", 1, {name: value})


def test_tries_and_waits_are_settings() -> None:
    table = rules(
        {"STEP_SOURCE_TRIES": "3", "STEP_SOURCE_WAIT_SECONDS": "60", "STEP_MOVED_TRIES": "2", "STEP_PASSING_WAIT_SECONDS": "5"}
    )
    assert (table[ExitCode.SOURCE_UNAVAILABLE].tries, table[ExitCode.SOURCE_UNAVAILABLE].wait_seconds) == (3, 60)
    assert (table[Termination.EVICTED].tries, table[ExitCode.TRANSIENT].wait_seconds) == (2, 5)
