"""How many containers are made at the same time, and for whom: functions take turns, so that none waits for all that
another one starts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Place", "Starts"]

PATIENCE_S = 2.0
"""A start that takes longer lets others begin: it imports much, or never listens."""


class Place:
    """One of the places for containers in the making."""

    def __init__(self, starts: Starts) -> None:
        self._starts: Starts | None = starts
        self._timer: asyncio.TimerHandle | None = None

    def leave_soon(self) -> None:
        """Leave after `PATIENCE_S`, when the work has not ended then."""
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_S, self.leave)

    def leave(self) -> None:
        """Let another one begin; the second time does nothing."""
        starts, self._starts = self._starts, None
        if starts is not None:
            starts._give_back()
        if self._timer is not None:
            self._timer.cancel()


class Starts:
    """The places, and who waits for one."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By function key, the function whose turn is next first."""

    def __repr__(self) -> str:
        return f"<Starts {self._free} free, {sum(map(len, self._waiting.values()))} waiting>"

    @asynccontextmanager
    async def place(self, key: str) -> AsyncIterator[Place]:
        """A place for a container of this function, when it is its turn."""
        await self._take(key)
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()

    async def _take(self, key: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give_back()  # it came at the same time
            raise

    def _give_back(self) -> None:
        while self._waiting:
            key = next(iter(self._waiting))
            line = self._waiting.pop(key)
            turn = line.popleft()
            if line:
                self._waiting[key] = line  # behind the others
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
