"""What only the Redis queue has to show: losing Redis, and giving back all that it used."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from faas.errors import QueueUnavailableError
from faas.ids import new_id
from faas.queue import keys
from faas.queue.base import Lease, Ticket
from faas.queue.redis import RedisQueue, open_redis_queue
from tests.support.services import free_port, running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.redis


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[RedisQueue]:
    async with open_redis_queue(redis_url) as queue:
        yield queue


async def test_a_redis_that_does_not_answer_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(QueueUnavailableError):
        async with open_redis_queue(f"redis://127.0.0.1:{free_port()}/0"):
            pass
    lease = Lease(call_id=new_id(), token="t")
    with running_redis(tmp_path) as server:
        queue = RedisQueue(server.url)
        await queue.dispatch(Ticket(call_id=new_id()))
        waiting = asyncio.get_running_loop().create_task(queue.lease(owner="n", max_count=1, lease_s=9, wait_s=0.5))
        assert len(await waiting) == 1
    for failing in (
        queue.dispatch(Ticket(call_id=new_id())),
        queue.lease(owner="n", max_count=1, lease_s=1, wait_s=1),
        queue.renew([lease], lease_s=1),
        queue.ack(lease),
        queue.release(lease),
        queue.discard("x"),
        queue.known(["x"]),
        queue.release_owned("x"),
        queue.depth(),
        queue.check(),
    ):
        with pytest.raises(QueueUnavailableError):
            await failing
    await queue.close()


async def test_a_redis_that_comes_back_is_used_again(tmp_path: Path) -> None:
    port = free_port()
    queue = RedisQueue(f"redis://127.0.0.1:{port}/0")
    for _ in range(2):
        with running_redis(tmp_path, port=port):
            await queue.dispatch(Ticket(call_id=new_id()))
            assert len(await queue.lease(owner="n", max_count=9, lease_s=9, wait_s=1)) == 1
    await queue.close()


async def test_a_flushed_redis_works_on_also_for_a_lessee_that_waits(queue: RedisQueue, redis_url: str) -> None:
    await queue.dispatch(Ticket(call_id=new_id()))
    [lost] = await queue.lease(owner="n", max_count=1, lease_s=9, wait_s=1)
    waiting = asyncio.get_running_loop().create_task(queue.lease(owner="n", max_count=1, lease_s=9, wait_s=20))
    async with Redis.from_url(redis_url) as client:
        await asyncio.sleep(0.05)
        await client.flushall()
    assert not await queue.ack(lost)
    assert await queue.known([lost.call_id]) == set()
    await queue.dispatch(Ticket(call_id=lost.call_id))
    [again] = await waiting
    assert again.call_id == lost.call_id
    assert await queue.ack(again)


async def go_through(queue: RedisQueue, count: int) -> None:
    """Calls of many apps and all priorities: dispatched, some discarded, the others leased and acknowledged."""
    for start in range(0, count, 100):
        ids = [new_id() for _ in range(100)]
        await asyncio.gather(
            *[
                queue.dispatch(Ticket(call_id=call_id, priority=n % 3, fairness_key=f"app-{(start + n) % 37}"))
                for n, call_id in enumerate(ids)
            ]
        )
        await queue.discard(ids[0])
        leases = await queue.lease(owner="n", max_count=100, lease_s=9, wait_s=1)
        assert {lease.call_id for lease in leases} == set(ids[1:])
        await queue.discard(ids[1])
        done = await asyncio.gather(*[queue.ack(lease) for lease in leases])
        assert done.count(True) == 98


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_so_many_calls_leave_redis_as_small_as_it_was(queue: RedisQueue, redis_url: str, count: int) -> None:
    async def size(client: Redis) -> dict[str, int]:
        return {key: await client.memory_usage(key, samples=0) for key in await client.keys("*")}

    async with Redis.from_url(redis_url, decode_responses=True) as client:
        await go_through(queue, 100)
        before = await size(client)
        await go_through(queue, count)
        assert await size(client) == before
        assert set(before) == keys.RESTING


async def test_a_lease_costs_the_same_however_long_the_line_is(queue: RedisQueue, redis_url: str) -> None:
    async def flood(count: int) -> None:
        for start in range(0, count, 500):
            await asyncio.gather(
                *[queue.dispatch(Ticket(call_id=new_id(), fairness_key="flood")) for _ in range(start, start + 500)]
            )

    async def commands_of_a_lease(client: Redis) -> dict[str, int]:
        await queue.dispatch(Ticket(call_id=new_id(), fairness_key="small"))
        await client.config_resetstat()
        assert len(await queue.lease(owner="n", max_count=1, lease_s=99, wait_s=0)) == 1
        return {name: stats["calls"] for name, stats in (await client.info("commandstats")).items()}

    async with Redis.from_url(redis_url, decode_responses=True) as client:
        await flood(500)
        await commands_of_a_lease(client)  # makes the groups
        await commands_of_a_lease(client)
        short = await commands_of_a_lease(client)
        await flood(9_500)
        assert await commands_of_a_lease(client) == short


async def test_no_connection_is_lost_to_cancelled_callers(queue: RedisQueue) -> None:
    """A reply that stays behind on a connection would be the next caller's."""
    loop = asyncio.get_running_loop()
    ids = [new_id() for _ in range(300)]
    for number, call_id in enumerate(ids):
        task = loop.create_task(queue.dispatch(Ticket(call_id=call_id)))
        loop.call_later(number % 7 * 0.0002, task.cancel)
        await asyncio.wait([task])
        assert await queue.known([call_id]) <= {call_id}
    depth = await queue.depth()
    known = await queue.known(ids)
    assert depth.waiting == len(known)
    taken = await queue.lease(owner="n", max_count=500, lease_s=9, wait_s=0)
    assert {lease.call_id for lease in taken} == known
