"""Ending calls from outside, one or many, on whichever node they are."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from faas.clock import monotonic, utc_now
from faas.errors import CallCancelledError, FaasError
from faas.models import Bulk, CallStatus, Reason

if TYPE_CHECKING:
    from faas.calls.events import CallEvents
    from faas.calls.lookup import Lookup, Siblings
    from faas.models import Call, CallFilter
    from faas.queue.base import CallQueue
    from faas.runner.agent import Agent
    from faas.store.engine import Store

__all__ = ["Control"]

logger = logging.getLogger(__name__)

CANCEL_S = 30.0
"""How long cancelling a running call waits for its container's end."""

WATCH_S = 1.0
"""How often a node looks for calls of its own that another node was asked to cancel."""

FIRST_LOOK_S = 0.05
"""A call that is on its way from one state to the next has got there by then."""

UNFINISHED = (CallStatus.DELAYED, CallStatus.QUEUED, CallStatus.RUNNING)


class Control:
    """Cancels calls, wherever they are."""

    def __init__(
        self, store: Store, queue: CallQueue, agent: Agent, lookup: Lookup, events: CallEvents, siblings: Siblings
    ) -> None:
        self._store = store
        self._queue = queue
        self._agent = agent
        self._lookup = lookup
        self._events = events
        self._siblings = siblings

    async def cancel(self, call_id: str) -> Call:
        """End a call: one that waits never runs, one that runs is dead when this returns; an ended one stays so.

        A call that runs on another node is ended there, within some 2 s. One whose end can't be confirmed within
        `CANCEL_S` is returned as it is, and ends later. Raises as `get`.
        """
        deadline = monotonic() + CANCEL_S
        pause_s = FIRST_LOOK_S
        while True:  # it may begin, end or be put back while we look
            call = await self._lookup.now(call_id)
            if call.status.is_final:
                return call
            invocation = self._agent.running.get(call_id)
            if invocation is not None:
                self._agent.stop(invocation, CallCancelledError())
                return await self._lookup.get(call_id, wait_s=CANCEL_S)
            if await self._siblings.cancel(call_id):
                return await self._lookup.get(call_id, wait_s=CANCEL_S)
            if await self._end_waiting([call]):
                return await self._lookup.now(call_id)
            await self._store.cancelling.request(call_id, utc_now())
            left_s = deadline - monotonic()
            call = await self._lookup.get(call_id, wait_s=max(0.0, min(pause_s, left_s)))
            if call.status.is_final or left_s <= 0:
                return call
            pause_s = WATCH_S

    async def cancel_many(self, meant: CallFilter, *, limit: int, cursor: str | None) -> Bulk:
        """End a page of an app's async calls, newest first; running ones are dead when this returns, as in `cancel`."""
        page, next_cursor = await self._store.calls.page(
            replace(meant, statuses=meant.statuses or UNFINISHED), limit=limit, cursor=cursor
        )
        count = await self._end_waiting([call for call in page if call.status is not CallStatus.RUNNING])
        ended = await asyncio.gather(*[self.cancel(call.id) for call in page if call.status is CallStatus.RUNNING])
        count += [call.status for call in ended].count(CallStatus.CANCELLED)
        return Bulk(count=count, skipped=len(page) - count, next_cursor=next_cursor)

    async def watch_forever(self) -> None:
        """End the calls of this node that another one was asked to cancel."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self.obey()
            except FaasError as error:
                logger.warning("cancel_watch_failed", extra={"error": error.message})

    async def obey(self) -> None:
        """End them now. Costs nothing while no queued call runs here."""
        if not any(invocation.attempt for invocation in self._agent.running.values()):
            return
        for call_id in await self._store.cancelling.requested():
            invocation = self._agent.running.get(call_id)
            if invocation is not None:
                self._agent.stop(invocation, CallCancelledError())

    async def _end_waiting(self, waiting: list[Call]) -> int:
        at = utc_now()
        ended = await self._store.cancelling.end_waiting([call.id for call in waiting], at) if waiting else set()
        await asyncio.gather(*[self._queue.discard(call_id) for call_id in ended])
        for call in waiting:
            if call.id in ended:
                error = CallCancelledError().message
                self._events.publish(
                    call.ended(CallStatus.CANCELLED, completed_at=at, reason=Reason.CLIENT_REQUEST, error=error)
                )
        return len(ended)
