"""Accepting the calls of schedules."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from faas.errors import FaasError
from faas.ids import created_at_of, new_id
from faas.models import Call, CallStatus, CallType
from faas.queue.base import Ticket

if TYPE_CHECKING:
    from datetime import datetime

    from faas.calls.events import CallEvents
    from faas.queue.base import CallQueue
    from faas.schedule import Schedule
    from faas.store.engine import Store

__all__ = ["Firings"]

logger = logging.getLogger(__name__)


class Firings:
    """As `Submission`, but nobody waits for the answer: a call that can't be dispatched stays for the sweeper."""

    def __init__(self, store: Store, queue: CallQueue, events: CallEvents) -> None:
        self._store = store
        self._queue = queue
        self._events = events

    async def fire(self, schedule: Schedule, *, next_at: datetime | None) -> Call | None:
        """Accept the call of a due schedule and move the schedule on to `next_at`, both or neither.

        None when another node has made this firing, or the schedule was changed. Raises `StoreUnavailableError`.
        """
        call_id = new_id()
        call = Call(
            id=call_id,
            app_name=schedule.app_name,
            path=schedule.path,
            type=CallType.ASYNC,
            status=CallStatus.QUEUED,
            created_at=created_at_of(call_id),
            priority=schedule.priority,
            schedule=schedule.name,
        )
        if not await self._store.schedules.advance(schedule, next_at=next_at, call=call, request=schedule.request):
            return None
        ticket = Ticket(call_id=call.id, priority=call.priority, fairness_key=call.app_name)
        try:
            await self._queue.dispatch(ticket)
        except FaasError as error:
            logger.warning("firing_not_dispatched", extra={"call_id": call.id, "error": error.message})
        self._events.publish(call)
        return call

    async def has_ended(self, call_id: str) -> bool:
        """Whether a call will not change any more, or its record is gone."""
        call = await self._store.calls.get(call_id)
        return call is None or call.status.is_final
