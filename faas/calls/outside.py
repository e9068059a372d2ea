"""Queued calls for workers that are not ours: IronFunctions' `/tasks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.clock import utc_now
from faas.errors import AppNotFoundError, CallNotFoundError, RouteNotFoundError
from faas.models import CallStatus

if TYPE_CHECKING:
    from faas.calls.events import CallEvents
    from faas.calls.execution import Execution
    from faas.models import Call, CallRequest, Route
    from faas.queue.base import CallQueue, Lease
    from faas.store.engine import Store

__all__ = ["OutsideWorkers"]

LEASE_S = 60.0
"""How long a worker outside may take; IronFunctions' reservation."""


class OutsideWorkers:
    """Leases calls to them, and hears what they have run."""

    def __init__(self, store: Store, queue: CallQueue, execution: Execution, events: CallEvents) -> None:
        self._store = store
        self._queue = queue
        self._execution = execution
        self._events = events
        self._leased: dict[str, tuple[Lease, Call]] = {}

    async def lease(self) -> tuple[Call, Route, CallRequest] | None:
        """Give one queued call to a worker outside, for a minute."""
        leases = await self._queue.lease(owner="outside", max_count=1, lease_s=LEASE_S, wait_s=0)
        for lease in leases:
            route = await self._route_of(lease.call_id)
            if route is None:
                # Nothing an outside worker could run; here it ends with the error that says so.
                await self._execution.run(lease.call_id)
                await self._queue.ack(lease)
                continue
            call = await self._store.calls.begin_attempt(lease.call_id, node="outside", started_at=utc_now())
            request = await self._store.calls.request(lease.call_id)
            if call is None or request is None:
                await self._queue.ack(lease)
                continue
            self._leased[call.id] = (lease, call)
            self._events.publish(call)
            return call, route, request
        return None

    async def _route_of(self, call_id: str) -> Route | None:
        call = await self._store.calls.get(call_id)
        if call is None:
            return None
        try:
            return await self._store.routes.get(call.app_name, call.path)
        except (AppNotFoundError, RouteNotFoundError):
            return None

    async def finish(self, call_id: str) -> None:
        """A worker outside has run a call it leased here; raises `CallNotFoundError`."""
        if call_id not in self._leased:
            raise CallNotFoundError("No such task is leased; its lease may have run out")
        lease, call = self._leased.pop(call_id)
        done = call.ended(CallStatus.SUCCESS, completed_at=utc_now())
        await self._store.calls.finish(done, call.attempts[-1], None, None)
        await self._queue.ack(lease)
        self._events.publish(done)
