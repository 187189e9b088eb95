"""One object for each event loop."""

from __future__ import annotations

import asyncio
import gc

from airflow_steps.pods.event_loop import PerEventLoop


class Resource:
    """What a process has once for each event loop."""


def test_an_event_loop_has_one_object_and_another_loop_has_its_own() -> None:
    resources = PerEventLoop[Resource]()

    async def get_twice() -> tuple[Resource, Resource]:
        first = resources.get() or resources.set_default(Resource())
        return first, resources.get() or resources.set_default(Resource())

    first, second = asyncio.run(get_twice()), asyncio.run(get_twice())
    assert first[0] is first[1] and second[0] is second[1] and first[0] is not second[0]


def test_of_two_objects_for_an_event_loop_the_first_is_kept() -> None:
    resources = PerEventLoop[Resource]()

    async def set_twice() -> bool:
        first = resources.set_default(Resource())
        return resources.set_default(Resource()) is first

    assert asyncio.run(set_twice())


def test_the_object_of_a_closed_event_loop_is_not_kept() -> None:
    resources = PerEventLoop[Resource]()

    async def set_once() -> None:
        resources.set_default(Resource())

    asyncio.run(set_once())
    gc.collect()
    assert len(resources) == 0
