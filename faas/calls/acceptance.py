"""Making a call durable and putting it in line: with one write where the queue is kept beside the records."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from faas.errors import FaasError, QueueUnavailableError
from faas.queue.base import BesideRecords, Ticket

if TYPE_CHECKING:
    from faas.models import Call, CallRequest
    from faas.queue.base import CallQueue
    from faas.store.calls import CallRecords

__all__ = ["Acceptance"]

logger = logging.getLogger(__name__)


class Acceptance:
    """Writes a call down and dispatches it."""

    def __init__(self, records: CallRecords, queue: CallQueue, *, without_queue: bool) -> None:
        """`without_queue`: a call counts as accepted when it is on disk; the sweeper dispatches it later."""
        self._records = records
        self._queue = queue
        self._beside = queue if isinstance(queue, BesideRecords) else None
        self._without_queue = without_queue

    async def accept(self, call: Call, request: CallRequest) -> None:
        """Return when the call is on disk and in line, or will be.

        Raises `StoreUnavailableError`, `QueueUnavailableError`; then nothing was accepted.
        """
        ticket = Ticket(call_id=call.id, priority=call.priority, not_before=call.not_before, fairness_key=call.app_name)
        if self._beside is not None:
            await self._records.insert(call, request, also=self._beside.rows(ticket))
            self._beside.wake()
            return
        await self._records.insert(call, request)
        try:
            await self._queue.dispatch(ticket)
        except QueueUnavailableError as error:
            if not self._without_queue:
                await self._records.delete_unaccepted(call.id)
                raise
            logger.warning("accepted_without_queue", extra={"call_id": call.id, "error": error.message})
        except FaasError:
            await self._records.delete_unaccepted(call.id)
            raise
