"""Calls that somebody wants to end, wherever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, text, update

from faas.errors import CallCancelledError
from faas.models import CallStatus, Reason
from faas.store.tables import IS_TO_CANCEL, calls

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from faas.store.database import Database

__all__ = ["Cancelling"]

WAITING = (CallStatus.DELAYED.value, CallStatus.QUEUED.value)


class Cancelling:
    """Ends calls that wait, and tells the nodes of those that run."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def end_waiting(self, call_ids: Collection[str], at: datetime) -> set[str]:
        """End those of these calls that do not run; returns which those were."""
        statement = (
            update(calls)
            .where(calls.c.id.in_(call_ids), calls.c.status.in_(WAITING))
            .values(
                status=CallStatus.CANCELLED.value,
                completed_at=at,
                reason=Reason.CLIENT_REQUEST.value,
                error=CallCancelledError().message,
            )
            .returning(calls.c.id)
        )
        return await self._database.write(lambda connection: set(connection.execute(statement).scalars()))

    async def request(self, call_id: str, at: datetime) -> None:
        """Ask the node that runs a call for its end; nothing happens when it does not run."""
        statement = (
            update(calls)
            .where(calls.c.id == call_id, calls.c.status == CallStatus.RUNNING.value)
            .values(cancel_requested_at=at)
        )
        await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def requested(self) -> set[str]:
        """Calls whose nodes are to end them."""
        statement = select(calls.c.id).where(text(IS_TO_CANCEL))
        return await self._database.read(lambda connection: set(connection.execute(statement).scalars()))
