"""Many callers, one flush at a time: who shares a batch, and whose failure is whose."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from faas.batching import MAX_BATCH, Batcher
from faas.errors import StoreUnavailableError
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = pytest.mark.both_loops

IMPOSSIBLE = -1


class Backend:
    """Doubles numbers; the test decides when, and which it can't do."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.is_away = False

    async def double(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        await self.open.wait()
        if self.is_away:
            raise StoreUnavailableError("away")
        if IMPOSSIBLE in numbers:
            raise ZeroDivisionError
        return [number * 2 for number in numbers]


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
async def tasks() -> AsyncIterator[TaskSet]:
    async with TaskSet("test") as tasks:
        yield tasks


@pytest.fixture
def batcher(backend: Backend, tasks: TaskSet) -> Batcher[int, int]:
    return Batcher(backend.double, tasks, name="double")


async def test_one_caller_waits_for_nobody(backend: Backend, batcher: Batcher[int, int]) -> None:
    assert await batcher(1) == 2
    assert await batcher(2) == 4
    assert backend.batches == [[1], [2]]


async def test_who_comes_while_a_batch_is_on_its_way_is_the_next_one(
    backend: Backend, batcher: Batcher[int, int]
) -> None:
    backend.open.clear()
    loop = asyncio.get_running_loop()
    first = loop.create_task(batcher(0))
    while not backend.batches:
        await asyncio.sleep(0)
    others = asyncio.gather(*[batcher(number) for number in range(1, MAX_BATCH + 3)])
    await asyncio.sleep(0)
    assert backend.batches == [[0]], "one flush at a time"
    backend.open.set()
    assert await first == 0
    assert await others == [number * 2 for number in range(1, MAX_BATCH + 3)]
    assert [len(batch) for batch in backend.batches] == [1, MAX_BATCH, 2]


async def test_one_that_cannot_be_done_takes_no_other_along(backend: Backend, batcher: Batcher[int, int]) -> None:
    answers = await asyncio.gather(*[batcher(number) for number in (12, IMPOSSIBLE, 14)], return_exceptions=True)
    assert answers[0] == 24
    assert isinstance(answers[1], ZeroDivisionError)
    assert answers[2] == 28


async def test_a_backend_that_is_away_is_asked_once_for_all(backend: Backend, batcher: Batcher[int, int]) -> None:
    backend.is_away = True
    answers = await asyncio.gather(*[batcher(number) for number in range(3)], return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailableError] * 3
    assert backend.batches == [[0, 1, 2]]
    backend.is_away = False
    assert await batcher(4) == 8


async def test_who_was_cancelled_before_its_turn_wants_nothing(backend: Backend, batcher: Batcher[int, int]) -> None:
    backend.open.clear()
    loop = asyncio.get_running_loop()
    first, second, third = (loop.create_task(batcher(number)) for number in range(3))
    while not backend.batches:
        await asyncio.sleep(0)
    late = loop.create_task(batcher(3))
    await asyncio.sleep(0)
    late.cancel()
    first.cancel()
    backend.open.set()
    assert await asyncio.gather(second, third) == [2, 4]
    assert await batcher(5) == 10
    assert backend.batches == [[0, 1, 2], [5]]


async def test_an_end_in_the_middle_leaves_nobody_waiting(
    backend: Backend, batcher: Batcher[int, int], tasks: TaskSet
) -> None:
    backend.open.clear()
    loop = asyncio.get_running_loop()
    callers = [loop.create_task(batcher(0))]
    while not backend.batches:
        await asyncio.sleep(0)
    callers.append(loop.create_task(batcher(1)))
    await asyncio.sleep(0)
    await tasks.cancel()
    await asyncio.wait(callers, timeout=5)
    assert [caller.cancelled() for caller in callers] == [True, True]
