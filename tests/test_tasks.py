"""Every task has a parent, and none dies unseen."""

from __future__ import annotations

import asyncio

import pytest

from faas.tasks import TaskSet

pytestmark = pytest.mark.both_loops


async def fail() -> None:
    raise ZeroDivisionError


async def test_leaving_cancels_what_is_left_and_waits_for_it() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.001)
            ended.append(1)

    async with TaskSet("test") as tasks:
        first, _ = tasks.spawn(work(), name="first"), tasks.spawn(work(), name="second")
        await asyncio.sleep(0)
        assert first.get_name() == "test/first"
        assert len(tasks) == 2
    assert (ended, len(tasks)) == ([1, 1], 0)


async def test_tasks_that_the_dying_spawn_are_cancelled_too() -> None:
    tasks = TaskSet("test")
    ended = []

    async def last_wish() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("last wish")

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            tasks.spawn(last_wish(), name="last")
            await asyncio.sleep(0)

    tasks.spawn(work(), name="first")
    await asyncio.sleep(0)
    await tasks.cancel()
    assert (ended, len(tasks)) == (["last wish"], 0)


async def test_a_spawned_task_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with TaskSet("test") as tasks:
        tasks.spawn(fail(), name="bad")
        assert await tasks.wait(1) == 0
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["task"]) == ("task_failed", "test/bad")


async def test_a_supervised_task_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[BaseException] = []
    async with TaskSet("test", on_failure=failures.append) as tasks:
        tasks.supervise(fail(), name="bad")
        tasks.supervise(asyncio.Event().wait(), name="cancelled in the end")
        tasks.spawn(fail(), name="not supervised")
        assert await tasks.wait(0.01) == 1
    assert [type(error) for error in failures] == [ZeroDivisionError]


async def test_there_may_be_nothing_to_wait_for() -> None:
    assert await TaskSet("test").wait(1) == 0


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


async def test_shielded_work_goes_on_without_its_caller_until_the_set_is_cancelled() -> None:
    tasks = TaskSet("test")
    is_over = asyncio.Event()
    caller = asyncio.get_running_loop().create_task(tasks.shield(is_over.wait(), name="long"))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller], timeout=10)
    assert caller.cancelled()
    assert len(tasks) == 1
    is_over.set()
    assert await tasks.wait(10.0) == 0


async def test_the_caller_of_shielded_work_gets_its_result_and_its_error(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise LookupError

    tasks = TaskSet("test")
    assert await tasks.shield(asyncio.sleep(0, "result"), name="work") == "result"
    with pytest.raises(LookupError):
        await tasks.shield(fail(), name="work")
    assert not caplog.records
