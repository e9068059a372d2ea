"""Housekeeping of call records: nothing accepted is forgotten, nothing is kept for ever."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from faas.clock import utc_now
from faas.errors import FaasError
from faas.queue.base import Ticket

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from faas.queue.base import CallQueue
    from faas.store.calls import CallRecords, UnfinishedCall

__all__ = ["Sweeper"]

logger = logging.getLogger(__name__)

SWEEP_S = 10.0
SWEEP_AGE_S = 10.0
"""A call must be this old before it is asked for in the queue: it may be just being dispatched."""

PAGE = 500
PURGE_S = 60.0


class Sweeper:
    """Dispatches again what the queue has lost, deletes what is past its retention."""

    def __init__(
        self,
        records: CallRecords,
        queue: CallQueue,
        *,
        retention_s: int,
        is_running_here: Callable[[str], bool],
    ) -> None:
        self._records = records
        self._queue = queue
        self._retention_s = retention_s
        self._is_running_here = is_running_here

    async def sweep_forever(self) -> None:
        """Dispatch again, now and then, what is unfinished and unknown to the queue."""
        age_s = 0.0  # at start nothing of this node's can be in the middle of being dispatched
        while True:
            try:
                await self.sweep(utc_now() - timedelta(seconds=age_s))
            except FaasError as error:
                logger.warning("sweep_failed", extra={"error": error.message})
            age_s = SWEEP_AGE_S
            await asyncio.sleep(SWEEP_S)

    async def sweep(self, before: datetime) -> int:
        """Dispatch what was created before, is unfinished and unknown to the queue; returns how many."""
        count, after = 0, None
        while page := await self._records.unfinished(before=before, limit=PAGE, after=after):
            known = await self._queue.known([one.call_id for one in page])
            lost = [one for one in page if one.call_id not in known and not self._is_running_here(one.call_id)]
            # All at once: a queue puts concurrent callers' calls in line together.
            await asyncio.gather(*[self._queue.dispatch(_ticket(one)) for one in lost])
            count += len(lost)
            after = page[-1].call_id
        if count:
            logger.warning("calls_dispatched_again", extra={"count": count})
        return count

    async def purge_forever(self) -> None:
        """Delete records past their retention."""
        while True:
            try:
                await self.purge()
            except FaasError as error:
                logger.warning("purge_failed", extra={"error": error.message})
            await asyncio.sleep(PURGE_S)

    async def purge(self) -> int:
        """Delete the records of ended calls that are past their retention; returns how many."""
        before, count = utc_now() - timedelta(seconds=self._retention_s), 0
        while deleted := await self._records.purge(before=before, limit=PAGE):
            count += deleted
        return count


def _ticket(call: UnfinishedCall) -> Ticket:
    return Ticket(call_id=call.call_id, priority=call.priority, not_before=call.not_before, fairness_key=call.app_name)
