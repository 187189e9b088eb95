"""What a trigger meets in a long life: clocks that differ, kills at a bad moment, versions, large and odd objects."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException
from airflow_steps import metrics
from airflow_steps.pods import lifecycle
from airflow_steps.pods import log as pod_log
from airflow_steps.pods.slots import PodSlots
from airflow_steps.pods.spec import make_pod_name
from airflow_steps.termination import ExitStatus

from .fake_kubernetes import KubernetesApi, make_container_status
from .test_trigger_faults import get_status, lines, short_timeouts, start
from .trigger_harness import TaskInstance, make_trigger, run_trigger, wait_for_pod, wait_until

__all__ = ["lines", "short_timeouts"]
NAME = make_pod_name(TaskInstance())


def test_an_event_has_no_null_characters() -> None:
    event = ExitStatus(65, b"a\0b", ("c\0d",), "e\0f", None, "g\0h").to_event()
    assert "\0" not in str([event["result"], *event["last_lines"], event["reason"], event["platform"]])


@pytest.mark.parametrize("verb", ["silent", "forbidden"])
def test_a_kill_while_a_creation_is_unanswered_releases_the_slot(play: Any, verb: str) -> None:
    async def scenario(api: KubernetesApi) -> None:
        api.silent.add("create")
        if verb == "silent":
            api.silent.add("read")
        else:
            api.statuses["read"] = [403]
        running = asyncio.create_task(run_trigger(make_trigger(TaskInstance(), queue_timeout=0.2)))
        if verb == "silent":
            await wait_until(lambda: api.hanging >= 2)
            running.cancel()
        await asyncio.wait([running])
        assert PodSlots.get(8).acquired == 0

    play(scenario)


EARLY, LATE, MUCH_LATER = (
    "0190163d-8694-739b-aea5-966c26f8ad90",
    "0190163d-9a1c-739b-aea5-966c26f8ad90",  # 5 s later
    "01901688-1c94-739b-aea5-966c26f8ad90",  # more than an hour later
)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (TaskInstance(id=LATE), TaskInstance(id=EARLY, try_number=2)),  # the clocks of two schedulers differ
        (TaskInstance(id=EARLY), TaskInstance(id=EARLY, try_number=2)),  # it failed while it was queued
        (TaskInstance(id=EARLY), TaskInstance(id=MUCH_LATER, try_number=2)),
        (TaskInstance(id=EARLY, try_number=3), TaskInstance(id=MUCH_LATER)),  # the run was created again
        (TaskInstance(id=EARLY), TaskInstance(id=MUCH_LATER)),
    ],
)
def test_the_later_of_two_attempts_runs(play: Any, first: TaskInstance, second: TaskInstance) -> None:
    async def scenario(api: KubernetesApi) -> None:
        (await start(api, first)).cancel()
        running = await start(api, second)
        assert api.deleted == [make_pod_name(first)]
        assert [event async for event in make_trigger(first).run()] == []
        assert list(api.pods) == [make_pod_name(second)]
        running.cancel()

    play(scenario)


async def cut_log(api: KubernetesApi, times: list[datetime], lines: list[str]) -> None:
    """Run a step that prints a line at each time, the connection lost after the second."""
    api.log_times, api.log_cuts = times, [2]
    running = await start(api)
    await api.start_container(NAME)
    await api.print_lines(NAME, "line 0", "line 1")
    await wait_until(lambda: "line 1" in lines)
    await api.print_lines(NAME, *(f"line {number}" for number in range(2, len(times))))
    await wait_until(lambda: len(api.log_requests) >= 2 and len(lines) > 2)
    await api.terminate_container(NAME, 65)
    await running


def test_no_line_is_lost_if_the_clock_of_the_node_is_ahead(play: Any, lines: list[str]) -> None:
    async def scenario(api: KubernetesApi) -> None:
        api.node_clock = timedelta(minutes=2)
        now = datetime.now(UTC) + api.node_clock
        await cut_log(api, [now + timedelta(seconds=number) for number in range(-40, -34)], lines)

    play(scenario)
    assert lines == [f"line {number}" for number in range(6)]


def test_no_line_is_lost_if_the_clock_of_the_node_is_set_back(play: Any, lines: list[str]) -> None:
    async def scenario(api: KubernetesApi) -> None:
        now = datetime.now(UTC)
        await cut_log(api, [now + timedelta(seconds=number) for number in (0, 1, 2, -3, -2, -1)], lines)

    play(scenario)
    assert lines == [f"line {number}" for number in range(6)]


def test_each_line_is_copied_once_however_many_were_read(play: Any, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_log, "MAX_RECENT_LINES", 3)

    async def scenario(api: KubernetesApi) -> None:
        api.log_cuts = [20, 41, 60]
        running = await start(api)
        await api.print_lines(NAME, *(f"line {number}" for number in range(100)))
        await api.start_container(NAME)
        await wait_until(lambda: len(lines) >= 100)
        await api.terminate_container(NAME, 65)
        await running

    play(scenario)
    assert lines == [f"line {number}" for number in range(100)]


def test_a_pod_that_starts_is_not_deleted_because_clocks_differ(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        api.clock = timedelta(minutes=-5)
        running = await start(api)
        await wait_until(lambda: api.watches > 0 or bool(api.deleted))
        await api.start_container(NAME)
        await api.terminate_container(NAME, 69)
        return await running

    assert get_status(play(scenario)).code == 69


def test_a_pod_that_started_late_may_run_as_long_as_any(play: Any) -> None:
    """It waited for a node while no triggerer ran that would have deleted it."""

    async def scenario(api: KubernetesApi) -> Any:
        (await start(api)).cancel()
        long_ago, now = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC)
        api.pods[NAME]["metadata"]["creationTimestamp"] = f"{long_ago:%Y-%m-%dT%H:%M:%SZ}"
        running = [make_container_status({"running": {}})]
        await api.change(NAME, phase="Running", startTime=f"{now:%Y-%m-%dT%H:%M:%SZ}", containerStatuses=running)
        watches = api.watches
        adopted = asyncio.create_task(run_trigger(make_trigger(TaskInstance())))
        await wait_until(lambda: api.watches > watches + 1 or bool(api.deleted))
        await api.terminate_container(NAME, 69)
        return await adopted

    assert get_status(play(scenario)).code == 69


def test_pods_that_wait_for_their_trigger_are_not_swept(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage of the triggerer, thousands of triggers start one after the other."""
    monkeypatch.setattr(metrics, "POD_SLOTS_SECONDS", 0.05)
    waiting = TaskInstance(task_id="waiting")

    async def scenario(api: KubernetesApi) -> None:
        (await start(api, waiting, on_finish="Succeeded,Failed")).cancel()
        ti, name = TaskInstance(), make_pod_name(waiting)
        long_ago = datetime.now(UTC) - timedelta(hours=2)
        api.pods[name]["metadata"]["creationTimestamp"] = f"{long_ago:%Y-%m-%dT%H:%M:%SZ}"
        await api.terminate_container(name, 0)
        running = await start(api, ti, on_finish="Succeeded,Failed")
        await api.terminate_container(NAME, 65)
        await running
        ti.state = "scheduled"
        await wait_until(lambda: NAME in api.deleted)
        await wait_until(lambda: not lifecycle._background_tasks)
        assert name in api.pods

    play(scenario)


