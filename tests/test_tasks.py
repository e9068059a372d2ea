"""Tasks with a parent: waited for, also those that others began."""

from __future__ import annotations

import asyncio

from faas.tasks import TaskSet


async def test_waiting_includes_tasks_that_were_begun_meanwhile() -> None:
    tasks = TaskSet("test")
    ended: list[str] = []

    async def last() -> None:
        await asyncio.sleep(0.01)
        ended.append("last")

    async def first() -> None:
        await asyncio.sleep(0.01)
        tasks.spawn(last(), name="last")
        ended.append("first")

    tasks.spawn(first(), name="first")

    assert await tasks.wait(10.0) == 0
    assert ended == ["first", "last"]


async def test_waiting_ends_with_its_time_and_says_how_many_are_left() -> None:
    tasks = TaskSet("test")
    tasks.spawn(asyncio.sleep(60), name="long")

    assert await tasks.wait(0.01) == 1
    await tasks.cancel()
    assert len(tasks) == 0
