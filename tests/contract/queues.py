"""Two nodes' queues on one backend, each of the three, and what tests do with them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from faas.ids import new_id
from faas.queue import keys
from faas.queue.base import CallQueue, Lease, Ticket
from faas.queue.redis import open_redis_queue
from faas.queue.sql import SqlQueue
from faas.store.engine import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["LONG_S", "SHORT_S", "dispatched", "ids_of", "leased", "nodes", "other", "queue", "queue_url"]

LONG_S = 30.0
SHORT_S = 0.2
"""Leases that outlast a test, and leases that a test waits for."""


@pytest.fixture(
    params=[
        "sql-sqlite",
        pytest.param("sql-postgresql", marks=pytest.mark.postgres),
        pytest.param("redis", marks=pytest.mark.redis),
    ]
)
def queue_url(request: pytest.FixtureRequest) -> str:
    """Of one, empty backend."""
    fixture = {"sql-sqlite": "sqlite_url", "sql-postgresql": "postgres_url", "redis": "redis_url"}[request.param]
    url: str = request.getfixturevalue(fixture)
    return url


@pytest.fixture
async def nodes(queue_url: str) -> AsyncIterator[tuple[CallQueue, CallQueue]]:
    """The queues of two nodes on it."""
    url, is_redis = queue_url, queue_url.startswith("redis")
    async with AsyncExitStack() as stack:
        opened: list[CallQueue] = []
        for _ in range(2):
            if is_redis:
                opened.append(await stack.enter_async_context(open_redis_queue(url)))
            else:
                opened.append(SqlQueue((await stack.enter_async_context(open_store(url))).database))
        yield opened[0], opened[1]
        if is_redis:
            await assert_nothing_is_left(url, opened[0])


async def assert_nothing_is_left(url: str, queue: CallQueue) -> None:
    """Whatever a test left in whatever state: once discarded, Redis is as it was before."""
    async with Redis.from_url(url, decode_responses=True) as client:
        for call_id in await client.hkeys(keys.CALLS):
            await queue.discard(call_id)
        assert set(await client.keys("*")) <= keys.RESTING
        assert await client.xlen(keys.WAKE) <= 1


@pytest.fixture
def queue(nodes: tuple[CallQueue, CallQueue]) -> CallQueue:
    return nodes[0]


@pytest.fixture
def other(nodes: tuple[CallQueue, CallQueue]) -> CallQueue:
    """The same queue, seen from another node."""
    return nodes[1]


async def dispatched(queue: CallQueue, count: int = 1, **ticket: object) -> list[str]:
    ids = [new_id() for _ in range(count)]
    for call_id in ids:
        await queue.dispatch(Ticket(call_id=call_id, **ticket))  # type: ignore[arg-type]
    return ids


async def leased(
    queue: CallQueue, max_count: int = 1, *, owner: str = "node-1", lease_s: float = LONG_S, wait_s: float = 0.0
) -> list[Lease]:
    return await queue.lease(owner=owner, max_count=max_count, lease_s=lease_s, wait_s=wait_s)


def ids_of(leases: list[Lease]) -> list[str]:
    return [lease.call_id for lease in leases]
