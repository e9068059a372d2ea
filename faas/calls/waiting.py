"""Who waits on this node for something to happen to a call."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Waiters"]


class Waiters:
    """Futures by call id; nothing is kept for calls that nobody waits for."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def wake(self, call_id: str) -> None:
        """Something has happened to a call, its end mostly; on the hot path."""
        if self._waiters:
            for future in self._waiters.get(call_id, ()):
                if not future.done():
                    future.set_result(None)

    def wake_all(self) -> None:
        """Anything may have happened to any call."""
        for call_id in self._waiters:
            self.wake(call_id)

    @contextmanager
    def waiting(self, call_id: str) -> Iterator[asyncio.Future[None]]:
        """A future that is done when something happens to the call; look at the call after you have it, so that nothing
        is missed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(call_id, set()).add(future)
        try:
            yield future
        finally:
            futures = self._waiters[call_id]
            futures.discard(future)
            if not futures:
                del self._waiters[call_id]
