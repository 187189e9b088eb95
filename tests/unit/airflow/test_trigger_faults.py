"""A Kubernetes API that is silent, slow, throttling or wrong, and pods that do not behave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from airflow.triggers.base import TaskSuccessEvent
from airflow_steps.pods import client, follower, lifecycle
from airflow_steps.pods import log as pod_log
from airflow_steps.pods.slots import PodSlots, StepSlot
from airflow_steps.pods.spec import make_pod_name
from airflow_steps.termination import ExitStatus, classify_termination
from step_contract.errors import Termination
from step_contract.result import Result

from .fake_kubernetes import KubernetesApi, make_container_status
from .trigger_harness import Scenario, TaskInstance, commit_artifact, make_trigger, run_trigger, wait_for_pod, wait_until

NAME = make_pod_name(TaskInstance())


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "REQUEST_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(client, "RECONNECT_SECONDS", 0.05)
    monkeypatch.setattr(pod_log, "RECONNECT_SECONDS", 0.05)
    monkeypatch.setattr(client, "WATCH_TIMEOUT", aiohttp.ClientTimeout(total=0.3))
    monkeypatch.setattr(client, "LOG_TIMEOUT", aiohttp.ClientTimeout(sock_read=0.3))
    monkeypatch.setattr(lifecycle, "READ_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(lifecycle, "STORED_CHECK_INTERVAL_SECONDS", 0.05)


async def start(api: KubernetesApi, ti: TaskInstance | None = None, **more: Any) -> asyncio.Task[Any]:
    """Start a trigger; return once its pod exists."""
    ti = ti or TaskInstance()
    running = asyncio.create_task(run_trigger(make_trigger(ti, **more)))
    await wait_for_pod(api, make_pod_name(ti))
    return running


def get_status(event: Any) -> ExitStatus:
    return ExitStatus.from_event(event.payload)


def test_a_termination_is_noticed_although_the_watch_is_silent(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        api.silent.add("watch")
        running = await start(api)
        await api.start_container(NAME)
        await api.terminate_container(NAME, 65)
        return await running

    assert get_status(play(scenario)).code == 65


def test_a_pod_that_started_unnoticed_is_not_deleted(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WATCH_TIMEOUT", aiohttp.ClientTimeout(total=60))

    async def scenario(api: KubernetesApi) -> Any:
        api.silent.add("watch")
        running = await start(api, start_timeout=1.5)
        await wait_until(lambda: api.reads > 0)
        await api.start_container(NAME)
        reads = api.reads
        await wait_until(lambda: api.reads > reads)
        assert not api.deleted and not running.done()
        api.silent.clear()
        await api.terminate_container(NAME, 69)
        # The watch that is silent now would be renewed after a minute.
        running.cancel()
        return await run_trigger(make_trigger(TaskInstance()))

    assert get_status(play(scenario)).code == 69


def test_a_pod_that_changed_since_it_was_read_is_not_deleted(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        running = await start(api, start_timeout=1.5)
        api.before_delete = lambda: api.start_container(NAME)
        await wait_until(lambda: api.refused_deletes > 0)
        await api.terminate_container(NAME, 69)
        return await running

    assert get_status(play(scenario)).code == 69


def test_a_hanging_creation_times_out_and_releases_its_slot(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        api.silent.add("create")
        event = await run_trigger(make_trigger(TaskInstance(), queue_timeout=0.3))
        assert PodSlots.get(8).acquired == 0
        return event

    status = get_status(play(scenario))
    assert classify_termination(status) == Termination.START_FAILED
    assert "the Kubernetes API does not respond" in str(status.reason)


def test_a_pod_that_was_created_without_a_response_is_followed(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        api.silent.add("create")
        api.creates_silently = True
        running = await start(api, queue_timeout=0.3)
        await api.terminate_container(NAME, 65)
        return await running

    assert get_status(play(scenario)).code == 65


@pytest.mark.parametrize("status", [401, 429, 500, 503])
def test_a_hiccup_while_adopting_leaves_the_pod_running(play: Any, status: int) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        abandoned = await start(api)
        abandoned.cancel()
        api.statuses = {"list": [status, status], "read": [status], "watch": [status]}
        running = asyncio.create_task(run_trigger(make_trigger(TaskInstance())))
        await api.start_container(NAME)
        await wait_until(lambda: not any(api.statuses.values()))
        await api.terminate_container(NAME, 69)
        event = await running
        assert not api.deleted and api.created == [NAME]
        return event

    assert get_status(play(scenario)).code == 69


def test_a_killed_task_loses_its_pod_although_the_api_fails(play: Any) -> None:
    ti = TaskInstance()

    async def scenario(api: KubernetesApi) -> None:
        trigger = make_trigger(ti)
        running = asyncio.create_task(run_trigger(trigger))
        await wait_for_pod(api, NAME)
        running.cancel()
        ti.state = "failed"
        api.statuses["delete"] = [429, 500, 503]
        killed = asyncio.create_task(trigger.on_kill())
        await asyncio.sleep(0)
        killed.cancel()  # as Airflow does a second later
        await wait_until(lambda: NAME not in api.pods)

    play(scenario)


def test_a_cancelled_trigger_does_not_wait_for_its_log(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> None:
        api.silent.add("log")
        running = await start(api)
        await api.start_container(NAME)
        await wait_until(lambda: bool(api.log_requests) or api.hanging > 0)
        running.cancel()
        async with asyncio.timeout(0.2):
            await asyncio.wait([running])

    play(scenario)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that the step's log gets, with the warnings about it."""
    copied: list[str] = []

    class Recorder:
        def info(self, text: str, timestamp: str = "") -> None:
            copied.append(text)

        def warning(self, text: str) -> None:
            copied.append(text)

    monkeypatch.setattr(pod_log, "step_log", Recorder())
    return copied


