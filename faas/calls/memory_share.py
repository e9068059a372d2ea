"""Async calls' share of a node's memory: the rest is there for who waits for an answer."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["MemoryShare"]


class MemoryShare:
    """Lets calls run while the memory of those that do stays within the share; who waits is served in order.

    A call that needs more than the whole share runs when no other does: waiting would not make it smaller.
    """

    def __init__(self, total_mib: float) -> None:
        self.total_mib = total_mib
        self.used_mib = 0.0
        self._running = 0
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    def __repr__(self) -> str:
        return f"<MemoryShare {self.used_mib:.0f} of {self.total_mib:.0f} MiB, {len(self._waiting)} waiting>"

    @asynccontextmanager
    async def taken(self, memory_mib: float) -> AsyncIterator[None]:
        """Hold so much for as long as the block lasts."""
        await self._take(memory_mib)
        try:
            yield
        finally:
            self._give_back(memory_mib)

    async def _take(self, memory_mib: float) -> None:
        if not self._waiting and self._fits(memory_mib):
            self._hold(memory_mib)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (memory_mib, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(memory_mib)
            elif entry in self._waiting:
                self._waiting.remove(entry)
                self._serve()
            raise

    def _fits(self, memory_mib: float) -> bool:
        return not self._running or self.used_mib + memory_mib <= self.total_mib

    def _hold(self, memory_mib: float) -> None:
        self._running += 1
        self.used_mib += memory_mib

    def _give_back(self, memory_mib: float) -> None:
        self._running -= 1
        # Parts of containers are fractions, whose sum need not come back to nothing.
        self.used_mib = self.used_mib - memory_mib if self._running else 0.0
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            memory_mib, turn = self._waiting.popleft()
            if turn.cancelled():
                continue  # its caller is about to hear of it, and finds nothing to take back
            self._hold(memory_mib)
            turn.set_result(None)
