from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import TaskSkippedEvent, TaskSuccessEvent, TriggerEvent
from airflow_steps.failure_log import Note
from airflow_steps.pod_status import pod_name
from airflow_steps.retry_policy import cause_of
from airflow_steps.termination import Ended
from step_contract.errors import Termination
from step_contract.result import Result

from .fake_kubernetes import KubernetesApi
from .trigger_harness import Comms, Try, artifact, created, event_of, trigger


def test_a_step_that_committed_ends_the_task_with_its_uri_facts_and_log(
    play: Any, comms: Comms, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    this, uri = Try(), artifact(tmp_path)

    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(event_of(trigger(this)))
        name = pod_name(this)
        api.logs[name] = ["open: a session of the XKRX calendar"]
        await created(api, name)
        await api.runs(name)
        await api.ends(name, 0, Result(uri, {"state": "open"}).to_json().decode())
        return await running

    assert isinstance(play(scenario), TaskSuccessEvent)
    assert comms.xcoms == {"return_value": uri, "facts": {"state": "open"}}
    told = caplog.text + capfd.readouterr().out
    assert "collector:1 decide --session 2026-01-15" in told
    assert "open: a session of the XKRX calendar" in told


def test_success_without_a_whole_artifact_is_no_success(play: Any, comms: Comms) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(event_of(trigger(Try())))
        await created(api, pod_name(Try()))
        await api.ends(pod_name(Try()), 0, Result("file:///nowhere/x/manifest.json").to_json().decode())
        return await running

    event = play(scenario)
    assert not isinstance(event, TaskSuccessEvent)
    assert Ended.from_event(event.payload).code == 0
    assert not comms.xcoms


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [(65, "Error", None), (137, "OOMKilled", "OOMKilled"), (139, "Error", None)],
)
def test_another_end_is_handed_to_a_worker_with_code_message_and_reason(
    play: Any, code: int, reason: str, told: str | None
) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(event_of(trigger(Try())))
        await created(api, pod_name(Try()))
        await api.ends(pod_name(Try()), code, "what it said", reason=reason)
        return await running

    ended = Ended.from_event(play(scenario).payload)
    assert (ended.code, ended.result, ended.reason) == (code, b"what it said", told)


