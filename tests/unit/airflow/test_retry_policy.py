"""How a termination is classified, how often and when the step is retried, and what its message says."""

from __future__ import annotations

from datetime import time, timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, RetryAction
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow_steps.operator import StepOperator
from airflow_steps.outcome import StepFailedError, verify_outcome
from airflow_steps.pods.spec import increase_container_memory, increase_memory
from airflow_steps.retry_policy import StepRetryPolicy, count_until_midnight, read_retry_rules
from airflow_steps.termination import ExitStatus, classify_termination
from step_contract.errors import RETRY_RULES, ConfigurationError, ExitCode, Termination

from .conftest import Program

# The exit status; its termination, how many attempts may terminate so, and the delay before the next in seconds.
CASES: dict[str, tuple[ExitStatus, ExitCode | Termination, int, int | None]] = {
    "invalid data": (ExitStatus(65, b"", ()), ExitCode.INVALID_DATA, 1, None),
    "invalid configuration": (ExitStatus(78, b"", ()), ExitCode.INVALID_CONFIGURATION, 1, None),
    "source unavailable": (ExitStatus(69, b"", ()), ExitCode.SOURCE_UNAVAILABLE, 12, 1800),
    "throttled": (ExitStatus(75, b"", ()), ExitCode.TRANSIENT, 4, 120),
    "unhandled error": (ExitStatus(1, b"", ()), Termination.ERROR, 3, None),
    "killed itself": (ExitStatus(137, b"", ()), Termination.ERROR, 3, None),
    "segmentation fault": (ExitStatus(139, b"", ()), Termination.CRASHED, 2, 10),
    "illegal instruction in a process": (ExitStatus(-4, b"", ()), Termination.CRASHED, 2, 10),
    "wrong architecture": (
        ExitStatus(255, b"exec /venv/bin/trainer: exec format error", ()),
        Termination.CRASHED,
        2,
        10,
    ),
    "missing program": (
        ExitStatus(128, b'runc create failed: exec: "/x": stat /x: no such file or directory: unknown', (), "StartError"),
        Termination.START_FAILED,
        1,
        None,
    ),
    "busy container runtime": (
        ExitStatus(128, b"failed to create shim task: context deadline exceeded", (), "StartError"),
        Termination.EVICTED,
        6,
        30,
    ),
    "OOM-killed": (ExitStatus(137, b"", (), "OOMKilled"), Termination.OOM_KILLED, 2, 10),
    "deadline exceeded": (ExitStatus(137, b"", (), "DeadlineExceeded: Pod was active longer"), Termination.TIMED_OUT, 2, 10),
    "evicted": (ExitStatus(None, b"", (), "Evicted: The node was low on resource: memory."), Termination.EVICTED, 6, 30),
    "evicted for its own disk usage": (
        ExitStatus(137, b"", (), 'Evicted: Usage of EmptyDir volume "tmp" exceeds the limit'),
        Termination.ERROR,
        3,
        None,
    ),
    "preempted": (
        ExitStatus(143, b"", (), "Preempting: Preempted in order to admit critical pod"),
        Termination.EVICTED,
        6,
        30,
    ),
    "deleted": (ExitStatus(None, b"", (), "its pod was deleted"), Termination.EVICTED, 6, 30),
    "not started": (
        ExitStatus(None, b"", (), "ImagePullBackOff: …", Termination.START_FAILED),
        Termination.START_FAILED,
        1,
        None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_termination_is_retried_by_its_own_rule(case: str) -> None:
    status, termination, max_attempts, delay = CASES[case]
    policy = StepRetryPolicy(2, timedelta(minutes=5), read_retry_rules({}))
    assert (classify_termination(status), policy.max_attempts(termination)) == (termination, max_attempts)
    for attempt in range(1, max_attempts + 1):
        decision = policy.evaluate(StepFailedError("", termination, attempt), attempt, policy.total_retries)
        assert decision.action == (RetryAction.RETRY if attempt < max_attempts else RetryAction.FAIL)
        if attempt < max_attempts:
            assert decision.retry_delay and decision.retry_delay.total_seconds() == (300 if delay is None else delay)
    with pytest.raises(AirflowFailException if max_attempts == 1 else StepFailedError):
        verify_outcome("train", status)


def test_airflows_retries_cover_all_rules_together() -> None:
    policy = StepRetryPolicy(2, timedelta(minutes=5), read_retry_rules({}))
    assert policy.total_retries >= sum(policy.max_attempts(termination) - 1 for termination in [*ExitCode, *Termination])


def test_a_task_without_retries_has_one_attempt() -> None:
    policy = StepRetryPolicy(0, timedelta(minutes=5), read_retry_rules({}))
    assert policy.total_retries == 0
    assert policy.evaluate(StepFailedError("", Termination.EVICTED), 1, 0).action == RetryAction.FAIL


def test_airflows_own_errors_are_retried_by_the_tasks_retries() -> None:
    """Also after the task was cleared, which raises max_tries."""
    policy = StepRetryPolicy(2, timedelta(minutes=5), read_retry_rules({}))
    for cleared_at in (0, 7):
        max_tries = cleared_at + policy.total_retries
        actions = [policy.evaluate(AirflowException(), cleared_at + number, max_tries).action for number in (1, 2, 3)]
        assert actions == [RetryAction.DEFAULT, RetryAction.DEFAULT, RetryAction.FAIL]


class TaskStateStore(dict[str, Any]):
    set = dict.__setitem__


class TaskInstance:
    """An attempt of a task, as a worker sees it."""

    dag_id, task_id = "market_daily", "train"

    def __init__(self, try_number: int, max_tries: int) -> None:
        self.try_number, self.max_tries = try_number, max_tries
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: object) -> None:
        self.xcoms[key] = value


def fail(
    step: StepOperator, state: TaskStateStore, try_number: int, max_tries: int, status: ExitStatus
) -> tuple[StepFailedError, TaskInstance]:
    ti = TaskInstance(try_number, max_tries)
    with pytest.raises(StepFailedError) as raised:
        step.execute_complete({"ti": ti, "task_state_store": state}, status.to_event())  # type: ignore[typeddict-item]
    return raised.value, ti


def test_each_termination_is_counted_separately_until_the_task_is_cleared(program: Program) -> None:
    step, state = StepOperator(program="trainer", step="train", options={}, retries=1), TaskStateStore()
    oom_killed, evicted = ExitStatus(137, b"", (), "OOMKilled"), ExitStatus(None, b"", (), "Evicted: low on memory")
    max_tries = step.retries or 0
    assert fail(step, state, 1, max_tries, evicted)[0].attempt == 1
    assert fail(step, state, 2, max_tries, oom_killed)[0].attempt == 1
    error, ti = fail(step, state, 3, max_tries, evicted)
    assert (error.attempt, ti.xcoms["failures"]) == (2, ["evicted", "oom_killed", "evicted"])
    assert "its pod was evicted. Wait while it is retried" in str(error)
    assert "[attempt 2 of 6; will be retried]" in str(error)
    error, _ = fail(step, state, 4, max_tries, oom_killed)
    assert (error.attempt, str(error).endswith("[attempt 2 of 2]")) == (2, True)
    assert fail(step, state, 5, 4 + max_tries, oom_killed)[0].attempt == 1


def test_retries_of_a_mapped_step_limit_all_its_attempts(program: Program) -> None:
    """Its max_tries are the `retries` that `partial` was given, not the policy's sum."""
    with DAG("mapped", schedule=None):
        mapped = StepOperator.partial(task_id="step", program="trainer", step="train", retries=2).expand(options=[{}])
    step: Any = mapped.unmap({"options": {}})
    evicted = ExitStatus(None, b"", (), "Evicted: low on memory")
    assert (mapped.retries, step.retry_policy.retries) == (2, 2)
    assert "will be retried" in str(fail(step, TaskStateStore(), 2, 2, evicted)[0])
    assert "will be retried" not in str(fail(step, TaskStateStore(), 3, 2, evicted)[0])
    timed_out = step.retry_policy.evaluate(TimeoutError(), try_number=1, max_tries=2)
    assert timed_out.action != RetryAction.FAIL


def test_a_crash_names_signal_architectures_and_last_line(program: Program) -> None:
    program(
        "from step_contract.result import PLATFORM_PREFIX, describe_platform;"
        "print(PLATFORM_PREFIX + describe_platform()); print('importing torch', flush=True);"
        "import ctypes; ctypes.string_at(0)"
    )
    with pytest.raises(StepFailedError, match=r"importing torch \(signal SIGSEGV; image \S+, node \S+.*: crashed"):
        StepOperator(program="collector", step="train", options={}).execute({"ti": TaskInstance(1, 0)})  # type: ignore[typeddict-item]


def make_pod(memory: str) -> dict[str, Any]:
    resources = {"limits": {"memory": memory}, "requests": {"memory": memory, "cpu": "100m"}}
    return {"spec": {"containers": [{"name": "base", "resources": resources}, {"name": "other"}]}}


def test_an_oom_killed_step_gets_more_memory_up_to_the_limit() -> None:
    assert [increase_memory("2Gi", oom_kills, {}) for oom_kills in (0, 1, 2, 3)] == ["2Gi", "4096Mi", "8192Mi", "8192Mi"]
    settings = {"STEP_MEMORY_FACTOR": "1.5", "STEP_MEMORY_LIMIT": "700Mi"}
    assert [increase_memory("512Mi", oom_kills, settings) for oom_kills in (1, 2)] == ["700Mi", "700Mi"]
    assert increase_memory("1Gi", 1, settings) == "1024Mi", "never less than it was"
    pod = make_pod("512Mi")
    assert "memory raised from 512Mi to 1024Mi" in increase_container_memory(pod, "base", ["evicted", "oom_killed"])
    assert pod["spec"]["containers"][0]["resources"] == {
        "limits": {"memory": "1024Mi"},
        "requests": {"memory": "1024Mi", "cpu": "100m"},
    }
    assert increase_container_memory(pod, "base", ["evicted"]) == ""


@pytest.mark.parametrize(
    ("name", "value"), [("STEP_MEMORY_FACTOR", "0.5"), ("STEP_MEMORY_FACTOR", "x"), ("STEP_MEMORY_LIMIT", "lots")]
)
def test_an_invalid_memory_setting_is_an_error(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=value):
        increase_memory("1Gi", 1, {name: value})


def test_max_attempts_and_delays_are_settings() -> None:
    rules = read_retry_rules(
        {
            "STEP_SOURCE_UNAVAILABLE_MAX_ATTEMPTS": "3",
            "STEP_SOURCE_UNAVAILABLE_RETRY_DELAY_SECONDS": "60",
            "STEP_EVICTED_MAX_ATTEMPTS": "2",
            "STEP_TRANSIENT_RETRY_DELAY_SECONDS": "5",
        }
    )
    source = rules[ExitCode.SOURCE_UNAVAILABLE]
    assert (source.max_attempts, source.delay_seconds) == (3, 60)
    assert (rules[Termination.EVICTED].max_attempts, rules[ExitCode.TRANSIENT].delay_seconds) == (2, 5)


@pytest.mark.parametrize(
    ("settings", "max_attempts"),
    [({}, 12), ({"SCHEDULE_TIME": "20:30"}, 7), ({"STEP_SOURCE_UNAVAILABLE_RETRY_DELAY_SECONDS": "3600"}, 6)],
)
def test_an_unavailable_source_is_retried_until_midnight(settings: dict[str, str], max_attempts: int) -> None:
    rules = read_retry_rules(settings)
    assert rules[ExitCode.SOURCE_UNAVAILABLE].max_attempts == max_attempts
    default = RETRY_RULES[ExitCode.SOURCE_UNAVAILABLE]
    assert count_until_midnight(time(18), default) == default.max_attempts
    assert count_until_midnight(time(23, 45), default) == 1
