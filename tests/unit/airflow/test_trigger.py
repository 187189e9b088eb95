from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import TaskSkippedEvent, TaskSuccessEvent, TriggerEvent
from airflow_steps.failure_log import FailureRecord
from airflow_steps.pods.spec import make_pod_name
from airflow_steps.termination import ExitStatus, classify_termination
from step_contract.errors import Termination
from step_contract.result import Result

from .fake_kubernetes import KubernetesApi
from .trigger_harness import (
    SupervisorComms,
    TaskInstance,
    commit_artifact,
    make_trigger,
    run_trigger,
    wait_for_pod,
    wait_until,
)


def test_a_committed_step_ends_the_task_with_uri_facts_and_log(
    play: Any, comms: SupervisorComms, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    ti, uri = TaskInstance(), commit_artifact(tmp_path)

    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(run_trigger(make_trigger(ti)))
        name = make_pod_name(ti)
        api.logs[name] = ["open: a session of the XKRX calendar"]
        await wait_for_pod(api, name)
        await api.start_container(name)
        await api.terminate_container(name, 0, Result(uri, {"state": "open"}).to_json().decode())
        return await running

    assert isinstance(play(scenario), TaskSuccessEvent)
    assert comms.xcoms == {"return_value": uri, "facts": {"state": "open"}}
    log = caplog.text + capfd.readouterr().out
    assert "collector:1 decide --session 2026-01-15" in log
    assert "open: a session of the XKRX calendar" in log


def test_two_triggerers_that_store_an_xcom_at_once_both_end_the_task(
    play: Any, comms: SupervisorComms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_steps.airflow_internals.triggers.XCOM_RETRY_SECONDS", (0.01, 0.01))
    uri = commit_artifact(tmp_path)
    comms.conflicts = 2  # Airflow's answer to one of them

    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(run_trigger(make_trigger(TaskInstance())))
        await wait_for_pod(api, make_pod_name(TaskInstance()))
        await api.terminate_container(make_pod_name(TaskInstance()), 0, Result(uri).to_json().decode())
        return await running

    assert isinstance(play(scenario), TaskSuccessEvent)
    assert comms.xcoms["return_value"] == uri


def test_success_without_a_complete_artifact_is_an_event(play: Any, comms: SupervisorComms) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(run_trigger(make_trigger(TaskInstance())))
        await wait_for_pod(api, make_pod_name(TaskInstance()))
        await api.terminate_container(
            make_pod_name(TaskInstance()), 0, Result("file:///nowhere/x/manifest.json").to_json().decode()
        )
        return await running

    event = play(scenario)
    assert not isinstance(event, TaskSuccessEvent)
    assert ExitStatus.from_event(event.payload).code == 0
    assert not comms.xcoms


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [(65, "Error", None), (137, "OOMKilled", "OOMKilled"), (139, "Error", None)],
)
def test_a_failure_is_an_event_with_code_message_and_reason(play: Any, code: int, reason: str, expected: str | None) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(run_trigger(make_trigger(TaskInstance())))
        await wait_for_pod(api, make_pod_name(TaskInstance()))
        await api.terminate_container(make_pod_name(TaskInstance()), code, "a message", reason=reason)
        return await running

    status = ExitStatus.from_event(play(scenario).payload)
    assert (status.code, status.result, status.reason) == (code, b"a message", expected)


def test_a_termination_is_recorded_before_a_worker_handles_it(
    play: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")

    async def scenario(api: KubernetesApi) -> TriggerEvent:
        api.rejection = 'pods "x" is forbidden: violates PodSecurity'
        return await run_trigger(make_trigger(TaskInstance()))

    play(scenario)
    [record] = (tmp_path / "artifacts" / "monitor" / "terminations").rglob("decide.-1.1.json")
    assert "violates PodSecurity" in FailureRecord.from_json(record.read_bytes()).reason


def test_nothing_to_do_skips_the_task(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(run_trigger(make_trigger(TaskInstance())))
        await wait_for_pod(api, make_pod_name(TaskInstance()))
        await api.terminate_container(make_pod_name(TaskInstance()), 99)
        return await running

    assert isinstance(play(scenario), TaskSkippedEvent)


def test_two_triggerers_create_one_pod_per_attempt(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> list[TriggerEvent]:
        both = [asyncio.create_task(run_trigger(make_trigger(TaskInstance()))) for _ in range(2)]
        await wait_for_pod(api, make_pod_name(TaskInstance()))
        await api.start_container(make_pod_name(TaskInstance()))
        await api.terminate_container(make_pod_name(TaskInstance()), 65)
        events = list(await asyncio.gather(*both))
        assert api.created == [make_pod_name(TaskInstance())]
        return events

    assert [ExitStatus.from_event(event.payload).code for event in play(scenario)] == [65, 65]


def test_a_deleted_pod_is_reported_as_deleted(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        running = asyncio.create_task(run_trigger(make_trigger(TaskInstance())))
        await wait_for_pod(api, make_pod_name(TaskInstance()))
        await api.start_container(make_pod_name(TaskInstance()))
        await api.delete_pod(make_pod_name(TaskInstance()))
        return await running

    assert ExitStatus.from_event(play(scenario).payload).reason == "its pod was deleted"


def test_an_expired_watch_misses_no_change(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        api.expired_watches = 2
        running = asyncio.create_task(run_trigger(make_trigger(TaskInstance())))
        await wait_for_pod(api, make_pod_name(TaskInstance()))
        await api.terminate_container(make_pod_name(TaskInstance()), 69)
        return await running

    assert ExitStatus.from_event(play(scenario).payload).code == 69


def test_a_pod_that_does_not_start_is_deleted_with_a_reason(play: Any) -> None:
    async def scenario(api: KubernetesApi) -> TriggerEvent:
        event = {"reason": "FailedScheduling", "message": "0/2 nodes are available: 1 Insufficient memory", "metadata": {}}
        api.events = [event | {"involvedObject": {}}]
        # The API reports the time of creation in whole seconds.
        outcome = await run_trigger(make_trigger(TaskInstance(), start_timeout=1.5))
        assert api.deleted == [make_pod_name(TaskInstance())]
        return outcome

    reason = ExitStatus.from_event(play(scenario).payload).reason
    assert reason and "did not start" in reason and "Insufficient memory" in reason


def test_no_more_pods_run_at_once_than_the_limit(play: Any) -> None:
    tis = [TaskInstance(task_id=f"step_{number}") for number in range(6)]

    async def scenario(api: KubernetesApi) -> int:
        running = [asyncio.create_task(run_trigger(make_trigger(ti, max_pods=2))) for ti in tis]
        peak = 0
        for number in range(len(tis)):
            while len(api.created) <= number:
                await asyncio.sleep(0.01)
            peak = max(peak, api.count_active())
            await api.terminate_container(api.created[number], 65)
        await asyncio.gather(*running)
        return peak

    assert play(scenario) <= 2


def test_a_pod_waits_for_an_exhausted_quota(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_steps.pods.lifecycle.ADMISSION_RETRY_SECONDS", 0.05)
    first, second = TaskInstance(task_id="first"), TaskInstance(task_id="second")

    async def scenario(api: KubernetesApi) -> list[str]:
        api.quota = 1
        running = [asyncio.create_task(run_trigger(make_trigger(ti))) for ti in (first, second)]
        while not api.created:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert len(api.created) == 1
        await api.terminate_container(api.created[0], 65)
        while len(api.created) < 2:
            await asyncio.sleep(0.01)
        await api.terminate_container(api.created[1], 65)
        await asyncio.gather(*running)
        return api.created

    assert sorted(play(scenario)) == sorted([make_pod_name(first), make_pod_name(second)])


def test_waiting_for_admission_times_out_with_the_clusters_message(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_steps.pods.lifecycle.ADMISSION_RETRY_SECONDS", 0.05)
    expected = {
        "quota": "exceeded quota: steps",
        "webhook": "failed calling webhook",
        "slots": "timed out after 0 s waiting for one of 1 slots",
    }

    async def scenario(api: KubernetesApi) -> list[ExitStatus]:
        api.quota = 0
        events = [await run_trigger(make_trigger(TaskInstance(), max_pods=1, queue_timeout=0.3))]
        api.quota, api.outage = None, "failed calling webhook"
        events.append(await run_trigger(make_trigger(TaskInstance(), max_pods=1, queue_timeout=0.3)))
        api.outage = ""
        running = asyncio.create_task(run_trigger(make_trigger(TaskInstance(task_id="first"), max_pods=1)))
        await wait_for_pod(api, make_pod_name(TaskInstance(task_id="first")))
        events.append(await run_trigger(make_trigger(TaskInstance(), max_pods=1, queue_timeout=0.3)))
        await api.terminate_container(make_pod_name(TaskInstance(task_id="first")), 65)
        await running
        assert api.created == [make_pod_name(TaskInstance(task_id="first"))]
        return [ExitStatus.from_event(event.payload) for event in events]

    for status, (_, message) in zip(play(scenario), expected.items(), strict=True):
        assert classify_termination(status) == Termination.START_FAILED and message in str(status.reason)


@pytest.mark.parametrize(("state", "kept"), [("failed", False), ("deferred", True)])
def test_on_kill_keeps_the_pod_of_a_task_that_is_still_deferred(play: Any, state: str, kept: bool) -> None:
    ti = TaskInstance()

    async def scenario(api: KubernetesApi) -> bool:
        trigger = make_trigger(ti)
        running = asyncio.create_task(run_trigger(trigger))
        await wait_for_pod(api, make_pod_name(ti))
        running.cancel()
        ti.state = state
        await trigger.on_kill()
        await wait_until(lambda: ti.lookups > 0)
        for _ in range(20):  # for a request to delete the pod
            await asyncio.sleep(0.01)
        return make_pod_name(ti) in api.pods

    assert play(scenario) is kept


def test_a_new_attempt_deletes_the_running_pod_of_the_last(play: Any) -> None:
    first, second = TaskInstance(), TaskInstance(try_number=2, id="01a2")

    async def scenario(api: KubernetesApi) -> list[str]:
        abandoned = asyncio.create_task(run_trigger(make_trigger(first)))
        await wait_for_pod(api, make_pod_name(first))
        abandoned.cancel()
        running = asyncio.create_task(run_trigger(make_trigger(second)))
        await wait_for_pod(api, make_pod_name(second))
        await api.terminate_container(make_pod_name(second), 65)
        await running
        return api.deleted

    assert play(scenario) == [make_pod_name(first)]


def test_a_pods_name_is_unique_and_fits() -> None:
    tis = [
        TaskInstance(),
        TaskInstance(try_number=2),
        TaskInstance(map_index=0),
        TaskInstance(map_index=1),
        TaskInstance(id="another"),
    ]
    names = {make_pod_name(ti) for ti in tis}
    assert len(names) == len(tis)
    long = make_pod_name(TaskInstance(task_id="Группа.task_" + "x" * 200))
    assert len(long) <= 63 and long.replace("-", "").isalnum() and long == long.lower()


def test_an_oom_killed_step_is_retried_with_more_memory(play: Any, comms: SupervisorComms) -> None:
    """The worker that failed the last attempt passes its termination to the next trigger as an XCom."""
    comms.xcoms["failures"] = ["oom_killed"]
    ti = TaskInstance(try_number=2)

    async def scenario(api: KubernetesApi) -> Any:
        trigger = make_trigger(ti)
        resources = {"limits": {"memory": "512Mi"}, "requests": {"memory": "512Mi"}}
        trigger.pod_template_dict["spec"]["containers"][0]["resources"] = resources
        running = asyncio.create_task(run_trigger(trigger))
        await wait_for_pod(api, make_pod_name(ti))
        memory = api.pods[make_pod_name(ti)]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        await api.terminate_container(make_pod_name(ti), 137, reason="OOMKilled")
        return memory, (await running).payload

    memory, payload = play(scenario)
    assert memory == "1024Mi"
    assert classify_termination(ExitStatus.from_event(payload)) == Termination.OOM_KILLED


def test_a_rejected_pod_fails_at_once_with_the_clusters_message(play: Any, comms: SupervisorComms) -> None:
    async def scenario(api: KubernetesApi) -> Any:
        api.rejection = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
        return (await run_trigger(make_trigger(TaskInstance()))).payload

    status = ExitStatus.from_event(play(scenario))
    assert (classify_termination(status), "violates PodSecurity" in str(status.reason)) == (Termination.START_FAILED, True)


def test_the_platform_is_kept_however_long_the_log(play: Any, comms: SupervisorComms) -> None:
    ti = TaskInstance()

    async def scenario(api: KubernetesApi) -> Any:
        api.logs[make_pod_name(ti)] = ["platform: image x86_64, node aarch64 (emulated)", *map(str, range(100))]
        running = asyncio.create_task(run_trigger(make_trigger(ti)))
        await wait_for_pod(api, make_pod_name(ti))
        await api.start_container(make_pod_name(ti))
        await api.terminate_container(make_pod_name(ti), 139)
        return (await running).payload

    status = ExitStatus.from_event(play(scenario))
    assert (status.platform, classify_termination(status)) == ("image x86_64, node aarch64 (emulated)", Termination.CRASHED)