@pytest.mark.parametrize("zone", ["Z", "+09:00"])
def test_a_log_that_is_cut_again_and_again_has_each_line_once(play: Any, lines: list[str], zone: str) -> None:
    async def scenario(api: KubernetesApi) -> None:
        api.log_zone, api.log_cuts = zone, [3, 5, 6]
        api.statuses["log"] = [429, 503]
        running = await start(api)
        await api.start_container(NAME)
        await api.print_lines(NAME, *(f"line {number}" for number in range(5)))
        await wait_until(lambda: "line 4" in lines)
        await api.print_lines(NAME, *(f"line {number}" for number in range(5, 10)))
        await api.terminate_container(NAME, 0)
        await running
        since = [request["sinceTime"] for request in api.log_requests if "sinceTime" in request]
        assert since and set(since) == {"2026-01-15T08:59:50Z"}

    play(scenario)
    assert lines == [f"line {number}" for number in range(10)]


def test_error_answers_are_no_log_lines(play: Any, lines: list[str]) -> None:
    async def scenario(api: KubernetesApi) -> None:
        api.statuses["log"] = [401, 429, 500, 503]
        running = await start(api)
        await api.start_container(NAME)
        await api.print_lines(NAME, "the only line")
        await wait_until(lambda: bool(lines))
        await api.terminate_container(NAME, 0)
        await running

    play(scenario)
    assert lines == ["the only line"]


