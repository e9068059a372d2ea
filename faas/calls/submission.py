"""Accepting calls for later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.clock import utc_now
from faas.errors import FaasError
from faas.ids import created_at_of, new_id
from faas.models import Call, CallStatus, CallType
from faas.queue.base import Ticket

if TYPE_CHECKING:
    from datetime import datetime

    from faas.calls.events import CallEvents
    from faas.models import CallRequest
    from faas.queue.base import CallQueue
    from faas.runner.functions import Function
    from faas.store.engine import Store

__all__ = ["Submission"]


class Submission:
    """Accepts calls: first on disk, then in line."""

    def __init__(self, store: Store, queue: CallQueue, events: CallEvents) -> None:
        self._store = store
        self._queue = queue
        self._events = events

    async def submit(
        self,
        function: Function,
        request: CallRequest,
        *,
        priority: int = 0,
        not_before: datetime | None = None,
        expires_at: datetime | None = None,
        call_id: str | None = None,
    ) -> Call:
        """Accept a call for later; when this returns it is on disk and will run, unless it can't begin by `expires_at`.

        `call_id`: a fresh id that somebody has written down already.

        Raises `StoreUnavailableError`, `QueueUnavailableError`; then nothing was accepted.
        """
        is_delayed = not_before is not None and not_before > utc_now()
        call_id = call_id or new_id()
        call = Call(
            id=call_id,
            app_name=function.app_name,
            path=function.path,
            type=CallType.ASYNC,
            status=CallStatus.DELAYED if is_delayed else CallStatus.QUEUED,
            created_at=created_at_of(call_id),
            priority=priority,
            not_before=not_before,
            expires_at=expires_at,
        )
        await self._store.calls.insert(call, request)
        try:
            await self._queue.dispatch(_ticket(call))
        except FaasError:
            await self._store.calls.delete_unaccepted(call.id)
            raise
        self._events.publish(call)
        return call


def _ticket(call: Call) -> Ticket:
    return Ticket(call_id=call.id, priority=call.priority, not_before=call.not_before, fairness_key=call.app_name)
