"""The one room that makes asyncio tasks: every task has a parent and a name, and none dies unseen."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Self, TypeVar

from faas.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

__all__ = ["TaskSet"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class TaskSet:
    """The tasks of one owner; leaving it cancels what is left and waits for it.

    `spawn` is for work that ends by itself (an exception there is logged), `supervise` for loops that must not end:
    an exception in one is handed to `on_failure`, which is expected to stop the node.
    """

    def __init__(self, name: str, *, on_failure: Callable[[BaseException], None] | None = None) -> None:
        self._name = name
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cancel()

    def spawn(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run work in the background."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self._name}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def shield(self, work: Coroutine[Any, Any, _T], *, name: str) -> _T:
        """The result of work that goes on to its end when the caller is cancelled, who is not kept waiting."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self._name}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def supervise(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run a loop that must live as long as its owner."""
        task = self.spawn(work, name=name)
        task.add_done_callback(self._must_not_fail)
        return task

    async def wait(self, timeout_s: float) -> int:
        """Wait until all tasks have ended, also those begun meanwhile, at most so long; returns how many have not."""
        deadline = monotonic() + timeout_s
        while self._tasks and (left_s := deadline - monotonic()) > 0:
            await asyncio.wait(set(self._tasks), timeout=left_s)
        return len(self._tasks)

    async def cancel(self) -> None:
        """Cancel what is left, wait until it has ended."""
        while self._tasks:
            tasks = set(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("task_failed", exc_info=error, extra={"task": task.get_name()})

    def _must_not_fail(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or self._on_failure is None:
            return
        if (error := task.exception()) is not None:
            self._on_failure(error)
