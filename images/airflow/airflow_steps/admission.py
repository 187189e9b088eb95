"""How a step's pod gets its place: a slot of this process, and then the cluster's consent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from airflow_steps import metrics
from airflow_steps.afterwards import in_background
from airflow_steps.pod_client import NotNow, Pods, Refused
from airflow_steps.slots import Slots

AGAIN_SECONDS = 2.0


async def admit(pods: Pods, pod: Mapping[str, Any], slots: Slots, seconds: float | None, log: Any) -> bool:
    """Creates the pod as soon as slots and cluster let it, and leaves with a slot taken; False where it is there already.

    Raises Refused where it never will be let in, or was not within so many `seconds`; None: it may wait for ever.
    """
    since, said = time.monotonic(), ""
    if not slots.free:
        log.info("waits for one of %d slots, %d before it", slots.limit, slots.waiting)
    in_background(metrics.tell_load(slots))
    try:
        async with asyncio.timeout(seconds):
            await slots.take()
    except TimeoutError as error:
        raise Refused(f"it waited {seconds:.0f} s for one of {slots.limit} slots") from error
    try:
        while True:
            try:
                return await pods.create(pod)
            except NotNow as reason:
                if seconds is not None and time.monotonic() - since > seconds:
                    raise Refused(f"the cluster has not let it in for {seconds:.0f} s: {reason}") from reason
                if str(reason) != said:
                    log.info("waits for the cluster to let it in: %s", reason)
                said = str(reason)
                await asyncio.sleep(AGAIN_SECONDS)
    except BaseException:
        slots.give_back()
        raise