def test_no_pod_is_created_with_templates_that_were_not_rendered(play: Any) -> None:
    """Airflow gives a trigger no DAG if no version that it finds has the task."""
    plain = SimpleNamespace(**vars(TaskInstance()))

    async def scenario(api: KubernetesApi) -> None:
        with pytest.raises(AirflowException, match="templates"):
            await run_trigger(make_trigger(plain))  # type: ignore[arg-type]
        assert not api.created

    play(scenario)


def test_a_late_kill_keeps_a_finished_pod_that_is_to_be_kept(play: Any) -> None:
    """Another triggerer took over the task and has completed it."""
    ti = TaskInstance(state="success")

    async def scenario(api: KubernetesApi) -> None:
        trigger = make_trigger(ti, on_finish="")
        running = asyncio.create_task(run_trigger(trigger))
        await wait_for_pod(api, NAME)
        running.cancel()
        await api.terminate_container(NAME, 0)
        reads = api.reads
        await trigger.on_kill()
        await wait_until(lambda: api.reads >= reads + 2 or bool(api.deleted))
        assert not api.deleted

    play(scenario)


def test_a_line_with_an_odd_time_does_not_lose_the_outcome(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        api.log_prefix = "0001-01-01T00:00:00.000000000+09:00"
        running = await start(api)
        await api.print_lines(NAME, "before the calendar began")
        await api.start_container(NAME)
        await api.terminate_container(NAME, 65)
        return await running

    assert get_status(play(scenario)).code == 65


@pytest.mark.parametrize("state", ["scheduled", "queued", "running"])
def test_a_late_kill_leaves_the_pod_to_a_worker_that_continues_the_attempt(play: Any, state: str) -> None:
    """The trigger has failed in the triggerer that took it over."""
    ti = TaskInstance(state=state)

    async def scenario(api: KubernetesApi) -> None:
        trigger = make_trigger(ti)
        running = asyncio.create_task(run_trigger(trigger))
        await wait_for_pod(api, NAME)
        running.cancel()
        await trigger.on_kill()
        await wait_until(lambda: ti.lookups > 0)
        await asyncio.wait(lifecycle._background_tasks, timeout=0.5)
        assert not api.deleted

    play(scenario)
