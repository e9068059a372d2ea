"""Ended calls, run again as new ones; those whose retries are exhausted wait for that, or are thrown away."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from faas.errors import (
    AppNotFoundError,
    CallNotEndedError,
    CallNotFoundError,
    CallRetriedError,
    QueueUnavailableError,
    RequestNotKeptError,
    RouteNotFoundError,
)
from faas.ids import created_at_of, new_id
from faas.models import Bulk, Call, CallStatus, CallType
from faas.queue.base import Ticket

if TYPE_CHECKING:
    from faas.calls.events import CallEvents
    from faas.calls.lookup import Lookup
    from faas.models import CallFilter
    from faas.queue.base import CallQueue
    from faas.runner.functions import FunctionTable
    from faas.store.engine import Store

__all__ = ["DeadLetterBox"]

logger = logging.getLogger(__name__)

_NOT_TO_BE_RETRIED = (
    AppNotFoundError,
    CallNotFoundError,
    CallRetriedError,
    RequestNotKeptError,
    RouteNotFoundError,
)
"""What stands in the way of one call and not of the next."""


class DeadLetterBox:
    """What can be done by hand about calls that have ended."""

    def __init__(
        self, store: Store, queue: CallQueue, table: FunctionTable, lookup: Lookup, events: CallEvents
    ) -> None:
        self._store = store
        self._queue = queue
        self._table = table
        self._lookup = lookup
        self._events = events

    async def retry(self, call_id: str) -> Call:
        """Accept a new call with an ended one's request; when this returns it is on disk and will run.

        Raises `CallNotFoundError`, `CallExpiredError`, `CallNotEndedError`, `CallRetriedError` (each call is retried
        once), `RequestNotKeptError` (of sync calls), and `AppNotFoundError`, `RouteNotFoundError` when there is nothing
        to run it.
        """
        return await self._retry(await self._lookup.now(call_id))

    async def _retry(self, ended: Call) -> Call:
        if not ended.status.is_final:
            raise CallNotEndedError(f"The call is {ended.status.value}; only one that has ended can be retried")
        if ended.retried_by is not None:
            raise CallRetriedError(ended.retried_by)
        self._table.get(ended.app_name, ended.path)
        request = await self._store.calls.request(ended.id)
        if request is None:
            raise RequestNotKeptError("The call's request was not kept: only those of async calls are")
        retry_id = new_id()
        retry = Call(
            id=retry_id,
            app_name=ended.app_name,
            path=ended.path,
            type=CallType.ASYNC,
            status=CallStatus.QUEUED,
            created_at=created_at_of(retry_id),
            priority=ended.priority,
            retry_of=ended.id,
            webhooks=ended.webhooks,
        )
        if not await self._store.dead_letters.insert_retry(retry, request):
            # Somebody was faster, or its record was purged just now.
            now = await self._lookup.now(ended.id)
            raise CallRetriedError(now.retried_by or "another call")
        try:
            await self._queue.dispatch(Ticket(call_id=retry.id, priority=retry.priority, fairness_key=retry.app_name))
        except QueueUnavailableError as error:
            # It is accepted: the sweeper dispatches it when the queue is back.
            logger.warning("retry_not_dispatched", extra={"call_id": retry.id, "error": error.message})
        self._events.publish(retry)
        return retry

    async def list_calls(self, meant: CallFilter, *, limit: int, cursor: str | None) -> tuple[list[Call], str | None]:
        """A page of an app's dead letters, newest first, and the cursor of the next."""
        return await self._store.calls.page(meant, limit=limit, cursor=cursor)

    async def redrive(self, meant: CallFilter, *, limit: int, cursor: str | None) -> Bulk:
        """Retry a page of an app's dead letters; one whose route is gone is skipped and stays."""
        page, next_cursor = await self._store.calls.page(meant, limit=limit, cursor=cursor)
        count = 0
        for call in page:
            try:
                await self._retry(call)
            except _NOT_TO_BE_RETRIED:
                continue
            count += 1
        return Bulk(count=count, skipped=len(page) - count, next_cursor=next_cursor)

    async def purge(self, meant: CallFilter, *, limit: int, cursor: str | None) -> Bulk:
        """Delete a page of an app's dead letters, with all that is known of them."""
        page, next_cursor = await self._store.calls.page(meant, limit=limit, cursor=cursor)
        count = await self._store.dead_letters.purge([call.id for call in page])
        return Bulk(count=count, skipped=len(page) - count, next_cursor=next_cursor)
