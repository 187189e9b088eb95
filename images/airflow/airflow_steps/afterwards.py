"""What is done about a step's pod once its task has ended, and what no task waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_steps.pod_client import Pods
from airflow_steps.slots import Slots

# A finished pod stays until its end is surely in Airflow's database: a triggerer that dies before that adopts it again.
REMOVE_SECONDS = 10.0
# What a triggerer that died so left over goes with a later step's pod.
SWEEP_AFTER = timedelta(hours=1)
OVER_SECONDS = 60.0

_running: set[asyncio.Task[None]] = set()


async def give_back(slots: Slots, pods: Pods, namespace: str, name: str) -> None:
    """Gives the slot back once the pod is over: its container's end is known up to a second before."""
    try:
        async with asyncio.timeout(OVER_SECONDS):
            async for pod in pods.follow(namespace, name):
                if pod.status.phase in ("Succeeded", "Failed"):
                    break
    except TimeoutError:
        pass
    finally:
        slots.give_back()


async def remove(pods: Pods, namespace: str, name: str) -> None:
    """Removes the pod, if it is not to be kept, when Airflow has surely stored its end."""
    await asyncio.sleep(REMOVE_SECONDS)
    await pods.remove(namespace, name)
    await pods.sweep(namespace, datetime.now(UTC) - SWEEP_AFTER)


def in_background(work: Coroutine[Any, Any, None]) -> None:
    """Does `work` without anybody waiting for it."""
    task = asyncio.create_task(work)
    _running.add(task)  # the event loop itself keeps no reference to it
    task.add_done_callback(_running.discard)
