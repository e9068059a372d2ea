"""The queue in Redis 7 or newer: a Stream with a consumer group for each app and priority, leases of our own beside.

The streams hold the line and hand each entry out once; whether a lessee is alive is decided by a deadline that it
moves on (`renew`), not by the stream's idle time, which takes long calls from the living. Each operation is one Lua
script: there is no state between two steps, and no script waits. `keys.py` draws all that is kept.

To wait, a lessee blocks for up to a second on a small stream that every change touches, on a connection that does
nothing else.

Each command is a task of its own that a cancelled caller leaves behind: redis-py writes inside `asyncio.wait_for`,
which before Python 3.12 loses a cancellation that meets the end of the write, and a cancelled command costs its
connection.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from faas.batching import Batcher
from faas.clock import monotonic
from faas.errors import QueueUnavailableError
from faas.ids import new_id
from faas.queue.base import Depth, Lease, Ticket
from faas.queue.keys import CALLS, KEYS, WAKE
from faas.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Collection, Sequence
    from datetime import datetime

    from redis.commands.core import AsyncScript

__all__ = ["RedisQueue", "open_redis_queue"]

OLDEST_REDIS = 7
BLOCK_S = 1.0
"""Longest block: a call whose `wake` was lost with a fail-over is seen that late."""

COMMAND_TIMEOUT_S = 5.0
"""More than a block lasts: redis-py takes a longer one for a dead connection."""

CONNECT_TIMEOUT_S = 2.0
MAX_CONNECTIONS = 64
RETRIES = 2
AT_ONCE = 500
"""Delayed calls that one lease puts in line: 2.4 ms during which Redis does nothing else."""

_FOREIGN = (RedisError, OSError)
_T = TypeVar("_T")


class RedisQueue:
    """A `CallQueue` in Redis; `open_redis_queue` opens one."""

    def __init__(self, url: str) -> None:
        self._commands = _client(url)
        self._blocking = _client(url)
        common = _text("common")
        self._scripts: dict[str, AsyncScript] = {
            name: self._commands.register_script(common + _text(name))
            for name in ("dispatch", "lease", "renew", "ack", "release", "release_owned", "discard", "depth")
        }
        self._tasks = TaskSet("redis")
        self._dispatch = Batcher(self._dispatch_many, self._tasks, name="dispatch")
        self._ack = Batcher(self._ack_many, self._tasks, name="ack")

    async def check(self) -> None:
        """Return when Redis answers and is new enough."""
        server = await self._answer(self._commands.info("server"))
        version = str(server["redis_version"])
        if int(version.partition(".")[0]) < OLDEST_REDIS:
            raise QueueUnavailableError(f"Redis {version} is too old for the queue; use {OLDEST_REDIS} or newer")

    async def dispatch(self, ticket: Ticket) -> None:
        await self._dispatch(ticket)

    async def lease(self, *, owner: str, max_count: int, lease_s: float, wait_s: float) -> list[Lease]:
        deadline = monotonic() + wait_s
        while True:
            token = new_id()
            reply = await self._run("lease", owner, token, max_count, int(lease_s * 1000), AT_ONCE)
            call_ids, next_ms, last_seen = cast("tuple[list[str], int, str]", reply)
            left_s = deadline - monotonic()
            if call_ids or left_s <= 0:
                return [Lease(call_id=call_id, token=token) for call_id in call_ids]
            next_s = BLOCK_S if next_ms < 0 else next_ms / 1000
            await self._wait(last_seen, min(left_s, BLOCK_S, next_s))

    async def renew(self, leases: Collection[Lease], *, lease_s: float) -> set[str]:
        if not leases:
            return set()
        return set(cast("list[str]", await self._run("renew", int(lease_s * 1000), *_pairs(leases))))

    async def ack(self, lease: Lease) -> bool:
        return await self._ack(lease) == 1

    async def release(self, lease: Lease, *, not_before: datetime | None = None) -> bool:
        return await self._run("release", lease.call_id, lease.token, _millis(not_before)) == 1

    async def discard(self, call_id: str) -> None:
        await self._run("discard", call_id)

    async def known(self, call_ids: Collection[str]) -> set[str]:
        wanted = list(call_ids)
        if not wanted:
            return set()
        tickets = await self._answer(cast("Awaitable[list[str | None]]", self._commands.hmget(CALLS, wanted)))
        return {call_id for call_id, ticket in zip(wanted, tickets, strict=True) if ticket is not None}

    async def release_owned(self, owner_prefix: str) -> int:
        return cast("int", await self._run("release_owned", owner_prefix))

    async def depth(self) -> Depth:
        waiting, delayed, leased, oldest_ms = cast("list[int]", await self._run("depth"))
        return Depth(waiting=waiting, delayed=delayed, leased=leased, oldest_waiting_s=oldest_ms / 1000)

    async def close(self) -> None:
        await self._tasks.cancel()
        await self._blocking.aclose()
        await self._commands.aclose()

    async def _dispatch_many(self, tickets: Sequence[Ticket]) -> list[int]:
        fields = [(one.call_id, one.priority, one.fairness_key, _millis(one.not_before)) for one in tickets]
        return cast("list[int]", await self._run("dispatch", *[field for ticket in fields for field in ticket]))

    async def _ack_many(self, leases: Sequence[Lease]) -> list[int]:
        return cast("list[int]", await self._run("ack", *_pairs(leases)))

    async def _run(self, name: str, *arguments: str | int) -> object:
        return await self._answer(self._scripts[name](keys=KEYS, args=arguments))

    async def _wait(self, last_seen: str, wait_s: float) -> None:
        """Until something changed since, or the time is over."""
        # BLOCK 0 would be for ever.
        await self._answer(self._blocking.xread({WAKE: last_seen}, block=max(int(wait_s * 1000), 1)))

    async def _answer(self, command: Awaitable[_T]) -> _T:
        async def answer() -> _T:
            try:
                return await command
            except _FOREIGN as error:
                raise _unavailable(error) from error

        return await self._tasks.shield(answer(), name="command")


@asynccontextmanager
async def open_redis_queue(url: str) -> AsyncIterator[RedisQueue]:
    """A queue that answers; `QueueUnavailableError` when it does not or its Redis is too old."""
    queue = RedisQueue(url)
    try:
        await queue.check()
        yield queue
    finally:
        await queue.close()


def _client(url: str) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        decode_responses=True,
        max_connections=MAX_CONNECTIONS,
        timeout=COMMAND_TIMEOUT_S,
        socket_timeout=COMMAND_TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        # A connection that broke while idle; more would keep the caller from its 503.
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.02), RETRIES),
        retry_on_error=[RedisConnectionError],
    )
    return Redis.from_pool(pool)


def _text(script: str) -> str:
    return (files("faas.queue") / "scripts" / f"{script}.lua").read_text(encoding="utf-8")


def _pairs(leases: Collection[Lease]) -> list[str]:
    return [part for lease in leases for part in (lease.call_id, lease.token)]


def _millis(instant: datetime | None) -> int:
    return 0 if instant is None else int(instant.timestamp() * 1000)


def _unavailable(error: Exception) -> QueueUnavailableError:
    return QueueUnavailableError(f"The call queue does not answer: {error}")
