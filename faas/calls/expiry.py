"""Calls whose caller said by when they must begin: past that they end, and never run."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from faas.clock import utc_now
from faas.errors import FaasError

if TYPE_CHECKING:
    from faas.calls.events import CallEvents
    from faas.queue.base import CallQueue
    from faas.store.expiry import ExpiringCalls

__all__ = ["Expiry"]

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""How late the end of an expired call may be told. That it does not begin is exact."""

PAGE = 500


class Expiry:
    """Ends calls that have not begun in time."""

    def __init__(self, calls: ExpiringCalls, queue: CallQueue, events: CallEvents) -> None:
        self._calls = calls
        self._queue = queue
        self._events = events

    async def end_forever(self) -> NoReturn:
        """End them, soon after their time."""
        while True:
            try:
                await self.end_due()
            except FaasError as error:
                logger.warning("expiry_failed", extra={"error": error.message})
            await asyncio.sleep(LOOK_S)

    async def end_due(self) -> int:
        """End those whose time is over; returns how many."""
        count, now = 0, utc_now()
        while ended := await self._calls.end(now=now, limit=PAGE):
            for call in ended:
                # First told, then taken out of line: a worker that leases it meanwhile finds it ended.
                self._events.publish(call)
                await self._queue.discard(call.id)
            count += len(ended)
        return count
