"""Queued calls from their submission to their end: through a real queue that goes away, is emptied, and comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from faas.calls.memory_share import MemoryShare
from faas.clock import utc_now
from faas.errors import QueueUnavailableError
from faas.models import CallStatus
from faas.queue import sql, worker
from faas.queue.base import Depth
from faas.queue.redis import RedisQueue, open_redis_queue
from faas.queue.sql import SqlQueue
from faas.store.engine import Store, open_store
from tests.support.crew import Crew, echo, working_crew
from tests.support.services import free_port, running_redis
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.programs import FunctionRequest

EMPTY = Depth(waiting=0, delayed=0, leased=0, oldest_waiting_s=0.0)


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[Store]:
    async with open_store(sqlite_url) as store:
        yield store


async def ended(crew: Crew, count: int, *, sweeping: bool = False) -> None:
    """Wait until so many calls have succeeded, and no other is left."""

    async def all_have() -> bool:
        if sweeping:
            await crew.sweeper.sweep(utc_now())
        counted = await crew.store.calls.count_by_status()
        return counted[CallStatus.SUCCESS] == count == sum(counted.values())

    await wait_until(all_have, timeout_s=60)


# --- the embedded queue


async def test_a_call_on_an_idle_node_starts_at_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "POLL_S", 600.0)
    monkeypatch.setattr(worker, "FETCH_WAIT_S", 600.0)
    async with working_crew(store, SqlQueue(store.database), tmp_path) as crew:
        for count in (1, 2):
            await crew.submit()
            await ended(crew, count)


async def test_a_call_leaves_the_embedded_queue_with_the_write_that_ends_it(store: Store, tmp_path: Path) -> None:
    queue = SqlQueue(store.database)
    async with working_crew(store, queue, tmp_path) as crew:
        await asyncio.gather(*[crew.submit() for _ in range(100)])
        await ended(crew, 100)
        assert await queue.depth() == EMPTY


# --- Redis


@pytest.mark.redis
@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_a_redis_that_is_flushed_in_the_middle_loses_no_call(
    store: Store, tmp_path: Path, redis_url: str, count: int
) -> None:
    served = 0

    async def slow(request: FunctionRequest) -> bytes:
        nonlocal served
        served += 1
        await asyncio.sleep(0.05)
        return await echo(request)

    async with (
        open_redis_queue(redis_url) as queue,
        working_crew(store, queue, tmp_path, handler=slow) as crew,
        Redis.from_url(redis_url) as client,
    ):
        await asyncio.gather(*[crew.submit() for _ in range(count)])
        await wait_until(lambda: served > count // 4)
        await client.flushall()
        await ended(crew, count, sweeping=True)
        assert count <= served

        async def is_empty() -> bool:
            return await queue.depth() == EMPTY

        await wait_until(is_empty)


@pytest.mark.redis
async def test_without_redis_nothing_is_accepted(store: Store, tmp_path: Path) -> None:
    queue = RedisQueue(f"redis://127.0.0.1:{free_port()}/0")
    async with working_crew(store, queue, tmp_path) as crew:
        with pytest.raises(QueueUnavailableError):
            await crew.submit()
        assert sum((await store.calls.count_by_status()).values()) == 0
    await queue.close()


@pytest.mark.redis
async def test_without_redis_a_node_that_may_accepts_and_runs_when_it_is_back(store: Store, tmp_path: Path) -> None:
    port = free_port()
    queue = RedisQueue(f"redis://127.0.0.1:{port}/0")
    async with working_crew(store, queue, tmp_path, without_queue=True) as crew:
        calls = [await crew.submit() for _ in range(3)]
        assert [call.status for call in calls] == [CallStatus.QUEUED] * 3
        folder = tmp_path / "redis"
        folder.mkdir()
        with running_redis(folder, port=port):
            await ended(crew, 3, sweeping=True)
    await queue.close()


# --- the share of memory


async def test_calls_beyond_the_share_wait_in_order() -> None:
    share = MemoryShare(100)
    loop = asyncio.get_running_loop()
    ends = {name: asyncio.Event() for name in "abcde"}
    began: list[str] = []

    async def call(name: str, memory_mib: float) -> None:
        async with share.taken(memory_mib):
            began.append(name)
            await ends[name].wait()

    sizes = {"a": 60.0, "b": 60.0, "c": 10.0, "d": 40.0, "e": 500.0}
    tasks = {name: loop.create_task(call(name, size)) for name, size in sizes.items()}
    await wait_until(lambda: began == ["a"])
    assert repr(share) == "<MemoryShare 60 of 100 MiB, 4 waiting>"
    ends["a"].set()
    await wait_until(lambda: began == ["a", "b", "c"])
    tasks["d"].cancel()
    for name in "bc":
        ends[name].set()
    await wait_until(lambda: began == ["a", "b", "c", "e"])
    ends["e"].set()
    await asyncio.wait(tasks.values())
    assert repr(share) == "<MemoryShare 0 of 100 MiB, 0 waiting>"


async def test_who_is_cancelled_in_the_moment_of_its_turn_keeps_nothing() -> None:
    share = MemoryShare(10)
    loop = asyncio.get_running_loop()
    ran: list[str] = []

    async def call(name: str) -> None:
        async with share.taken(10):
            ran.append(name)

    async with share.taken(10):
        second, third = (loop.create_task(call(name)) for name in ("second", "third"))
        await wait_until(lambda: "2 waiting" in repr(share))
    second.cancel()  # it has its turn by now, and does not know yet
    await asyncio.wait([second, third])
    assert ran == ["third"]
    assert repr(share) == "<MemoryShare 0 of 10 MiB, 0 waiting>"
