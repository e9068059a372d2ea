"""Ending calls from outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from faas.clock import utc_now
from faas.errors import CallCancelledError, InvalidRequestError

if TYPE_CHECKING:
    from faas.calls.events import CallEvents
    from faas.calls.lookup import Lookup, Siblings
    from faas.models import Call
    from faas.queue.base import CallQueue
    from faas.runner.agent import Agent
    from faas.store.engine import Store

__all__ = ["Control"]

CANCEL_S = 30.0
"""How long cancelling a running call waits for its container's end."""


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

        Raises as `get`, and `InvalidRequestError` when it runs on another node.
        """
        for _ in range(3):  # it may begin, or end, while we look
            call = await self._lookup.now(call_id)
            if call.status.is_final:
                return call
            invocation = self._agent.running.get(call_id)
            if invocation is not None:
                self._agent.stop(invocation, CallCancelledError())
                return await self._lookup.get(call_id, wait_s=CANCEL_S)
            if await self._siblings.cancel(call_id):
                return await self._lookup.get(call_id, wait_s=CANCEL_S)
            if await self._store.calls.cancel_waiting(call_id, utc_now()):
                await self._queue.discard(call_id)
                cancelled = await self._lookup.now(call_id)
                self._events.publish(cancelled)
                return cancelled
            await asyncio.sleep(0.05)
        node = call.attempts[-1].node if call.attempts else "another node"
        raise InvalidRequestError(f"The call runs on {node}; cancel it there")