def test_a_log_that_cannot_be_read_says_so_and_the_step_ends(
    play: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "LOG_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(follower, "SKIP_TIMEOUT_SECONDS", 0.3)

    async def scenario(api: KubernetesApi) -> Any:
        api.statuses["log"] = [503] * 1000
        running = await start(api)
        await api.start_container(NAME)
        await api.terminate_container(NAME, 65)
        return await running

    assert get_status(play(scenario)).code == 65
    [line] = lines
    assert "the end of the log is missing" in line and "fault 503" in line


def test_a_chatty_step_neither_blocks_nor_delays_its_neighbours(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB in 200,000 lines, printed before the neighbour terminates."""
    chatty, quiet = TaskInstance(task_id="chatty"), TaskInstance(task_id="quiet")
    monkeypatch.setattr(client, "REQUEST_TIMEOUT_SECONDS", 10.0)

    async def scenario(api: KubernetesApi) -> tuple[float, float]:
        api.logs[make_pod_name(chatty)] = ["x" * 100] * 200_000
        talking, running = await start(api, chatty), await start(api, quiet)
        await api.start_container(make_pod_name(quiet))
        await api.start_container(make_pod_name(chatty))
        loop, delays = asyncio.get_running_loop(), []

        async def measure_delays() -> None:
            while True:
                before = loop.time()
                await asyncio.sleep(0.01)
                delays.append(loop.time() - before)

        watchdog = asyncio.create_task(measure_delays())
        await asyncio.sleep(0.5)
        ended = loop.time()
        await api.terminate_container(make_pod_name(quiet), 65)
        await running
        duration = loop.time() - ended
        talking.cancel()
        watchdog.cancel()
        return max(delays), duration

    # The fake API sends the 20 MB in the same event loop.
    blocked, duration = play(scenario)
    assert blocked < 1.0 and duration < 3.0


def print_and_fail(lines: Iterable[str]) -> Scenario:
    """A step that prints the lines before its log is read, and fails; the scenario returns the event."""

    async def scenario(api: KubernetesApi) -> Any:
        api.logs[NAME] = list(lines)
        running = await start(api)
        await api.start_container(NAME)
        await api.terminate_container(NAME, 65)
        return await running

    return scenario


def test_lines_beyond_the_limit_are_counted_and_the_last_ones_kept(
    play: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_log, "MAX_LOG_BYTES", 1000)

    status = get_status(play(print_and_fail(f"line {number:03}" for number in range(500))))
    assert lines[:125] == [f"line {number:03}" for number in range(125)]
    assert "375 lines omitted" in lines[125]
    assert lines[126:] == [f"line {number:03}" for number in range(480, 500)] == list(status.last_lines)


def test_a_log_that_is_copied_too_slowly_ends_with_its_last_lines(
    play: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_log, "LINES_PER_SECOND", 100)
    monkeypatch.setattr(follower, "LOG_TIMEOUT_SECONDS", 0.5)

    play(print_and_fail(f"line {number:04}" for number in range(5000)))
    [position] = [number for number, line in enumerate(lines) if "lines omitted" in line]
    assert lines[:position] == [f"line {number:04}" for number in range(position)]
    assert lines[position].startswith(f"{5000 - position} lines omitted: the log was not copied within")
    assert lines[position + 1 :] == [f"line {number:04}" for number in range(4980, 5000)]


def test_a_line_without_end_is_truncated(play: Any, lines: list[str]) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        api.logs[NAME] = ["x" * 3_000_000, "after"]
        running = await start(api)
        await api.start_container(NAME)
        await api.terminate_container(NAME, 0)
        return await running

    play(scenario)
    assert lines[0].endswith("(truncated)") and len(lines[0]) < 20_000 and lines[1] == "after"


def test_a_pod_on_a_lost_node_is_reported_as_evicted_and_deleted(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        running = await start(api)
        await api.start_container(NAME)
        long_ago = datetime.now(UTC) - timedelta(minutes=5)
        api.pods[NAME]["metadata"]["deletionTimestamp"] = f"{long_ago:%Y-%m-%dT%H:%M:%SZ}"
        await api.start_container(NAME)
        event = await running
        assert api.deleted == [NAME]
        return event

    status = get_status(play(scenario))
    assert classify_termination(status) == Termination.EVICTED and "its node does not respond" in str(status.reason)


def test_a_sidecar_neither_delays_the_step_nor_keeps_its_pod(play: Any, tmp_path: Path) -> None:
    ti, uri = TaskInstance(), commit_artifact(tmp_path)

    async def scenario(api: KubernetesApi) -> Any:
        running = await start(api, ti)
        terminated = {"exitCode": 0, "message": Result(uri).to_json().decode(), "reason": "Completed"}
        await api.change(NAME, phase="Running", containerStatuses=[make_container_status({"terminated": terminated})])
        event = await running
        ti.state = "success"
        await wait_until(lambda: NAME in api.deleted)
        return event

    assert isinstance(play(scenario), TaskSuccessEvent)


def test_a_finished_pod_stays_until_airflow_has_stored_the_outcome(play: Any, tmp_path: Path) -> None:
    ti, uri = TaskInstance(), commit_artifact(tmp_path)

    async def scenario(api: KubernetesApi) -> None:
        running = await start(api, ti, on_finish="Succeeded,Failed")
        await api.terminate_container(NAME, 0, Result(uri).to_json().decode())
        await running
        await wait_until(lambda: ti.lookups >= 3)
        assert not api.deleted
        ti.state = "success"
        await wait_until(lambda: NAME in api.deleted)

    play(scenario)


@pytest.mark.parametrize(
    "message",
    [
        'rpc error: code = NotFound desc = failed to pull and unpack image "x:1": x:1: not found',
        "failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized",
        "pull access denied, repository does not exist or may require authorization",
    ],
)
def test_an_image_that_cannot_be_pulled_for_good_fails_at_once(play: Any, message: str) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        running = await start(api)
        waiting = {"waiting": {"reason": "ErrImagePull", "message": message}}
        await api.change(NAME, phase="Pending", containerStatuses=[make_container_status(waiting)])
        event = await running
        assert api.deleted == [NAME]
        return event

    status = get_status(play(scenario))
    assert classify_termination(status) == Termination.START_FAILED and message in str(status.reason)


def test_an_image_whose_registry_does_not_respond_is_waited_for(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        running = await start(api)
        waiting = {"waiting": {"reason": "ErrImagePull", "message": "dial tcp: i/o timeout"}}
        await api.change(NAME, phase="Pending", containerStatuses=[make_container_status(waiting)])
        await wait_until(lambda: api.watches > 1)
        await api.start_container(NAME)
        await api.terminate_container(NAME, 69)
        return await running

    assert get_status(play(scenario)).code == 69


@pytest.mark.parametrize("message", ['{"manifest": "x", "facts": null, "error": null}', "[" * 4000, "[]"])
def test_a_result_that_is_not_one_is_an_event(play: Any, message: str) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        running = await start(api)
        await api.terminate_container(NAME, 0, message)
        return await running

    assert get_status(play(scenario)).code == 0


def test_a_changed_limit_applies_to_steps_that_wait() -> None:
    async def scenario() -> int:
        slots = PodSlots.get(1)
        await StepSlot(slots).acquire()
        waiting = [asyncio.create_task(StepSlot(slots).acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        assert PodSlots.get(3) is slots
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        return sum(task.done() and not task.cancelled() for task in waiting)

    assert asyncio.run(scenario()) == 2
