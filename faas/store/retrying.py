"""Attempts that failed and are not the last: the call waits for the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faas.store import attempts as attempt_rows
from faas.store import bodies
from faas.store.runs import OF_ATTEMPT, fence
from faas.store.tables import calls

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from faas.models import Attempt, Call, CallLog
    from faas.store.database import Database

__all__ = ["Retrying"]

# Who asked for the call's end is not kept waiting by a retry.
_PUT_BACK = OF_ATTEMPT.where(calls.c.cancel_requested_at.is_(None))


class Retrying:
    """Puts calls back that run again by their route's policy."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_back(self, call: Call, attempt: Attempt, log: CallLog | None) -> bool:
        """End an attempt with all its evidence; the call waits as `call` says (`queued` or `delayed`).

        False and no change when the attempt is not the latest, or when somebody asked for the call's end.
        """
        values = {
            **fence(call.id, attempt.number),
            "status": call.status.value,
            "not_before": call.not_before,
            "retries": call.retries,
        }

        def work(connection: Connection) -> bool:
            if connection.execute(_PUT_BACK, values).rowcount != 1:
                return False
            attempt_rows.end(connection, [(call.id, attempt)])
            bodies.keep_logs(self._database, connection, [(call.id, attempt.number, log)] if log else [])
            return True

        return await self._database.write(work)
