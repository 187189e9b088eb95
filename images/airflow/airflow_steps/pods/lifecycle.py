"""The beginning and the end of a step's pod: it is created once there is room, and deleted once its outcome is stored."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

from airflow_steps import metrics
from airflow_steps.pods.client import (
    CREATE_TIMEOUT_SECONDS,
    PodClient,
    PodNotAdmittedError,
    PodRejectedError,
    describe_error,
)
from airflow_steps.pods.follower import PodFollower
from airflow_steps.pods.slots import StepSlot
from airflow_steps.pods.status import (
    get_step_phase,
)

ADMISSION_RETRY_SECONDS = 2.0
READ_TIMEOUT_SECONDS = 30.0
# A finished pod stays until its outcome is in Airflow's database: a triggerer that dies before that adopts the pod again.
STORED_CHECK_INTERVAL_SECONDS = 10.0
MAX_STORED_CHECKS = 30
# Pods that such a triggerer left behind are deleted together with a later step's pod.
MAX_POD_AGE = timedelta(hours=1)
SWEEP_SECONDS = 600.0

log = logging.getLogger(__name__)
_background_tasks: set[asyncio.Task[None]] = set()


async def create_pod(client: PodClient, pod: Mapping[str, Any], slot: StepSlot, timeout: float | None, log: Any) -> bool:
    """Acquire a slot and create the pod once the cluster admits it. Return False if it exists already.

    The slot stays acquired. Raises PodRejectedError if the cluster rejects the pod, or neither slot nor cluster had room
    within `timeout` seconds; None waits forever.
    """
    deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
    if waiting := slot.describe_wait():
        log.info("%s", waiting)
    run_in_background(metrics.report_slots(slot.slots))
    try:
        async with asyncio.timeout_at(deadline):
            await slot.acquire()
    except TimeoutError as error:
        limit = slot.slots.limit_of(slot.bulk)
        raise PodRejectedError(f"timed out after {timeout:.0f} s waiting for one of {limit} slots") from error
    try:
        return await _create_admitted_pod(client, pod, deadline, log)
    except TimeoutError as error:
        slot.release()
        raise PodRejectedError(f"timed out after {timeout:.0f} s waiting for the cluster to admit the pod: {error}") from error
    except BaseException:
        slot.release()
        raise


async def _create_admitted_pod(client: PodClient, pod: Mapping[str, Any], deadline: float | None, log: Any) -> bool:
    """Create the pod once the cluster admits it. Return False if it exists already. Raises TimeoutError with the reason."""
    reason = ""
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                try:
                    return await client.create_pod(pod)
                except PodNotAdmittedError as error:
                    if str(error) != reason:
                        log.info("waiting for the cluster to admit the pod: %s", error)
                    reason = str(error)
                    await asyncio.sleep(ADMISSION_RETRY_SECONDS)
    except TimeoutError:
        # The API server may have created the pod without a response.
        if await _exists(client, pod):
            return False
        raise TimeoutError(reason or "the Kubernetes API does not respond") from None


async def _exists(client: PodClient, pod: Mapping[str, Any]) -> bool:
    """Return whether the pod exists. If the API server does not respond, the pod is deleted as soon as it does."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_SECONDS):
            return await client.read_pod(pod["metadata"]["namespace"], pod["metadata"]["name"]) is not None
    except TimeoutError:
        run_in_background(discard_pod(client, pod))
        return False


async def finish_pod(follower: PodFollower, slot: StepSlot) -> None:
    """Release the slot once the followed pod has terminated."""
    try:
        await follower.wait_for_sidecars()
    finally:
        slot.release()


async def delete_pod(client: PodClient, pod: Mapping[str, Any], is_stored: Callable[[], Awaitable[bool]]) -> None:
    """Delete the finished pod, unless it is to be kept, once Airflow has stored the step's outcome.

    Until then, a triggerer that takes over the task needs it.
    """
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    for _ in range(MAX_STORED_CHECKS):
        await asyncio.sleep(STORED_CHECK_INTERVAL_SECONDS)
        if await is_stored():
            await client.delete_finished_pod(namespace, name)
            break
    await sweep(client, namespace)


async def discard_pod(client: PodClient, pod: Mapping[str, Any]) -> None:
    """Delete the pod, also if the API server creates it only now: a request to create it may be on its way.

    A pod whose step has finished is kept if it is to be kept.
    """
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    await _discard_existing_pod(client, namespace, name)
    await asyncio.sleep(CREATE_TIMEOUT_SECONDS)
    await _discard_existing_pod(client, namespace, name)


async def _discard_existing_pod(client: PodClient, namespace: str, name: str) -> None:
    pod = await client.read_pod(namespace, name)
    if pod is not None and get_step_phase(pod):
        await client.delete_finished_pod(namespace, name)
    elif pod is not None:
        await client.delete_pod(namespace, name)
        log.info("pod %s deleted", name)


_last_sweeps: WeakKeyDictionary[PodClient, float] = WeakKeyDictionary()


async def sweep(client: PodClient, namespace: str) -> None:
    """Delete finished pods left behind by a triggerer that died. It lists all pods, so it runs rarely.

    The first call deletes nothing: after an outage of all triggerers, old pods may still be adopted.
    """
    now = asyncio.get_running_loop().time()
    if now - _last_sweeps.setdefault(client, now) >= SWEEP_SECONDS:
        _last_sweeps[client] = now
        await client.delete_old_pods(namespace, client.get_time() - MAX_POD_AGE)


def run_in_background(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine without waiting for it, whatever becomes of the trigger. An error is logged."""
    # In a context of its own: a log line after the trigger's end has no task's log to go to.
    task = asyncio.get_running_loop().create_task(coroutine, context=contextvars.Context())
    _background_tasks.add(task)  # the event loop keeps only a weak reference
    task.add_done_callback(_finish_background_task)


def _finish_background_task(task: asyncio.Task[None]) -> None:
    _background_tasks.discard(task)
    if not task.cancelled() and (error := task.exception()):
        log.error("a background task of a step failed: %s", describe_error(error), exc_info=error)
