"""Group commit: what concurrent callers want is done together, by whoever does many things as cheaply as one.

Nobody waits for company: the first item is on its way at once, those that come meanwhile are the next batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from faas.errors import FaasError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from faas.tasks import TaskSet

__all__ = ["MAX_BATCH", "Batcher"]

Item = TypeVar("Item")
T = TypeVar("T")

MAX_BATCH = 64
"""Past this a transaction's fixed costs are a small part of it, and the first would wait too long for the last."""


class Batcher(Generic[Item, T]):
    """Calls `flush(items)` with all that has come since it was called last, one call of it at a time.

    `flush` answers item by item, in their order, and either does all or raises and has done nothing. What it raises is
    every caller's when it is a `FaasError` (the backend is away); otherwise each item is tried alone, so that one that
    can't be done takes no other along. A caller that is cancelled stops waiting; what has begun goes on.
    """

    def __init__(self, flush: Callable[[Sequence[Item]], Awaitable[Sequence[T]]], tasks: TaskSet, *, name: str) -> None:
        self._flush = flush
        self._tasks = tasks
        self._name = name
        self._waiting: deque[tuple[Item, asyncio.Future[T]]] = deque()
        self._is_flushing = False

    async def __call__(self, item: Item) -> T:
        """What `flush` answers for this item."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if not self._is_flushing:
            self._is_flushing = True
            self._tasks.spawn(self._flush_all(), name=self._name)
        return await done

    async def _flush_all(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(MAX_BATCH, len(self._waiting)))]
                # Who was cancelled before anything was done for it wants nothing any more.
                await self._do([(item, done) for item, done in batch if not done.done()])
        finally:
            self._is_flushing = False
            for _, done in self._waiting:  # none, unless this was cancelled
                done.cancel()
            self._waiting.clear()

    async def _do(self, batch: list[tuple[Item, asyncio.Future[T]]]) -> None:
        if not batch:
            return
        try:
            answers = await self._flush([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to who asked
            if len(batch) > 1 and not isinstance(error, FaasError):
                for one in batch:
                    await self._do([one])
                return
            for _, done in batch:
                if not done.done():
                    done.set_exception(error)
        except BaseException:
            for _, done in batch:
                done.cancel()
            raise
        else:
            for (_, done), answer in zip(batch, answers, strict=True):
                if not done.done():
                    done.set_result(answer)
