"""Calls that were to begin by an instant and have not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select, text, update

from faas.errors import CallNotBegunError
from faas.models import CallStatus, Reason
from faas.store.call_rows import call_of
from faas.store.columns import UtcDateTime
from faas.store.tables import IS_EXPIRING, calls

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from faas.models import Call
    from faas.store.database import Database

__all__ = ["ExpiringCalls"]

_DUE = (
    select(calls.c.id)
    .where(text(IS_EXPIRING), calls.c.expires_at <= bindparam("now", type_=UtcDateTime))
    .order_by(calls.c.expires_at)
    .limit(bindparam("max_count"))
)
_END = (
    update(calls)
    .where(calls.c.id == bindparam("the_id"), text(IS_EXPIRING))
    .values(
        status=CallStatus.ERROR.value,
        completed_at=bindparam("at", type_=UtcDateTime),
        reason=Reason.EXPIRED.value,
        error=CallNotBegunError().message,
    )
    .returning(calls)
)


class ExpiringCalls:
    """The end of those whose time is over."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def end(self, *, now: datetime, limit: int) -> list[Call]:
        """End up to `limit` of them; returns those that this very call has ended."""

        # Mostly there are none, and a read does not wait for SQLite's one writer.
        due = await self._database.read(
            lambda connection: list(connection.execute(_DUE, {"now": now, "max_count": limit}).scalars())
        )

        def work(connection: Connection) -> list[Call]:
            rows = [connection.execute(_END, {"the_id": call_id, "at": now}).first() for call_id in due]
            return [call_of(row) for row in rows if row is not None]

        return await self._database.write(work) if due else []