def test_how_a_step_ended_is_noted_before_a_worker_is_asked_to_settle_it(
    play: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")

    async def scenario(api: KubernetesApi) -> TriggerEvent:
        api.refuses = 'pods "x" is forbidden: violates PodSecurity'
        return await event_of(trigger(Try()))

    play(scenario)
    [noted] = (tmp_path / "artifacts" / "slack" / "ends").rglob("decide.-1.1.json")
    assert "violates PodSecurity" in Note.from_json(noted.read_bytes()).why


def test_nothing_to_do_skips_the_task(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(event_of(trigger(Try())))
        await created(api, pod_name(Try()))
        await api.ends(pod_name(Try()), 99)
        return await running

    assert isinstance(play(scenario), TaskSkippedEvent)


def test_two_triggerers_with_one_try_make_one_pod_and_tell_one_end(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> list[TriggerEvent]:
        both = [asyncio.create_task(event_of(trigger(Try()))) for _ in range(2)]
        await created(api, pod_name(Try()))
        await api.runs(pod_name(Try()))
        await api.ends(pod_name(Try()), 65)
        events = list(await asyncio.gather(*both))
        assert api.created == [pod_name(Try())]
        return events

    assert [Ended.from_event(event.payload).code for event in play(scenario)] == [65, 65]


def test_a_pod_that_somebody_deletes_is_told_as_that(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(event_of(trigger(Try())))
        await created(api, pod_name(Try()))
        await api.runs(pod_name(Try()))
        await api.vanishes(pod_name(Try()))
        return await running

    assert Ended.from_event(play(scenario).payload).reason == "its pod was deleted"


def test_a_watch_that_the_server_ends_misses_nothing(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        api.gone_versions = 2
        running = asyncio.create_task(event_of(trigger(Try())))
        await created(api, pod_name(Try()))
        await api.ends(pod_name(Try()), 69)
        return await running

    assert Ended.from_event(play(scenario).payload).code == 69


def test_a_pod_that_does_not_start_in_time_is_deleted_and_the_event_tells_why(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        event = {"reason": "FailedScheduling", "message": "0/2 nodes are available: 1 Insufficient memory", "metadata": {}}
        api.events = [event | {"involvedObject": {}}]
        # The API tells the time of creation in whole seconds.
        found = await event_of(trigger(Try(), start_seconds=1.5))
        assert api.deleted == [pod_name(Try())]
        return found

    reason = Ended.from_event(play(scenario).payload).reason
    assert reason and "not started" in reason and "Insufficient memory" in reason


def test_no_more_pods_run_at_once_than_the_limit_and_all_have_their_turn(play: Any) -> None:
    tries = [Try(task_id=f"step_{number}") for number in range(6)]

    async def scenario(api: KubernetesApi) -> int:
        running = [asyncio.create_task(event_of(trigger(this, limit=2))) for this in tries]
        most = 0
        for number in range(len(tries)):
            while len(api.created) <= number:
                await asyncio.sleep(0.01)
            most = max(most, api.alive())
            await api.ends(api.created[number], 65)
        await asyncio.gather(*running)
        return most

    assert play(scenario) <= 2


def test_a_quota_that_is_reached_is_waited_for(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_steps.admission.AGAIN_SECONDS", 0.05)
    first, second = Try(task_id="first"), Try(task_id="second")

    async def scenario(api: KubernetesApi) -> list[str]:
        api.quota = 1
        running = [asyncio.create_task(event_of(trigger(this))) for this in (first, second)]
        while not api.created:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert len(api.created) == 1
        await api.ends(api.created[0], 65)
        while len(api.created) < 2:
            await asyncio.sleep(0.01)
        await api.ends(api.created[1], 65)
        await asyncio.gather(*running)
        return api.created

    assert sorted(play(scenario)) == sorted([pod_name(first), pod_name(second)])


def test_a_place_that_is_never_free_is_waited_for_within_a_bound_and_the_cluster_quoted(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_steps.admission.AGAIN_SECONDS", 0.05)
    told = {"quota": "exceeded quota: steps", "webhook": "failed calling webhook", "slots": "waited 0 s for one of 1 slots"}

    async def scenario(api: KubernetesApi) -> list[Ended]:
        api.quota = 0
        ends = [await event_of(trigger(Try(), limit=1, queue_seconds=0.3))]
        api.quota, api.fails = None, "failed calling webhook"
        ends.append(await event_of(trigger(Try(), limit=1, queue_seconds=0.3)))
        api.fails = ""
        running = asyncio.create_task(event_of(trigger(Try(task_id="first"), limit=1)))
        await created(api, pod_name(Try(task_id="first")))
        ends.append(await event_of(trigger(Try(), limit=1, queue_seconds=0.3)))
        await api.ends(pod_name(Try(task_id="first")), 65)
        await running
        assert api.created == [pod_name(Try(task_id="first"))]
        return [Ended.from_event(one.payload) for one in ends]

    for ended, (_, words) in zip(play(scenario), told.items(), strict=True):
        assert cause_of(ended) == Termination.START_FAILED and words in str(ended.reason)


@pytest.mark.parametrize(("state", "left"), [("failed", False), ("deferred", True)])
def test_a_marked_tasks_pod_is_deleted_and_one_that_another_triggerer_took_is_left(play: Any, state: str, left: bool) -> None:
    this = Try()

    async def scenario(api: KubernetesApi) -> bool:
        made = trigger(this)
        running = asyncio.create_task(event_of(made))
        await created(api, pod_name(this))
        running.cancel()
        this.state = state
        await made.on_kill()
        return pod_name(this) in api.pods

    assert play(scenario) is left


def test_a_new_try_removes_the_pod_of_the_one_before_that_still_runs(play: Any) -> None:
    before, now = Try(), Try(try_number=2, id="01a2")

    async def scenario(api: KubernetesApi) -> list[str]:
        abandoned = asyncio.create_task(event_of(trigger(before)))
        await created(api, pod_name(before))
        abandoned.cancel()
        running = asyncio.create_task(event_of(trigger(now)))
        await created(api, pod_name(now))
        await api.ends(pod_name(now), 65)
        await running
        return api.deleted

    assert play(scenario) == [pod_name(before)]


def test_a_pods_name_differs_by_try_run_and_map_index_and_fits_however_long_the_names() -> None:
    tries = [Try(), Try(try_number=2), Try(map_index=0), Try(map_index=1), Try(id="another")]
    names = {pod_name(this) for this in tries}
    assert len(names) == len(tries)
    long = pod_name(Try(task_id="Группа.task_" + "x" * 200))
    assert len(long) <= 63 and long.replace("-", "").isalnum() and long == long.lower()


def test_a_step_that_ran_out_of_memory_is_tried_again_with_more(play: Any, comms: Comms) -> None:
    """As XComs go from the worker that judged the try before to the trigger of the next."""
    comms.xcoms["failures"] = ["memory"]
    this = Try(try_number=2)

    async def scenario(api: KubernetesApi) -> Any:
        made = trigger(this)
        resources = {"limits": {"memory": "512Mi"}, "requests": {"memory": "512Mi"}}
        made.pod_template_dict["spec"]["containers"][0]["resources"] = resources
        running = asyncio.create_task(event_of(made))
        await created(api, pod_name(this))
        given = api.pods[pod_name(this)]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        await api.ends(pod_name(this), 137, reason="OOMKilled")
        return given, (await running).payload

    given, payload = play(scenario)
    assert given == "1024Mi"
    assert cause_of(Ended.from_event(payload)) == Termination.OOM_KILLED


def test_a_pod_that_the_cluster_never_lets_in_ends_at_once_with_the_clusters_own_words(play: Any, comms: Comms) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        api.refuses = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
        return (await event_of(trigger(Try()))).payload

    ended = Ended.from_event(play(scenario))
    assert (cause_of(ended), "violates PodSecurity" in str(ended.reason)) == (Termination.START_FAILED, True)


def test_what_a_step_says_of_its_processor_is_kept_however_long_its_log(play: Any, comms: Comms) -> None:
    this = Try()

    async def scenario(api: KubernetesApi) -> Any:
        api.logs[pod_name(this)] = ["platform: image x86_64, node aarch64 (emulated)", *map(str, range(100))]
        running = asyncio.create_task(event_of(trigger(this)))
        await created(api, pod_name(this))
        await api.runs(pod_name(this))
        await api.ends(pod_name(this), 139)
        return (await running).payload

    ended = Ended.from_event(play(scenario))
    assert (ended.machine, cause_of(ended)) == ("image x86_64, node aarch64 (emulated)", Termination.CRASHED)
