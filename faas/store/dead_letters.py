"""Ended calls that are run again as new ones, or thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, false, text, update

from faas.store import bodies
from faas.store.call_rows import values_of
from faas.store.tables import IS_DEAD_LETTER, IS_FINAL, calls

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from faas.models import Call, CallRequest
    from faas.store.database import Database

__all__ = ["DeadLetters"]


class DeadLetters:
    """What may still be done with calls that have ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert_retry(self, retry: Call, request: CallRequest) -> bool:
        """Accept a call that runs `retry.retry_of` again, which is no dead letter any more: both or nothing.

        False when that one has not ended, was retried before, or is gone.
        """
        statement = (
            update(calls)
            .where(calls.c.id == retry.retry_of, calls.c.retried_by.is_(None), text(IS_FINAL))
            .values(retried_by=retry.id, is_dead_letter=false())
        )
        add_request, row = bodies.request_row(retry.id, request)

        def work(connection: Connection) -> bool:
            if connection.execute(statement).rowcount != 1:
                return False
            connection.execute(calls.insert(), values_of(retry))
            connection.execute(add_request, row)
            return True

        return await self._database.write(work)

    async def purge(self, call_ids: Collection[str]) -> int:
        """Delete those of these calls that are dead letters, with all that is theirs; returns how many."""
        statement = delete(calls).where(calls.c.id.in_(call_ids), text(IS_DEAD_LETTER))
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)
